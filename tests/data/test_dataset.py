"""Operations on a dataset, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries

CORPUS = Corpus(("d0", "d1", "d2", "d3"), ("t0", "", "t2", "t3"), ("x0", "x1", "x2", "x3"))
TRAIN = Qrels.of([(0, 1, 1), (1, 3, 2), (1, 1, 0)])
DATASET = Dataset("name", CORPUS, Queries(("q0", "q1"), ("a", "b")), {"train": TRAIN, "test": Qrels.of([(0, 0, 1)])})


def test_a_cut_keeps_the_documents_and_renumbers_the_judgments() -> None:
    cut = DATASET.cut("dev", TRAIN, np.array([1, 2, 3]))
    assert cut.corpus == Corpus(("d1", "d2", "d3"), ("", "t2", "t3"), ("x1", "x2", "x3"))
    assert (cut.name, cut.queries, list(cut.qrels)) == ("name", DATASET.queries, ["dev"])
    dev = cut.qrels["dev"]
    # Query, document and grade: d1 is row 0 of the cut, d3 row 2.
    assert list(zip(dev.queries.tolist(), dev.documents.tolist(), dev.scores.tolist(), strict=True)) == [
        (0, 0, 1),
        (1, 0, 0),
        (1, 2, 2),
    ]
    assert dev.documents.dtype == np.int32


def test_a_cut_of_everything_is_the_dataset_with_one_split() -> None:
    cut = DATASET.cut("train", TRAIN, np.arange(4))
    assert cut.fingerprint == Dataset("other name", CORPUS, DATASET.queries, {"train": TRAIN}).fingerprint


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 3], [3], []])
def test_a_cut_that_loses_a_judged_document_is_refused(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="judged in train is not among"):
        DATASET.cut("train", TRAIN, np.array(rows, dtype=np.int64))
    assert len(DATASET.cut("train", Qrels.of([]), np.array(rows, dtype=np.int64)).corpus) == len(rows)
