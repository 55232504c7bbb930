from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ranksaga.data.dataset import Corpus, Dataset, Queries
from ranksaga.data.self_hits import self_hits
from ranksaga.errors import DataError, ModelError
from ranksaga.retrieve import search as module
from ranksaga.retrieve.best_documents import score_keys
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.retrieve.search import search
from ranksaga.retrieve.sort_keys import encode_keys


def blocks(documents: NDArray[np.float32], size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for first in range(0, len(documents), size):
        yield first, documents[first : first + size]


def ids(count: int) -> tuple[str, ...]:
    return tuple(f"d{row}" for row in range(count))


def run(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    *,
    size: int = 1000,
    depth: int = 10,
    exclude: NDArray[np.int32] | None = None,
) -> Rankings:
    rows = np.arange(len(queries), dtype=np.int32)
    ties = tie_order(ids(len(documents)))
    return search(
        queries, blocks(documents, size), query_rows=rows, ties=ties, depth=depth, exclude=exclude, device="cpu"
    )


def slow(
    queries: NDArray[np.float32], documents: NDArray[np.float32], depth: int, exclude: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Sort everything, by score and then by id falling."""
    scores = queries @ documents.T
    expected = np.full((len(queries), min(depth, len(documents))), -1, dtype=np.int32)
    names = ids(len(documents))
    for row, line in enumerate(scores):
        order = sorted(range(len(documents)), key=lambda document: names[document], reverse=True)
        order.sort(key=lambda document: -line[document])
        if exclude is not None:
            order = [document for document in order if document != exclude[row]]
        best = order[: expected.shape[1]]
        expected[row, : len(best)] = best
    return expected


def test_ranks_by_score_and_ties_by_falling_id() -> None:
    queries = np.array([[1, 0], [0, -1]], dtype=np.float32)
    documents = np.array([[1, 0], [2, 1], [1, 5], [0, -1]], dtype=np.float32)
    found = run(queries, documents, depth=3)
    assert found.documents.tolist() == [[1, 2, 0], [3, 0, 1]]
    assert found.scores.tolist() == [[2, 1, 1], [1, 0, -1]]
    assert found.queries.tolist() == [0, 1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 150),
    depth=st.integers(1, 40),
    size=st.integers(1, 160),
    tile=st.sampled_from([64, 128]),
    chunk=st.sampled_from([64, 256]),
)
def test_equals_a_full_sort_with_many_ties_for_any_cut(
    seed: int, count: int, depth: int, size: int, tile: int, chunk: int
) -> None:
    # Small whole numbers: products are exact and most scores are tied, at the cut-off too.
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (70, 3)).astype(np.float32)
    documents = rng.integers(-2, 3, (count, 3)).astype(np.float32)
    exclude = rng.integers(-1, count, 70).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TILE", tile)
        patch.setattr(module, "_QUERIES_AT_ONCE", {"cpu": chunk})
        found = run(queries, documents, size=size, depth=depth, exclude=exclude)
    assert np.array_equal(found.documents, slow(queries, documents, depth, exclude))
    present = found.documents >= 0
    exact = np.take_along_axis(queries @ documents.T, np.maximum(found.documents, 0), axis=1)
    assert np.array_equal(found.scores[present], exact[present])
    assert np.all(found.scores[~present] == -np.inf)


@pytest.mark.parametrize("size", [1, 63, 1000, 4999])
def test_real_scores_are_equal_to_the_last_bit_for_any_block_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE", 1024)
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((77, 48)).astype(np.float32)
    documents = rng.standard_normal((2500, 48)).astype(np.float32)
    whole, cut = (run(queries, documents, size=each, depth=100) for each in (2500, size))
    assert np.array_equal(whole.documents, cut.documents)
    assert np.array_equal(whole.scores, cut.scores)
    # And they are float32 products, not an approximation.
    exact = np.take_along_axis(
        queries.astype(np.float64) @ documents.T.astype(np.float64), whole.documents.astype(np.int64), axis=1
    )
    assert np.abs(whole.scores - exact).max() < 2e-5


def test_equal_documents_have_equal_scores_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE", 128)
    rng = np.random.default_rng(4)
    # One query, three tiles and one document: shapes that a matrix product rounds in ways of their own.
    documents = np.repeat(rng.standard_normal((1, 384)), 385, axis=0).astype(np.float32)
    found = run(rng.standard_normal((1, 384)).astype(np.float32), documents, depth=385)
    assert np.all(found.scores == found.scores[:, :1])
    names = ids(385)
    assert [names[row] for row in found.documents[0]] == sorted(names, reverse=True)


def test_keys_on_the_device_are_those_of_numpy() -> None:
    torch = pytest.importorskip("torch")
    scores = np.array([-3e38, -1.5, -1e-40, -0.0, 0.0, 1e-40, 0.25, 3e38], dtype=np.float32)
    expected = encode_keys(scores, np.full(8, 2**31 - 1, dtype=np.int32))
    assert score_keys(torch.from_numpy(scores)).tolist() == expected.tolist()
    assert expected[3] == expected[4]
    assert np.all(np.diff(expected)[[0, 1, 2, 4, 5, 6]] > 0)


def test_a_self_hit_is_removed_without_losing_depth() -> None:
    documents = np.array([[3.0], [2.0], [1.0]], dtype=np.float32)
    queries = np.ones((2, 1), dtype=np.float32)
    exclude = np.array([0, -1], dtype=np.int32)
    assert run(queries, documents, depth=2, exclude=exclude).documents.tolist() == [[1, 2], [0, 1]]
    full = run(queries, documents, depth=3, exclude=exclude)
    assert full.documents.tolist() == [[1, 2, -1], [0, 1, 2]]
    assert full.scores[0, 2] == -np.inf


def test_self_hits_are_documents_with_the_id_of_the_query() -> None:
    corpus = Corpus(("a", "b"), ("", ""), ("x", "y"))
    assert self_hits(Dataset("t", corpus, Queries(("b", "q"), ("x", "y")), {})).tolist() == [1, -1]


def test_no_queries_give_empty_rankings() -> None:
    found = run(np.empty((0, 2), dtype=np.float32), np.ones((5, 2), dtype=np.float32), depth=3)
    assert found.documents.shape == (0, 3)


def test_a_process_wide_low_precision_is_neither_used_nor_lost() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    queries, documents = (rng.standard_normal((n, 64)).astype(np.float32) for n in (64, 500))
    expected = run(queries, documents)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert np.array_equal(run(queries, documents).scores, expected.scores)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("rows", [4, 6, 9000])
def test_vectors_of_another_corpus_are_refused(rows: int) -> None:
    documents = np.ones((rows, 2), dtype=np.float32)
    with pytest.raises(DataError, match="corpus has 5"):
        search(
            np.ones((1, 2), dtype=np.float32),
            blocks(documents, 2),
            query_rows=np.zeros(1, dtype=np.int32),
            ties=tie_order(ids(5)),
            device="cpu",
        )


def test_a_gap_between_blocks_is_refused() -> None:
    vectors = np.ones((2, 2), dtype=np.float32)
    with pytest.raises(DataError, match="row 3"):
        search(
            vectors,
            [(0, vectors), (3, vectors)],
            query_rows=np.arange(2, dtype=np.int32),
            ties=tie_order(ids(5)),
            device="cpu",
        )


def test_nan_is_refused_with_the_row() -> None:
    documents = np.ones((10, 2), dtype=np.float32)
    documents[7, 1] = np.nan
    with pytest.raises(ModelError, match="document 7"):
        run(np.ones((1, 2), dtype=np.float32), documents, size=4)
