"""The names at the root: all of them lead somewhere, typed and documented, and the page about them runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import ranksaga

PAGE = Path(__file__).parents[1] / "docs/python.md"
RECIPE = """
model: tiny/model
datasets: ["python:logging"]
guards: ["python:urllib"]
max_length: 32
systems:
  best:
    seeds: 1
    epochs: 1
    max_steps: 4
    documents: null
    distillation: {pseudo_queries: 64, queries: 8, labelled: 8, documents: 8}
"""


@pytest.mark.parametrize("name", ranksaga.__all__)
def test_every_name_leads_somewhere_and_is_documented(name: str) -> None:
    value = getattr(ranksaga, name)
    assert name in dir(ranksaga)
    if name != "__version__":
        assert value.__doc__
        assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error_that_names_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'finetune' \(known: .*run_recipe"):
        ranksaga.finetune  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, ranksaga; print(sorted(name for name in sys.modules if name.startswith(('ranksaga', 'numpy'))))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['ranksaga']"


def test_the_page_names_them_all() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in ranksaga.__all__ if f"`{name}" not in text and name != "__version__"]
    assert missing == []


@pytest.mark.slow
def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], families: SimpleNamespace
) -> None:
    """With a tiny model in place of MiniLM, which would take a minute."""
    monkeypatch.chdir(tmp_path)
    families.save(Path("tiny"), families.pooled(families.bert(tmp_path)))
    Path("recipe.yaml").write_text(RECIPE)
    capsys.readouterr()
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    code = code.replace('"minilm"', '"tiny/model"')
    exec(compile(code, str(PAGE), "exec"), {})
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "python:logging: nDCG@10 0." in shown.out
    assert "report: runs/recipe/report.html" in shown.out
    assert len(re.findall(r"^\d\.\d{3} \S+", shown.out, flags=re.MULTILINE)) == 3
