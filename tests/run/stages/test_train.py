"""What a teacher sees of a large corpus, and what trainings leave."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ranksaga.config.presets import PRESETS
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.encode.weight_files import save_weights
from ranksaga.files import write_checked_json
from ranksaga.run import sources
from ranksaga.run.stages import train
from ranksaga.run.store import FORMAT, Entry


def test_of_a_large_corpus_a_part_is_drawn_besides_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 200
    ids = tuple(f"d{row}" for row in range(count))
    corpus = Corpus(ids, ("",) * count, tuple(f"text {row}" for row in range(count)))
    train = Qrels.of([(0, 150, 1), (1, 3, 2), (1, 199, 1)])
    dataset = Dataset("large", corpus, Queries(("q0", "q1"), ("a", "b")), {"train": train})

    whole, rows = sources.bank_of(dataset, train, np.random.default_rng(0))
    assert rows.tolist() == list(range(count))
    assert whole.corpus == corpus

    monkeypatch.setattr(sources, "BANK", 20)
    part, rows = sources.bank_of(dataset, train, np.random.default_rng(0))
    assert 20 <= len(part.corpus) == len(rows) <= 23
    assert [part.corpus.ids[row] for row in part.qrels["train"].documents] == ["d150", "d3", "d199"]
    assert part.qrels["train"].scores.tolist() == [1, 2, 1]
    assert list(part.corpus.ids) == [f"d{row}" for row in rows]
    assert sources.bank_of(dataset, train, np.random.default_rng(0))[1].tolist() == rows.tolist()


def training_stage(folder: Path, query: float, document: float) -> Entry:
    """A training stage of two epochs whose weights are these, doubled in the second."""
    for epoch in (1, 2):
        values = {"0.sub_modules.query.0.w": query * epoch, "0.sub_modules.document.0.w": document * epoch}
        save_weights(folder / f"epoch-{epoch}", {name: torch.tensor([value]) for name, value in values.items()})
    summary = train.TrainingSummary(("epoch-1", "epoch-2"), 2, 2, 1.0, capped=False, teachers={})
    write_checked_json(folder / "done.json", {"format": FORMAT, "seconds": 1.0, "summary": asdict(summary)})
    return Entry("train", folder.name, folder)


def test_seeds_are_averaged_and_documents_are_those_of_their_own_last_epoch(tmp_path: Path) -> None:
    queries = (training_stage(tmp_path / "a", 1.0, 0.0), training_stage(tmp_path / "b", 3.0, 0.0))
    trained = train.Trained(queries, None)
    assert trained.epochs == 2
    assert trained.weights(2)["0.sub_modules.query.0.w"].item() == 4.0
    assert trained.weights(2)["0.sub_modules.document.0.w"].item() == 0.0
    trained = replace(trained, documents=training_stage(tmp_path / "c", 9.0, 5.0))
    weights = trained.weights(1)
    assert weights["0.sub_modules.query.0.w"].item() == 2.0
    assert weights["0.sub_modules.document.0.w"].item() == 10.0
    assert list(trained.entries("shipped")) == ["shipped", "shipped seed 2", "shipped documents"]


def test_seeds_of_repeats_differ_and_the_first_is_that_of_the_run() -> None:
    job = train.TrainingJob("best", PRESETS["best"], "shipped", {}, {})
    assert job.seed(7) == 7
    found = [replace(job, repeat=repeat).seed(first) for repeat in range(4) for first in (7, 8)]
    assert len(set(found)) == len(found)
