"""One small run in this process, which the back ends' runs are compared with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ranksaga.config.recipe import Recipe
from ranksaga.run.console import Silent
from ranksaga.run.pipeline import run_recipe

STEPS = 12
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "datasets": ["python:stdlib?limit=150"],
    "precision": "fp32",
    "max_length": 32,
    "systems": {
        "best": {
            "epochs": 3,
            "learning_rate": 3e-3,  # the model is a small one, with random weights
            "max_steps": STEPS,
            "merge_weights": [1.0],
            "documents": None,
            "seeds": 1,
            "distillation": {"pseudo_queries": 64, "queries": 8, "labelled": 8, "documents": 8},
        }
    },
}


@dataclass(frozen=True)
class SmallRun:
    """The recipe, the number of its optimizer steps, and the folder where it was run without a back end.

    ``new_home`` makes a cache folder that has the dataset and no vectors, so that another run encodes.
    """

    recipe: dict[str, Any]
    steps: int
    folder: Path
    scores: Callable[[Path], dict[str, list[float]]]
    new_home: Callable[[Path], Path]


@pytest.fixture(scope="session")
def small_run(tiny_minilm: Path, test_home: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    folder = tmp_path_factory.mktemp("alone") / "tiny"
    recipe = {**RECIPE, "model": str(tiny_minilm)}
    run_recipe(Recipe.model_validate(recipe), folder, Silent())
    measured = scores(folder)
    trained = {name: values for name, values in measured.items() if name.startswith("best ")}
    assert any(values != measured[f"baseline {name[5:]}"] for name, values in trained.items()), "training did nothing"

    def new_home(root: Path) -> Path:
        shutil.copytree(test_home / "built", root / "built")
        return root

    return SmallRun(recipe, STEPS, folder, scores, new_home)


def scores(folder: Path) -> dict[str, list[float]]:
    """All per-query values of all systems of a run."""
    return {
        f"{file.parent.name} {file.stem} {metric}": values
        for file in sorted((folder / "per_query").glob("*/*.json"))
        for metric, values in json.loads(file.read_text())["values"].items()
    }
