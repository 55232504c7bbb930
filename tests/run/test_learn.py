"""What a teacher sees of a large corpus."""

from __future__ import annotations

import numpy as np
import pytest

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.run import learn


def test_of_a_large_corpus_a_part_is_drawn_besides_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 200
    ids = tuple(f"d{row}" for row in range(count))
    corpus = Corpus(ids, ("",) * count, tuple(f"text {row}" for row in range(count)))
    train = Qrels.of([(0, 150, 1), (1, 3, 2), (1, 199, 1)])
    dataset = Dataset("large", corpus, Queries(("q0", "q1"), ("a", "b")), {"train": train})

    whole, rows = learn.bank_of(dataset, train, np.random.default_rng(0))
    assert rows.tolist() == list(range(count))
    assert whole.corpus == corpus

    monkeypatch.setattr(learn, "BANK", 20)
    part, rows = learn.bank_of(dataset, train, np.random.default_rng(0))
    assert 20 <= len(part.corpus) == len(rows) <= 23
    assert [part.corpus.ids[row] for row in part.qrels["train"].documents] == ["d150", "d3", "d199"]
    assert part.qrels["train"].scores.tolist() == [1, 2, 1]
    assert list(part.corpus.ids) == [f"d{row}" for row in rows]
    assert learn.bank_of(dataset, train, np.random.default_rng(0))[1].tolist() == rows.tolist()
