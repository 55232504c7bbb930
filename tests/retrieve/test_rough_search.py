"""Two passes find what one pass in float32 finds, or say that they cannot."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ranksaga.kernels.available import compiled_kernels
from ranksaga.kernels.compiled import KINDS, Kernels
from ranksaga.retrieve import rough_search
from ranksaga.retrieve import search as module
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.retrieve.rough_search import best_keys
from ranksaga.retrieve.search import search
from ranksaga.retrieve.sort_keys import NOTHING, decode_keys

COUNT, WIDTH, DEPTH = 3001, 44, 40

pytestmark = pytest.mark.skipif(
    compiled_kernels() is None, reason="no kernels: no compiler at the installation, or no AVX-512 BF16"
)


def best_kernels() -> Kernels:
    kernels = compiled_kernels()
    assert kernels is not None
    return kernels


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several groups of queries, and rooms that are full before the corpus is read."""
    for name, value in {"MEMORY": 8 * 20 * 144, "CHUNK": 7, "ROOM": (3, 128)}.items():
        monkeypatch.setattr(rough_search, name, value)


def unit(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((count, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def one_pass(
    queries: NDArray[np.float32], documents: NDArray[np.float32], ties: NDArray[np.int32], own: NDArray[np.int64]
) -> NDArray[np.int64]:
    return module._in_one_pass(queries, [(0, documents)], ties, DEPTH, own, torch.device("cpu"))


def shapes(kind: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Queries and documents of different kinds."""
    rng = np.random.default_rng(0)
    queries, documents = unit(rng, 53), unit(rng, COUNT)
    if kind == "ties":  # every document twice and some often, so that the cut goes through equal scores
        documents = documents[np.r_[: COUNT // 2, : COUNT - COUNT // 2]]
        documents[100:130] = documents[99]
        queries[:10] = documents[99]
    elif kind == "sorted":  # what is near to the first query comes last: its room fills again and again
        documents = np.ascontiguousarray(documents[np.argsort(documents @ queries[0])])
    elif kind == "crowded":  # rounding to bf16 changes their order
        documents = documents[:1] + np.float32(0.3) * documents
    elif kind == "below zero":
        documents[:, 0], queries[:, 0] = -1.0, 1.0
    elif kind == "any length":
        documents *= rng.uniform(0.01, 30.0, (COUNT, 1)).astype(np.float32)
        queries *= 7.0
    return queries, documents


@pytest.mark.parametrize("kind", ["plain", "ties", "sorted", "crowded", "below zero", "any length"])
def test_keys_are_those_of_one_pass(kind: str) -> None:
    queries, documents = shapes(kind)
    ties = np.random.default_rng(1).permutation(COUNT).astype(np.int32)
    own = np.full(len(queries), -1, dtype=np.int64)
    own[:20] = np.arange(99, 119)
    best = best_kernels()
    for kernels in [Kernels(best._library, number) for number in KINDS if number <= best._library.kernels_kind()]:
        keys, uncertain = best_keys(queries, documents, ties, DEPTH, own, kernels)
        assert len(uncertain) < 5
        certain = np.setdiff1d(np.arange(len(queries)), uncertain)
        found_documents, scores = decode_keys(keys[certain], ties)
        documents_of_one, scores_of_one = decode_keys(one_pass(queries, documents, ties, own)[certain], ties)
        # Between two products only the last bits differ, and with them the order of what is that close.
        largest = np.abs(scores_of_one).max()
        np.testing.assert_allclose(scores, scores_of_one, atol=1e-6 * largest)
        other = found_documents != documents_of_one
        gaps = np.abs(np.diff(scores_of_one.astype(np.float64), axis=1))
        close = np.pad(gaps, ((0, 0), (1, 1)), constant_values=0.0)
        assert (np.minimum(close[:, 1:], close[:, :-1])[other] < 2e-6 * largest).all()


def test_no_rough_score_is_further_off_than_the_bound() -> None:
    queries, documents = shapes("any length")
    exact = queries.astype(np.float64) @ documents.astype(np.float64).T
    scores = torch.from_numpy(queries).bfloat16().double() @ torch.from_numpy(documents).bfloat16().double().T
    slack = rough_search._slack(queries, documents, best_kernels())
    errors = np.abs(scores.numpy() - exact).max(axis=1)
    assert (errors <= slack).all()
    assert (errors > slack / 20).all()  # and it says something


def test_candidates_ascend_and_none_that_matters_is_missing() -> None:
    queries, documents = shapes("crowded")
    kernels, own = best_kernels(), np.full(len(queries), -1)
    own[4] = 17
    slack = rough_search._slack(queries, documents, kernels)
    found = kernels.scan(documents, queries, slack, own, depth=DEPTH, room=1024)
    exact = queries.astype(np.float64) @ documents.astype(np.float64).T
    exact[4, 17] = -np.inf
    best = np.argsort(-exact, axis=1)[:, :DEPTH]
    for row, count in enumerate(found.counts):
        rows = found.documents[row, :count]
        assert DEPTH <= count < COUNT / 10
        assert (np.diff(rows) > 0).all()
        assert set(best[row]) <= set(rows.tolist())
        np.testing.assert_allclose(found.scores[row, :count], exact[row, rows], atol=1e-6)


def test_too_close_to_tell_in_bf16_is_left_to_one_pass() -> None:
    rng = np.random.default_rng(2)
    documents = unit(rng, 1)[[0] * COUNT] + rng.standard_normal((COUNT, WIDTH), dtype=np.float32) * np.float32(1e-5)
    ties, own = np.arange(COUNT, dtype=np.int32), np.full(5, -1)
    keys, uncertain = best_keys(unit(rng, 5), documents, ties, DEPTH, own, best_kernels())
    assert uncertain.tolist() == [0, 1, 2, 3, 4]
    assert (keys == NOTHING).all()


def test_a_query_that_everything_answers_alike_is_left_to_one_pass() -> None:
    queries, documents = shapes("plain")
    queries[5] = 0.0
    ties, own = np.arange(COUNT, dtype=np.int32), np.full(len(queries), -1)
    keys, uncertain = best_keys(queries, documents, ties, DEPTH, own, best_kernels())
    assert uncertain.tolist() == [5]
    assert (keys[5] == NOTHING).all()
    assert (keys[:5] != NOTHING).all()


@pytest.mark.parametrize(("of_documents", "of_queries"), [(3e38, 1.0), (1e-19, 1e-19), (1.0, 1e-25), (1e-30, 1e20)])
def test_numbers_that_sums_of_squares_do_not_hold_are_left_to_one_pass(of_documents: float, of_queries: float) -> None:
    queries, documents = shapes("plain")
    documents *= np.float32(of_documents)
    queries *= np.float32(of_queries)
    ties, own = np.arange(COUNT, dtype=np.int32), np.full(len(queries), -1)
    _, uncertain = best_keys(queries, documents, ties, DEPTH, own, best_kernels())
    assert len(uncertain) == len(queries)


def test_little_room_is_not_overrun() -> None:
    queries, documents = shapes("plain")
    # Every other query keeps about two thirds of what it has seen, so that its room stays all but full. What it has too
    # much of would lie in the room of the next one, where the best documents come first.
    slack = np.full(len(queries), 0.01, dtype=np.float32)
    slack[::2] = np.linspace(0.05, 0.15, len(slack[::2]))
    rows = np.arange(1, len(queries), 2)
    order = np.argsort(-(queries[rows] @ documents.T).max(axis=0), kind="stable")
    documents = np.ascontiguousarray(documents[order])
    found = best_kernels().scan(documents, queries, slack, np.full(len(queries), -1), depth=4, room=32)
    best = np.argsort(-(queries @ documents.T), axis=1)[:, :4]
    assert (found.counts[::2] == -1).any()
    assert (found.counts[rows] >= 4).all()
    for row in rows:
        assert set(best[row]) <= set(found.documents[row, : found.counts[row]].tolist())


def test_vectors_on_disk_are_read_without_a_warning(tmp_path: Path) -> None:
    queries, documents = shapes("plain")
    np.save(tmp_path / "documents.npy", documents)
    stored = np.load(tmp_path / "documents.npy", mmap_mode="r")
    queries.flags.writeable = False
    ties, own = np.arange(COUNT, dtype=np.int32), np.full(len(queries), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keys, _ = best_keys(queries, stored, ties, DEPTH, own, best_kernels())
    expected, _ = best_keys(queries, documents, ties, DEPTH, own, best_kernels())
    assert np.array_equal(keys, expected)


def test_search_takes_two_passes_where_they_pay_and_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = shapes("ties")
    rows = np.arange(len(queries), dtype=np.int32)
    ties = tie_order(tuple(f"d{row}" for row in range(COUNT)))
    exclude = np.full(len(queries), -1, dtype=np.int32)
    exclude[3] = 99

    def run() -> Rankings:
        blocks = [(0, documents)]
        depth = np.int64(DEPTH)
        return search(queries, blocks, query_rows=rows, ties=ties, depth=depth, exclude=exclude, device="cpu")  # type: ignore[arg-type]

    expected = run()
    monkeypatch.setattr(module, "_pays", lambda *_: True)
    taken = []

    def spy(*arguments: object) -> object:
        keys, _ = best_keys(*arguments)  # type: ignore[arg-type]
        taken.append(len(keys))
        keys[7] = 0
        return keys, np.array([7])  # as if too little could be said of it

    monkeypatch.setattr(module, "best_keys", spy)
    found = run()
    assert taken == [len(queries)]
    assert np.array_equal(found.documents, expected.documents)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
