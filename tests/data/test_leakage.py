"""The leakage audit: exact, lexical and embedding copies, and what is known of SciFact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ranksaga.data.beir import read_beir
from ranksaga.data.leakage import JACCARD, find_leaks, near_copies, normalised


def unit(rows: list[list[float]]) -> NDArray[np.float32]:
    array = np.array(rows, dtype=np.float64)
    unit_rows: NDArray[np.float64] = array / np.sqrt((array**2).sum(axis=1, keepdims=True))
    return unit_rows.astype(np.float32)


def test_normalised_folds_case_width_punctuation_and_space() -> None:
    assert normalised("  \uff21spirin,  CURES\nheadache? ") == "aspirin cures headache"


def test_each_pair_is_found_once_under_its_strictest_kind() -> None:
    training = ["Aspirin cures!", "a b c d e", "unrelated words here", "low methylation"]
    scored = ["aspirin cures", "a b c d f e", "high methylation"]
    left = unit([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0.2]])
    right = unit([[1, 0, 0], [0, 1, 1], [1, 1, 0]])
    found = [(leak.kind, leak.training, leak.scored) for leak in find_leaks(training, left, scored, right)]
    assert found == [("exact", 0, 0), ("lexical", 1, 1), ("embedding", 3, 2)]
    lexical = find_leaks(training, left, scored, right)[1]
    assert lexical.similarity == pytest.approx(5 / 6)


def test_near_copies_are_pairs_of_one_table() -> None:
    vectors = unit([[1, 0], [0, 1], [1, 0.1]])
    assert near_copies(["x one", "y two", "z three"], vectors) == [(0, 2)]


def test_empty_texts_do_not_divide_by_zero() -> None:
    assert find_leaks(["", "!"], unit([[1, 0], [0, 1]]), ["..."], unit([[1, 1]]))[0].kind == "exact"


def test_vectors_of_any_length_are_compared_by_their_angle() -> None:
    # Products 9 and 0.01, cosines 0.71 and 0.995: only the second pair is close.
    vectors = np.array([[3, 0], [3, 3], [0, -0.1], [0.01, -0.1]], dtype=np.float32)
    assert near_copies(["a", "b", "c", "d"], vectors) == [(2, 3)]
    assert near_copies(["a", "b"], np.zeros((2, 2), dtype=np.float32)) == []


WORDS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8).map(" ".join), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(left=WORDS, right=WORDS)
def test_words_are_compared_as_every_pair_would_be(left: list[str], right: list[str]) -> None:
    found = {
        (leak.training, leak.scored)
        for leak in find_leaks(left, np.zeros((len(left), 2), np.float32), right, np.zeros((len(right), 2), np.float32))
    }
    expected = set()
    for row, one in enumerate(left):
        for column, other in enumerate(right):
            a, b = set(one.split()), set(other.split())
            if one == other or (a | b and len(a & b) / len(a | b) >= JACCARD):
                expected.add((row, column))
    assert found == expected


@pytest.mark.shared
@pytest.mark.slow
def test_scifact_has_the_known_near_copies(shared_datasets: Path) -> None:
    from ranksaga.encode.encoder import load_encoder

    dataset = read_beir(shared_datasets / "scifact")
    train, test = dataset.qrels["train"].query_rows, dataset.qrels["test"].query_rows
    encoder = load_encoder("minilm", precision="fp32")
    texts = dataset.queries.texts
    left, right = ([texts[row] for row in rows] for rows in (train, test))
    leaks = find_leaks(left, encoder.encode_queries(left), right, encoder.encode_queries(right))
    vectors = encoder.encode_queries(left) @ encoder.encode_queries(right).T
    close = vectors.max(axis=0) > 0.9
    assert close.sum() == 117  # 116 were counted elsewhere; sentence-transformers' own encode gives 117 too
    gold = {row: set(dataset.qrels["test"].positives.documents_of(row).tolist()) for row in test.tolist()}
    same = 0
    for column in np.nonzero(close)[0]:
        near = train[np.nonzero(vectors[:, column] > 0.9)[0]]
        same += any(
            gold[int(test[column])] & set(dataset.qrels["train"].positives.documents_of(int(row)).tolist())
            for row in near
        )
    assert same == 116
    # The audit finds these and the lexical ones besides.
    assert {leak.scored for leak in leaks} >= set(np.nonzero(close)[0].tolist())
    seen = set(dataset.qrels["train"].positives.documents.tolist())
    assert sum(not documents & seen for documents in gold.values()) == 104
