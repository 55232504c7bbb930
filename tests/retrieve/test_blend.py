"""Dense and BM25 in one ranking, with feedback and hubness, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.retrieve.blend import Blend, DenseSide, choose_blend, hubness, towards
from ranksaga.retrieve.hybrid import fuse
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.search import search

TIES = np.arange(12, dtype=np.int32)
ROWS = np.arange(4, dtype=np.int32)


def unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def side() -> DenseSide:
    rng = np.random.default_rng(0)
    documents, queries = unit(rng.standard_normal((12, 6))), unit(rng.standard_normal((4, 6)))
    rankings = search(queries, [(0, documents)], query_rows=ROWS, ties=TIES, depth=12)
    return DenseSide(rankings, queries, documents, hubness(documents), TIES)


@pytest.fixture
def lexical() -> Rankings:
    return Rankings(ROWS, np.array([[5, 1, 2]] * 4, dtype=np.int32), np.array([[9.0, 4.0, 1.0]] * 4, dtype=np.float32))


def test_nothing_asked_is_dense_alone_and_a_share_is_the_plain_mix(side: DenseSide, lexical: Rankings) -> None:
    assert side.blend(lexical, Blend()) is side.rankings
    plain = fuse(side.rankings, lexical, 0.4, TIES)
    np.testing.assert_array_equal(side.blend(lexical, Blend(0.4)).documents, plain.documents)


def test_hubness_is_the_mean_similarity_to_the_nearest() -> None:
    documents = unit(np.random.default_rng(1).standard_normal((40, 5)))
    similar = documents @ documents.T
    expected = [np.sort(np.delete(similar[row], row))[-30:].mean() for row in range(40)]
    np.testing.assert_allclose(hubness(documents), expected, atol=1e-6)
    assert hubness(documents[:1]).tolist() == [0.0]
    assert hubness(documents[:0]).shape == (0,)


def test_a_share_of_the_hubness_is_taken_off_the_dense_scores(side: DenseSide, lexical: Rankings) -> None:
    found = side.blend(lexical, Blend(hubness=0.3))
    expected = side.queries @ side.documents.T - 0.3 * side.hubness
    np.testing.assert_array_equal(found.documents, np.argsort(-expected, axis=1))
    np.testing.assert_allclose(found.scores, -np.sort(-expected, axis=1), atol=1e-5)


def test_feedback_searches_again_from_nearer_to_the_first_documents(side: DenseSide, lexical: Rankings) -> None:
    found = side.blend(lexical, Blend(feedback=0.5))
    first, scores = side.rankings.documents[:, :3], side.rankings.scores[:, :3]
    spread = side.rankings.scores[:, :1] - side.rankings.scores[:, -1:]
    weights = np.exp(10 * (scores - scores[:, :1]) / spread)
    weights /= weights.sum(axis=1, keepdims=True)
    moved = side.queries + 0.5 * (side.documents[first] * weights[:, :, None]).sum(axis=1)
    expected = unit(moved.astype(np.float64)) @ side.documents.T
    np.testing.assert_array_equal(found.documents, np.argsort(-expected, axis=1))
    # What is not to be found is not found the second time either.
    own = np.array([3, -1, -1, -1], dtype=np.int32)
    without = DenseSide(side.rankings, side.queries, side.documents, side.hubness, TIES, own)
    again = without.blend(lexical, Blend(feedback=0.5))
    assert 3 not in again.documents[0]
    assert 3 in again.documents[1]


def test_lengths_of_vectors_do_not_count(side: DenseSide) -> None:
    first, logits = side.rankings.documents[:, :3], side.rankings.scores[:, :3]
    lengths = np.linspace(0.5, 7, 12, dtype=np.float32)[:, None]
    long = towards(3 * side.queries, lengths * side.documents, first, logits, 0.5)
    np.testing.assert_allclose(long, 3 * towards(side.queries, side.documents, first, logits, 0.5), atol=1e-5)


def test_a_query_without_documents_stays_where_it_is(side: DenseSide) -> None:
    nowhere = np.full((4, 3), -1)
    moved = towards(side.queries, side.documents, nowhere, np.full((4, 3), -np.inf, dtype=np.float32), 0.5)
    np.testing.assert_allclose(moved, side.queries, atol=1e-6)


def test_the_blend_that_scores_best_is_chosen_and_the_plainest_among_equals(side: DenseSide, lexical: Rankings) -> None:
    assert choose_blend(side, lexical, lambda _: 0.5) == Blend()

    def fifth_first(rankings: Rankings) -> float:
        return float((rankings.documents[:, 0] == 5).mean())

    chosen = choose_blend(side, lexical, fifth_first)
    assert chosen.share > 0
    assert fifth_first(side.blend(lexical, chosen)) == 1.0
    # Corrections that gain less than 1% are not worth a second search.
    assert choose_blend(side, lexical, lambda r: 1.0 + 0.005 * float(r is not side.rankings)).feedback == 0
