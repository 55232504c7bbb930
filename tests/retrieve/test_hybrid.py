from __future__ import annotations

import numpy as np
import pytest

from ranksaga.errors import DataError
from ranksaga.retrieve.hybrid import fuse
from ranksaga.retrieve.rankings import Rankings

TIES = np.arange(10, dtype=np.int32)


def rankings(*rows: dict[int, float], depth: int) -> Rankings:
    documents = np.full((len(rows), depth), -1, dtype=np.int32)
    scores = np.full((len(rows), depth), -np.inf, dtype=np.float32)
    for line, row in enumerate(rows):
        documents[line, : len(row)] = list(row)
        scores[line, : len(row)] = list(row.values())
    return Rankings(np.arange(len(rows), dtype=np.int32), documents, scores)


DENSE = rankings({0: 0.9, 1: 0.7, 2: 0.5}, {3: 0.4, 4: 0.2, 5: 0.0}, depth=3)
LEXICAL = rankings({2: 8.0, 7: 2.0}, {}, depth=3)


def test_fused_scores_by_hand() -> None:
    fused = fuse(DENSE, LEXICAL, 0.4, TIES)
    # Dense: 1, 0.5, 0. BM25 ended early, so from 0: 1, 0.25. The second query has no BM25 results.
    assert fused.documents.tolist() == [[0, 2, 1], [3, 4, 5]]
    assert fused.scores[0] == pytest.approx([0.6, 0.4, 0.3], abs=1e-6)
    assert fused.scores[1] == pytest.approx([0.6, 0.3, 0.0], abs=1e-6)


def test_a_full_bm25_list_counts_from_its_last_result() -> None:
    lexical = rankings({2: 8.0, 7: 4.0, 8: 2.0}, depth=3)
    dense = rankings({0: 0.9, 1: 0.7, 2: 0.5}, depth=3)
    fused = fuse(dense, lexical, 0.5, TIES)
    # 0: 0.5; 2: 0.5 (tie rank decides); 1: 0.25; 7: 1/6.
    assert fused.documents.tolist() == [[0, 2, 1]]
    assert fused.scores[0] == pytest.approx([0.5, 0.5, 0.25], abs=1e-6)


def test_the_union_fills_the_larger_depth() -> None:
    fused = fuse(rankings({0: 0.9}, depth=1), rankings({2: 8.0, 7: 2.0}, depth=3), 0.5, TIES)
    assert fused.documents.tolist() == [[2, 7, 0]]


def test_the_ends_are_the_systems_themselves() -> None:
    assert fuse(DENSE, LEXICAL, 0, TIES) is DENSE
    assert fuse(DENSE, LEXICAL, 1, TIES) is LEXICAL


def test_against_a_plain_second_implementation() -> None:
    rng = np.random.default_rng(0)
    sides = []
    for _ in range(2):
        documents = np.array([rng.choice(50, 12, replace=False) for _ in range(30)], dtype=np.int32)
        scores = -np.sort(-rng.random((30, 12)).astype(np.float32), axis=1)
        sides.append(Rankings(np.arange(30, dtype=np.int32), documents, scores))
    ties = rng.permutation(50).astype(np.int32)
    fused = fuse(sides[0], sides[1], 0.3, ties)
    for row in range(30):
        totals: dict[int, float] = {}
        for side, share in zip(sides, (0.7, 0.3), strict=True):
            low, high = float(side.scores[row, -1]), float(side.scores[row, 0])
            for document, score in zip(side.documents[row].tolist(), side.scores[row].tolist(), strict=True):
                totals[document] = totals.get(document, 0) + share * (score - low) / (high - low)
        expected = sorted(totals, key=lambda document: (-np.float32(totals[document]), ties[document]))[:12]
        assert fused.documents[row].tolist() == expected


def test_other_queries_and_weights_are_refused() -> None:
    other = Rankings(LEXICAL.queries + 1, LEXICAL.documents, LEXICAL.scores)
    with pytest.raises(DataError, match="different queries"):
        fuse(DENSE, other, 0.5, TIES)
    with pytest.raises(DataError, match=r"1\.5"):
        fuse(DENSE, LEXICAL, 1.5, TIES)
