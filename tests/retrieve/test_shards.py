"""Shards searched apart and merged are the whole corpus searched at once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.errors import DataError
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.search import search
from ranksaga.retrieve.shards import merge_rankings, shard_ties

TILE = 32768


def unit(rng: np.random.Generator, rows: int, width: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((rows, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def sharded(
    queries: NDArray[np.float32], documents: NDArray[np.float32], ties: NDArray[np.int32], starts: list[int], depth: int
) -> Rankings:
    rows = np.arange(len(queries), dtype=np.int32)
    parts = []
    for first, stop in zip(starts, [*starts[1:], len(documents)], strict=True):
        block = documents[first:stop]
        found = search(
            queries, [(0, block)], query_rows=rows, ties=shard_ties(ties, first, len(block)), depth=depth, device="cpu"
        )
        parts.append((first, found))
    return merge_rankings(parts, ties, depth=depth)


@pytest.mark.slow
def test_shards_give_the_single_pass_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    documents, queries = unit(rng, 200_000, 384), unit(rng, 16, 384)
    documents[150_000:150_500] = documents[:500]  # equal scores across shards
    ties = rng.permutation(len(documents)).astype(np.int32)
    rows = np.arange(len(queries), dtype=np.int32)
    whole = search(queries, [(0, documents)], query_rows=rows, ties=ties, depth=1000, device="cpu")
    merged = sharded(queries, documents, ties, [0, TILE, 3 * TILE, 4 * TILE, 6 * TILE], 1000)
    assert np.array_equal(merged.documents, whole.documents)
    assert np.array_equal(merged.scores.view(np.int32), whole.scores.view(np.int32))
    twins = np.isin(whole.documents, np.arange(500)).sum()
    assert twins > 0  # else the copies would prove nothing


def test_equal_scores_stand_in_the_order_of_the_whole_corpus() -> None:
    documents = np.ones((6, 1), dtype=np.float32)
    ties = np.array([5, 1, 4, 0, 3, 2], dtype=np.int32)
    merged = sharded(np.ones((1, 1), dtype=np.float32), documents, ties, [0, 1, 4], 4)
    assert merged.documents.tolist() == [[3, 1, 5, 4]]
    assert merged.scores.tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_ranks_of_a_shard_are_counted_from_0() -> None:
    assert shard_ties(np.array([5, 1, 4, 0, 3, 2], dtype=np.int32), 1, 3).tolist() == [1, 2, 0]


def test_fewer_documents_than_asked_for_leave_empty_places() -> None:
    ties = np.arange(3, dtype=np.int32)
    query = np.zeros(1, dtype=np.int32)
    first = Rankings(query, np.array([[0, -1]], np.int32), np.array([[0.5, -np.inf]], np.float32))
    second = Rankings(query, np.array([[1, 0]], np.int32), np.array([[0.75, 0.25]], np.float32))
    merged = merge_rankings([(0, first), (1, second)], ties, depth=4)
    assert merged.documents.tolist() == [[2, 0, 1, -1]]
    assert merged.scores.tolist() == [[0.75, 0.5, 0.25, -np.inf]]


def test_shards_of_different_queries_are_refused() -> None:
    one = Rankings(np.array([0], np.int32), np.array([[0]], np.int32), np.array([[1]], np.float32))
    other = Rankings(np.array([1], np.int32), np.array([[0]], np.int32), np.array([[1]], np.float32))
    with pytest.raises(DataError, match="shard at row 1 ranks other queries"):
        merge_rankings([(0, one), (1, other)], np.arange(2, dtype=np.int32), depth=1)
    with pytest.raises(DataError, match="at least one"):
        merge_rankings([], np.arange(2, dtype=np.int32), depth=1)
