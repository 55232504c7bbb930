from __future__ import annotations

import numpy as np
import pytest

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import DataError
from ranksaga.train.pairs import TrainingPairs, labelled_pairs


def dataset() -> Dataset:
    corpus = Corpus(
        ids=("d0", "d1", "d2", "d3", "q1"),
        titles=("Cats", "", "Dogs", "Empty", ""),
        texts=("are small", "a copy", "bark", "", "a copy"),
    )
    queries = Queries(ids=("q0", "q1", "q2", "q3"), texts=("cat", "copy", "  ", "cat"))
    train = Qrels.of([(0, 0, 1), (0, 2, 0), (1, 4, 2), (1, 1, 1), (2, 2, 1), (3, 3, 1)])
    return Dataset("animals", corpus, queries, {"train": train})


def test_pairs_are_positives_with_titles_and_equal_texts_share_a_row() -> None:
    data = dataset()
    pairs = labelled_pairs(data, data.split("train"), titles=True)
    # q0-d2 has grade 0, q2 is blank, q1's two documents are copies, q3 has the text of q0.
    assert pairs.pairs.tolist() == [[0, 0], [0, 3], [1, 1]]
    assert pairs.documents[:4] == ("Cats are small", "a copy", "Dogs bark", "Empty")
    assert pairs.known == {0: {0, 3}, 1: {1}}
    assert pairs.pairs.dtype == np.int32


def test_text_only_drops_documents_without_text() -> None:
    data = dataset()
    pairs = labelled_pairs(data, data.split("train"), titles=False)
    assert pairs.pairs.tolist() == [[0, 0], [1, 1]]
    assert pairs.documents[0] == "are small"


def test_a_document_with_the_querys_id_is_no_negative() -> None:
    corpus = Corpus(("a", "b"), ("", ""), ("alpha", "beta"))
    data = Dataset("d", corpus, Queries(("a",), ("alpha?",)), {})
    assert labelled_pairs(data, Qrels.of([(0, 1, 1)]), titles=True).known == {0: {0, 1}}


def test_no_positive_pair_is_an_error_that_names_the_dataset() -> None:
    with pytest.raises(DataError, match="animals: no positive pair to train on among 1 judgments"):
        labelled_pairs(dataset(), Qrels.of([(0, 2, 0)]), titles=True)


def test_negatives_are_drawn_from_the_pool_without_repetition() -> None:
    rows = np.array([[0, 0], [1, 1]], dtype=np.int32)
    pairs = TrainingPairs("n", ("a", "b"), tuple("stuvw"), rows, rows)
    mined = pairs.with_negatives(np.array([[2, 3, 4], [3, -1, -1]]))
    seen = set()
    for seed in range(20):
        documents = mined.documents_of(np.array([0, 1]), 2, np.random.default_rng(seed))
        assert documents[0, 0] == 0
        assert len(set(documents[0, 1:].tolist()) & {2, 3, 4}) == 2
        assert documents[1].tolist() == [1, 3, -1]
        seen.add(tuple(documents[0].tolist()))
    assert len(seen) == 6
    assert pairs.documents_of(np.array([0]), 2, np.random.default_rng(0)).tolist() == [[0]]
    with pytest.raises(DataError, match="for 2 pairs"):
        pairs.with_negatives(np.zeros((3, 1), dtype=np.int32))


def test_the_fingerprint_follows_texts_pairs_and_negatives() -> None:
    rows = np.array([[0, 0], [1, 1]], dtype=np.int32)
    base = TrainingPairs("n", ("a", "b"), ("c", "d"), rows, rows)
    others = [
        TrainingPairs("n", ("a", "bc"), ("", "d"), rows, rows),
        TrainingPairs("n", ("a", "b"), ("c", "d"), rows[:1], rows),
        base.with_negatives(np.array([[1], [0]])),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert TrainingPairs("x", ("a", "b"), ("c", "d"), rows.copy(), rows).fingerprint == base.fingerprint
