"""A whole run, by every method, on a stand-in for a GPU: no tensor of the CPU meets one of the GPU."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.config.recipe import Recipe
from ranksaga.run.console import Silent
from ranksaga.run.pipeline import run_recipe
from ranksaga.run.stages import SCORE, select

LORA = {"rank": 2, "alpha": 4}
SHORT: dict[str, Any] = {"max_steps": 2, "epochs": 1, "warmup_steps": 0}
TRAINING: dict[str, Any] = {
    "v1": {**SHORT, "method": "labelled", "merge_weights": [1.0]},
    "v2": {**SHORT, "method": "labelled", "hard_negatives": 1, "lora": LORA, "merge_weights": [0.5]},
    "best": {
        "epochs": 1,
        "max_steps": 2,
        "merge_weights": [0.5, 1.0],
        "documents": {"weights": [0.0, 0.5]},
        "distillation": {"pseudo_queries": 64, "queries": 4, "labelled": 4, "documents": 4},
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


@pytest.fixture(autouse=True)
def last_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selection scores all candidates and takes the last one: what a random model gains is chance."""
    monkeypatch.setattr(select, "choose", lambda base, candidates, *_: candidates[-1])


def run(
    model: Path, datasets: list[str], folder: Path, precision: str, systems: Sequence[str], stop: str | None = None
) -> Path:
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "model": str(model),
            "datasets": datasets[:-1],
            "guards": datasets[-1:],
            "precision": precision,
            "max_length": 24,
            "folds": 2,
            "depth": 100,
            "systems": {name: TRAINING[name] for name in systems},
        }
    )
    return run_recipe(recipe, folder, Silent(), stop=stop).folder


@pytest.mark.slow
def test_every_method_runs_and_publishes(gpu: Any, tiny_folder: Path, datasets: list[str], tmp_path: Path) -> None:
    folder = run(tiny_folder, datasets, tmp_path / "run", "fp32", ("v1", "v2", "best"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["environment"]["device"] == "Stand-in"
    assert set(record["training"]) == {"v1", "v2", "best"}
    assert (record["selection"]["shipped"]["weight"], record["selection"]["shipped"]["document_weight"]) == (1.0, 0.5)
    assert {row["system"] for row in table(folder)} >= {"baseline", "v1", "v2", "best", "hybrid"}
    assert (folder / "model" / "modules.json").is_file()


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison_table.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_best_runs_in_half_precision(
    gpu: Any, tiny_folder: Path, datasets: list[str], tmp_path: Path, precision: str
) -> None:
    crossed = 1  # folds are trained and scored as the shipped model is
    one_view = [name for place, name in enumerate(datasets) if place != crossed]
    folder = run(tiny_folder, one_view, tmp_path / "run", precision, ("best",), stop=SCORE.name)
    chosen = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("stages/select/*/choice.json")]
    assert chosen
    assert all(one["weight"] == 1.0 and one["document_weight"] == 0.5 for one in chosen)
