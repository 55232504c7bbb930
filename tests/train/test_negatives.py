from __future__ import annotations

import numpy as np
import pytest

from ranksaga.data.dataset import Qrels
from ranksaga.errors import DataError
from ranksaga.train.negatives import mine_negatives, with_given_negatives
from ranksaga.train.pairs import TrainingPairs


def random_pairs() -> tuple[TrainingPairs, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    documents = rng.normal(size=(300, 16)).astype(np.float32)
    documents[7] = documents[3]
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    rows = np.unique(rng.integers(0, (40, 300), size=(90, 2)).astype(np.int32), axis=0)
    queries = np.zeros((40, 16), dtype=np.float32)
    for query, document in rows:
        queries[query] += documents[document] + 0.3 * rng.normal(size=16)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True).clip(1e-6)
    texts = tuple("same" if row in (3, 7) else f"d{row}" for row in range(300))
    return TrainingPairs("r", tuple(f"q{row}" for row in range(40)), texts, rows, rows), queries, documents


def test_equals_a_full_sort() -> None:
    pairs, queries, documents = random_pairs()
    mined = mine_negatives(pairs, queries, documents, margin=0.9, pool=5, depth=300).negatives
    assert mined is not None
    scores = queries @ documents.T
    means = scores.mean(axis=1)
    for (query, document), found in zip(pairs.pairs, mined, strict=True):
        positive = scores[query, document]
        allowed = [
            row
            for row in np.argsort(-scores[query]).tolist()
            if scores[query, row] <= positive - 0.1 * abs(positive - means[query])
            and row not in pairs.known[int(query)]
            and row != 7  # a copy of 3
        ]
        assert found.tolist() == allowed[:5]


def test_a_positive_below_everything_has_no_negatives() -> None:
    rows = np.array([[0, 0]], dtype=np.int32)
    pairs = TrainingPairs("low", ("q",), ("a", "b", "c"), rows, rows)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    documents = np.array([[0.5, 0.0], [0.9, 0.0], [0.49, 0.0]], dtype=np.float32)
    assert mine_negatives(pairs, query, documents, margin=0.9, pool=2).negatives.tolist() == [[-1, -1]]  # type: ignore[union-attr]
    # 0.49 passes where the margin is 1, 0.9 never.
    assert mine_negatives(pairs, query, documents, margin=1.0, pool=2).negatives.tolist() == [[2, -1]]  # type: ignore[union-attr]


def test_the_margin_does_not_depend_on_where_a_models_cosines_lie() -> None:
    pairs, queries, documents = random_pairs()
    # A tenth of each similarity, and 0.8: as E5's cosines lie.
    narrow = [
        np.concatenate([np.sqrt(0.1) * vectors, np.full((len(vectors), 1), np.sqrt(0.8))], axis=1).astype(np.float32)
        for vectors in (queries, documents)
    ]
    wide = mine_negatives(pairs, queries, documents, margin=0.9, pool=5, depth=300).negatives
    assert wide is not None
    np.testing.assert_array_equal(mine_negatives(pairs, *narrow, margin=0.9, pool=5, depth=300).negatives, wide)
    assert (wide >= 0).mean() > 0.9


def test_vectors_must_fit_the_texts() -> None:
    pairs, queries, documents = random_pairs()
    with pytest.raises(DataError, match="r: 299 document vectors for 300 texts"):
        mine_negatives(pairs, queries, documents[:-1], margin=0.9)


def test_given_negatives_come_before_mined_ones() -> None:
    rows = np.array([[0, 0], [0, 5], [1, 1], [2, 2]], dtype=np.int32)
    documents = ("a", "b", "c", "d", "e", "f", "d", " ")  # rows 3 and 6 are one text, 7 has none
    mined = np.array([[4, 3, -1], [4, -1, -1], [4, 0, 2], [-1, -1, -1]], dtype=np.int32)
    pairs = TrainingPairs("x", ("q", "r", "s", "t"), documents, rows, rows).with_negatives(mined)
    judged = Qrels.of([(0, 0, 1), (0, 5, 2), (0, 6, 0), (1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 7, 0), (3, 0, 0)])
    # Query 0 is given document 6, which is 3, and takes a mined one beside it; 2 is given a blank one.
    pool = with_given_negatives(pairs, judged, 2).negatives
    assert pool is not None
    assert pool.tolist() == [[3, 4, -1], [3, 4, -1], [4, 0, 2], [-1, -1, -1]]
    assert with_given_negatives(pairs, judged, 1).negatives.tolist()[0] == [3, -1, -1]  # type: ignore[union-attr]
    contradicting = Qrels.of([(0, 5, 0), (1, 1, 0)])
    assert with_given_negatives(pairs, contradicting, 2) is pairs, "what is relevant to the query is no negative"
    alone = TrainingPairs("x", ("q",), ("a", "b", "c"), rows[:1], rows[:1])
    assert with_given_negatives(alone, Qrels.of([(0, 1, 0), (0, 2, 0)]), 1).negatives.tolist() == [[1, 2]]  # type: ignore[union-attr]
