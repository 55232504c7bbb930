"""Distillation batches: whose documents, which targets, by hand on a corpus of six documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import StageError
from ranksaga.recipe import Distillation, Training
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.train.distill import DistillationBatches, Teacher
from ranksaga.train.pseudo import PseudoQuery

TEXTS = ("red apple", "green apple", "blue sky", "grey sky", "old stone", "new stone")
SETTINGS = Training(
    max_length=16, distillation=Distillation(pseudo_queries=64, queries=2, labelled=2, documents=4, label_share=0.5)
)


def teacher(share: float) -> Teacher:
    corpus = Corpus(tuple(f"d{row}" for row in range(6)), ("",) * 6, TEXTS)
    dataset = Dataset("fruit", corpus, Queries(("q0", "q1"), ("apple red", "sky")), {})
    rng = np.random.default_rng(0)

    def unit(count: int) -> NDArray[np.float32]:
        drawn: NDArray[np.float64] = rng.standard_normal((count, 8))
        length: NDArray[np.float64] = np.sqrt(np.sum(drawn * drawn, axis=1, keepdims=True))
        return np.asarray(drawn / length, dtype=np.float32)

    pseudo = tuple(PseudoQuery(text, row, "rest") for row, text in enumerate(TEXTS))
    train = Qrels.of([(0, 0, 1), (1, 2, 1), (1, 3, 2)])
    return Teacher(dataset, LexicalIndex.of(dataset), share, unit(6), pseudo, unit(6), train, unit(2))


def test_the_teacher_is_the_cosine_plus_bm25s_share() -> None:
    one = teacher(0.3)
    vector = one.pseudo_vectors[:1]
    scores = one.scores(["red apple"], vector)[0]
    words = one.index.scores_of_texts(["red apple"])[0]
    np.testing.assert_allclose(scores, vector[0] @ one.documents.T + 0.3 * words / words.max(), rtol=1e-5)
    np.testing.assert_allclose(teacher(0.0).scores(["red apple"], vector)[0], vector[0] @ one.documents.T, rtol=1e-5)


def test_targets_are_distributions_and_never_the_pseudo_querys_own_document() -> None:
    batches = DistillationBatches([teacher(0.3)], SETTINGS, seed=0)
    for position in range(batches.per_epoch):
        batch = batches.get(0, position)
        bank = batch.bank
        assert bank is not None
        assert batch.target.shape == (4, len(batch.documents)) == batch.ignore.shape
        np.testing.assert_allclose(batch.target.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(bank.target.sum(axis=1), 1, atol=1e-5)
        assert not batch.target[batch.ignore].any()
        assert [TEXTS[row] for row in bank.live] == list(batch.documents)
        for row, text in enumerate(batch.queries[:2]):
            assert np.nonzero(bank.ignore[row])[0].tolist() == [TEXTS.index(text)]
        assert not bank.ignore[2:].any()


def test_labels_take_their_share_of_a_training_querys_target() -> None:
    one = teacher(0.3)
    batch = DistillationBatches([one], SETTINGS, seed=0).get(0, 0)
    assert batch.bank is not None
    row = batch.queries.index("sky")
    logits = SETTINGS.scale * one.scores(["sky"], one.train_vectors[1:2])[0]
    soft = np.exp(logits - logits.max())
    soft /= soft.sum()
    hard = np.array([0, 0, 0.5, 0.5, 0, 0])
    np.testing.assert_allclose(batch.bank.target[row], 0.5 * soft + 0.5 * hard, atol=1e-5)


def test_where_bm25_has_nothing_to_teach_queries_ask_for_the_bare_document() -> None:
    batch = DistillationBatches([teacher(0.0)], SETTINGS, seed=0).get(0, 0)
    assert batch.bank is not None
    kept = len(batch.bank.live)
    assert batch.documents[kept:] == ("rest", "rest")
    np.testing.assert_array_equal(batch.target[:2, kept:], np.eye(2))
    assert batch.ignore[:2, :kept].all()
    assert not batch.ignore[:2, kept:].any()
    assert batch.ignore[2:, kept:].all()
    np.testing.assert_allclose(batch.target.sum(axis=1), 1, atol=1e-5)


def test_batches_are_a_function_of_seed_and_place() -> None:
    one, same, other = (DistillationBatches([teacher(0.3)], SETTINGS, seed) for seed in (1, 1, 2))
    assert one.get(1, 2).queries == same.get(1, 2).queries
    assert [one.get(0, place).queries for place in range(3)] != [other.get(0, place).queries for place in range(3)]


def test_nothing_to_distil_is_an_error() -> None:
    empty = replace(teacher(0.3), pseudo=(), pseudo_vectors=np.empty((0, 8), dtype=np.float32))
    with pytest.raises(StageError, match="nothing to distil"):
        DistillationBatches([empty], SETTINGS, seed=0)
