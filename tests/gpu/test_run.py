"""A whole run, every preset, on a stand-in for a GPU: no tensor of the CPU meets one of the GPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.recipe import Recipe
from ranksaga.run.pipeline import Outcome, run_recipe
from ranksaga.run.voice import Silent

DISTILLATION = {"pseudo_queries": 64, "queries": 4, "labelled": 4, "documents": 4}
# Learning rates at which two steps change what a random model ranks, so that selection has something to choose.
TRAINING: dict[str, Any] = {
    "v1": {"max_steps": 3, "epochs": 1, "warmup_steps": 0, "learning_rate": 1e-2, "merge_weights": [0.5, 1.0]},
    "v2": {
        "max_steps": 3,
        "epochs": 1,
        "warmup_steps": 0,
        "learning_rate": 1e-2,
        "hard_negatives": 1,
        "lora": {"rank": 2, "alpha": 4},
        "merge_weights": [0.5],
        "tolerance": 1.0,
    },
    "best": {
        "epochs": 2,
        "max_steps": 4,
        "seeds": 2,
        "learning_rate": 1e-2,
        "tolerance": 1.0,
        "merge_weights": [0.5, 1.0],
        "documents": {"weights": [0.0, 0.5], "learning_rate": 1e-2},
        "distillation": DISTILLATION,
    },
}


def write_dataset(folder: Path, words: list[str], seed: int, splits: dict[str, int]) -> Path:
    """A BEIR folder of 40 short documents; a query is two words that its document has."""
    rng = np.random.default_rng(seed)
    (folder / "qrels").mkdir(parents=True)
    corpus, queries = [], []
    judged: dict[str, list[str]] = {split: [] for split in splits}
    kinds = [split for split, count in splits.items() for _ in range(count)]
    for row in range(40):
        pair = rng.choice(words, 2, replace=False).tolist()
        text = " ".join([*pair, *rng.choice(words, int(rng.integers(4, 14))).tolist()])
        corpus.append({"_id": f"d{row}", "title": "", "text": text})
        if row < len(kinds):
            queries.append({"_id": f"q{row}", "text": " ".join(pair)})
            judged[kinds[row]].append(f"q{row}\td{row}\t1")
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for split, lines in judged.items():
        header = "query-id\tcorpus-id\tscore"
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def datasets(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """With all splits, with one that is cross-fitted, and a guard."""
    folder = tmp_path_factory.mktemp("datasets")
    splits: list[dict[str, int]] = [{"train": 20, "dev": 8, "test": 12}, {"test": 24}, {"dev": 8, "test": 12}]
    return [str(write_dataset(folder / f"words-{seed}", small.WORDS, seed, one)) for seed, one in enumerate(splits)]


def run(model: Path, datasets: list[str], folder: Path, precision: str, *presets: str, **training: Any) -> Outcome:
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "model": str(model),
            "datasets": datasets[:2],
            "guards": datasets[2:],
            "presets": presets,
            "precision": precision,
            "max_length": 24,
            "folds": 2,
            "depth": 100,
            "training": {**TRAINING, **training},
        }
    )
    return run_recipe(recipe, folder, Silent())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_preset_runs(
    gpu: Any, tiny_folder: Path, datasets: list[str], tmp_path: Path, precision: str
) -> None:
    outcome = run(tiny_folder, datasets, tmp_path / precision, precision, "v1", "v2", "best")
    assert (outcome.folder / "model" / "modules.json").is_file()
    record = json.loads((outcome.folder / "run.json").read_text(encoding="utf-8"))
    assert record["environment"]["device"] == "Stand-in"
    assert set(record["training"]) == {"v1", "v2", "best"}
    assert record["selection"]["shipped"]["weight"] > 0, "base kept: no weights were mixed for the shipped model"
    print(gpu.waits.most_common(), sum(gpu.uploads), gpu.unpinned)
