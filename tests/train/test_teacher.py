"""The teacher's corrections, each by hand on a corpus of six documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.train.teacher import Mix, Passages, Teacher, choose_mix, passages_of

TEXTS = ("red apple", "green apple", "blue sky", "grey sky", "old stone", "new stone")
CODE = 'def parse_header(line):\n    """Split a header line. Long story."""\n    return line.split(":")'


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def teacher() -> Teacher:
    corpus = Corpus(tuple(f"d{row}" for row in range(6)), ("",) * 6, TEXTS)
    dataset = Dataset("fruit", corpus, Queries(("q0", "q1"), ("apple red", "sky")), {})
    drawn = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    train = Qrels.of([(0, 0, 1), (1, 2, 1)])
    nothing = np.empty((0, 5), dtype=np.float32)
    return Teacher(dataset, LexicalIndex.of(dataset), Mix(), unit(drawn[:6]), (), nothing, train, unit(drawn[6:]))


def test_without_corrections_it_is_the_base_model(teacher: Teacher) -> None:
    scores = teacher.scores(["apple red", "sky"], teacher.train_vectors)
    np.testing.assert_allclose(scores, teacher.train_vectors @ teacher.documents.T, atol=1e-6)


def test_words_add_bm25_scaled_to_its_best_document(teacher: Teacher) -> None:
    vectors = teacher.train_vectors[:1]
    words = teacher.index.scores_of_texts(["apple red"])[0]
    scores = replace(teacher, mix=Mix(bm25=2.5)).scores(["apple red"], vectors)[0]
    added = 2.5 * teacher.spread * words / words.max()
    np.testing.assert_allclose(scores, vectors[0] @ teacher.documents.T + added, atol=1e-6)
    # No word in common: nothing to add, and no division by nothing.
    strange = replace(teacher, mix=Mix(bm25=2.5)).scores(["zebra"], vectors)[0]
    np.testing.assert_allclose(strange, vectors[0] @ teacher.documents.T, atol=1e-6)


def test_the_spread_is_the_standard_deviation_of_a_querys_similarities(teacher: Teacher) -> None:
    pseudo = unit(np.random.default_rng(3).standard_normal((4, 5)).astype(np.float32))
    asked = replace(teacher, pseudo_vectors=pseudo)
    similar = np.concatenate([pseudo, teacher.train_vectors]) @ teacher.documents.T
    assert asked.spread == pytest.approx(similar.std(axis=1).mean(), rel=1e-5)
    assert asked.scale == pytest.approx(2.0 / asked.spread)
    # No query, or documents that are all the same: no temperature is found, and none is infinite.
    assert 0 < replace(asked, documents=np.ones((6, 5), dtype=np.float32)).scale < 1e5


def test_a_model_of_another_range_of_cosines_is_taught_the_same(teacher: Teacher) -> None:
    # Similarities shrunk to a tenth around 0.8, as E5's are: the same distribution comes out.
    mix = Mix(bm25=1.5, hubness=0.2)
    wide = replace(teacher, mix=mix)
    narrow_documents, narrow_queries = (
        np.concatenate([np.sqrt(0.1) * vectors, np.full((len(vectors), 1), np.sqrt(0.8))], axis=1).astype(np.float32)
        for vectors in (teacher.documents, teacher.train_vectors)
    )
    narrow = replace(
        wide, documents=narrow_documents, train_vectors=narrow_queries, pseudo_vectors=np.empty((0, 6), np.float32)
    )
    texts = ["apple red", "sky"]
    logits = [one.scale * one.scores(texts, one.train_vectors) for one in (wide, narrow)]
    centred = [one - one.mean(axis=1, keepdims=True) for one in logits]
    np.testing.assert_allclose(centred[0], centred[1], atol=1e-3)


def test_feedback_moves_the_query_towards_the_first_three_documents(teacher: Teacher) -> None:
    vector = teacher.train_vectors[0]
    cosine = teacher.documents @ vector
    first = np.argsort(-cosine)[:3]
    weights = np.exp((cosine[first] - cosine.max()) / teacher.spread)
    moved = vector + 0.5 * (weights / weights.sum()) @ teacher.documents[first]
    expected = teacher.documents @ (moved / np.linalg.norm(moved))
    fed = replace(teacher, mix=Mix(feedback=0.5))
    np.testing.assert_allclose(fed.scores(["?"], vector[None])[0], expected, atol=1e-6)
    # A text gets no feedback from the document that it is from.
    own = np.array([first[0]])
    without = fed.scores(["?"], vector[None], own)[0]
    assert without[first[0]] < expected[first[0]]


def test_hubness_takes_off_the_mean_similarity_to_the_neighbours(teacher: Teacher) -> None:
    similar = teacher.documents @ teacher.documents.T
    means = np.array([np.delete(similar[row], row).mean() for row in range(6)])  # 6 documents: all 5 others
    np.testing.assert_allclose(teacher.hubness, means, atol=1e-6)
    vectors = teacher.train_vectors
    scores = replace(teacher, mix=Mix(hubness=0.2)).scores(["a", "b"], vectors)
    np.testing.assert_allclose(scores, vectors @ teacher.documents.T - 0.2 * means, atol=1e-6)


def test_passages_add_the_best_of_a_documents_passages(teacher: Teacher) -> None:
    vectors = unit(np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32))
    some = replace(teacher, mix=Mix(passages=0.5), passages=Passages(vectors, np.array([0, 0, 2, 5])))
    query = teacher.train_vectors[:1]
    similar = (query @ vectors.T)[0]
    least = similar.min()
    best = np.array([similar[:2].max(), least, similar[2], least, least, similar[3]])
    np.testing.assert_allclose(some.scores(["?"], query)[0], query[0] @ teacher.documents.T + 0.5 * best, atol=1e-6)


def test_the_mix_is_what_ranks_the_training_queries_best(teacher: Teacher) -> None:
    # Vectors that say nothing about the queries, words that say all: BM25 must be taken, and passages not read.
    away = replace(teacher, train_vectors=-teacher.documents[[0, 2]])
    chosen = choose_mix(away, lambda: pytest.fail("passages were read"))
    assert chosen.mix.bm25 > 0
    # Vectors that already answer both queries: nothing can help, so nothing is taken.
    right = replace(teacher, train_vectors=teacher.documents[[0, 2]])
    asked = Passages(teacher.documents, np.arange(6))
    assert choose_mix(right, lambda: asked).mix == Mix()
    assert choose_mix(right, lambda: asked).passages is None


def test_the_identity_is_of_all_that_is_taught(teacher: Teacher) -> None:
    assert teacher.fingerprint == replace(teacher).fingerprint
    assert teacher.fingerprint != replace(teacher, mix=Mix(hubness=0.1)).fingerprint
    assert teacher.fingerprint != replace(teacher, train=Qrels.of([(0, 1, 1)])).fingerprint


def test_passages_are_pairs_of_sentences_or_what_code_says_and_does() -> None:
    prose = "The first of all sentences. The second is here too. And a third one comes last."
    texts, rows = passages_of(Corpus(("a", "b", "c"), ("", "", "Only a title"), (prose, CODE, "")))
    assert texts == [
        "The first of all sentences. The second is here too.",
        "And a third one comes last.",
        "parse header split a header line",
        'def parse_header(line):\n    \n    return line.split(":")',
        "Only a title",
    ]
    assert rows.tolist() == [0, 0, 1, 1, 2]
