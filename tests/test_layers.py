"""Imports point to earlier levels only, and ``--help`` needs none of the heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "ranksaga"
LEVELS = (
    *("kernels", "data", "encode", "retrieve", "evaluate", "train", "compare", "report"),
    *("run", "estimate", "backends", "cli"),
)
FOR_EVERYONE = ("errors", "files", "memory", "profile", "config", "untrusted")
MODULES = sorted(path for path in SOURCE.rglob("*.py"))


def imports_of(path: Path) -> list[str]:
    """The first component below ``ranksaga`` of every import in a module, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        found += [name.split(".")[1] for name in names if name.startswith("ranksaga.")]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_up(path: Path) -> None:
    place = path.relative_to(SOURCE).with_suffix("").parts[0]
    if place in ("__main__", "__init__"):  # above everything: the names at the root lead down
        return
    for target in imports_of(path):
        if place in FOR_EVERYONE:
            allowed: tuple[str, ...] = FOR_EVERYONE
        else:
            allowed = (*FOR_EVERYONE, *LEVELS[: LEVELS.index(place) + 1])
        assert target in allowed, f"{path.relative_to(SOURCE)} imports {target}, which comes later"


def test_every_module_is_on_a_level() -> None:
    places = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in MODULES}
    assert places <= {*LEVELS, *FOR_EVERYONE, "__init__", "__main__"}


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = "('torch', 'transformers', 'matplotlib', 'scipy', 'modal', 'ray')"
    code = f"import sys, ranksaga.cli; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
