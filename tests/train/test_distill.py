"""Distillation batches: whose documents, which targets, by hand on a corpus of six documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.config.training import Distillation, Distilled
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import StageError
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.train.distill import DistillationBatches
from ranksaga.train.pseudo_queries import PseudoQuery
from ranksaga.train.teacher import Mix, Teacher

TEXTS = ("red apple", "green apple", "blue sky", "grey sky", "old stone", "new stone")
SETTINGS = Distilled(max_length=16, distillation=Distillation(pseudo_queries=64, queries=2, labelled=2, documents=4))


def teacher(share: float) -> Teacher:
    corpus = Corpus(tuple(f"d{row}" for row in range(6)), ("",) * 6, TEXTS)
    dataset = Dataset("fruit", corpus, Queries(("q0", "q1"), ("apple red", "sky")), {})
    rng = np.random.default_rng(0)

    def unit(count: int) -> NDArray[np.float32]:
        drawn: NDArray[np.float64] = rng.standard_normal((count, 8))
        length: NDArray[np.float64] = np.sqrt(np.sum(drawn * drawn, axis=1, keepdims=True))
        return np.asarray(drawn / length, dtype=np.float32)

    pseudo = tuple(PseudoQuery(text, row) for row, text in enumerate(TEXTS))
    train = Qrels.of([(0, 0, 1), (1, 2, 1), (1, 3, 2)])
    return Teacher(dataset, LexicalIndex.of(dataset), Mix(bm25=share), unit(6), pseudo, unit(6), train, unit(2))


def test_the_teacher_is_the_cosine_plus_bm25s_share() -> None:
    one = teacher(0.3)
    vector = one.pseudo_vectors[:1]
    scores = one.scores(["red apple"], vector)[0]
    words = one.index.scores_of_texts(["red apple"])[0]
    np.testing.assert_allclose(scores, vector[0] @ one.documents.T + 0.3 * one.spread * words / words.max(), rtol=1e-5)
    np.testing.assert_allclose(teacher(0.0).scores(["red apple"], vector)[0], vector[0] @ one.documents.T, rtol=1e-5)


def test_pseudo_queries_are_taught_by_the_teacher_and_never_their_own_document() -> None:
    batches = DistillationBatches([teacher(0.3)], SETTINGS, seed=0)
    for position in range(batches.per_epoch):
        batch = batches.get(0, position)
        bank = batch.bank
        assert bank is not None
        assert batch.target.shape == (4, len(batch.documents)) == batch.ignore.shape
        np.testing.assert_allclose(batch.target[:2].sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(bank.target[:2].sum(axis=1), 1, atol=1e-5)
        assert not batch.target[batch.ignore].any()
        assert [TEXTS[row] for row in bank.live] == list(batch.documents)
        for row, text in enumerate(batch.queries[:2]):
            assert np.nonzero(bank.ignore[row])[0].tolist() == [TEXTS.index(text)]
        assert not bank.ignore[2:].any()


def test_labels_are_added_to_what_the_teacher_says_of_a_training_query() -> None:
    one = teacher(0.3)
    batch = DistillationBatches([one], SETTINGS, seed=0).get(0, 0)
    assert batch.bank is not None
    row = batch.queries.index("sky")
    logits = one.scale * one.scores(["sky"], one.train_vectors[1:2])[0]
    soft = np.exp(logits - logits.max())
    soft /= soft.sum()
    hard = np.array([0, 0, 0.5, 0.5, 0, 0])
    # The loss is a mean over 4 queries, of which 2 have labels.
    np.testing.assert_allclose(batch.bank.target[row], soft + (4 / 2) * hard, atol=1e-5)


def test_the_student_is_as_sharp_as_its_teacher() -> None:
    one = teacher(0.3)
    assert DistillationBatches([one], SETTINGS, seed=0).get(0, 0).scale == one.scale


def test_where_bm25_has_nothing_to_teach_documents_learn_from_labels_alone() -> None:
    batch = DistillationBatches([teacher(0.0)], SETTINGS, seed=0).get(0, 0)
    assert batch.bank is not None
    assert "red apple" in batch.documents  # q0's answer
    assert set(batch.documents) <= {"red apple", "blue sky", "grey sky"}
    assert not batch.target[:2].any()  # pseudo-queries hold their place by the bank only
    np.testing.assert_allclose(batch.target[2:].sum(axis=1), 4 / 2)
    np.testing.assert_allclose(batch.bank.target.sum(axis=1), 1, atol=1e-5)


def test_a_tower_of_queries_alone_reads_no_document() -> None:
    batch = DistillationBatches([teacher(0.3)], SETTINGS.model_copy(update={"towers": "query"}), seed=0).get(0, 0)
    assert batch.documents == ()
    assert batch.target.shape == batch.ignore.shape == (4, 0)
    assert batch.bank is not None
    assert batch.bank.target.shape == (4, 6)


def test_a_dataset_without_judgments_lends_its_documents() -> None:
    one = replace(teacher(0.3), train=Qrels.of([]), train_vectors=np.empty((0, 8), dtype=np.float32))
    batch = DistillationBatches([one], SETTINGS, seed=0).get(0, 0)
    assert len(batch.queries) == 2
    np.testing.assert_allclose(batch.target.sum(axis=1), 1, atol=1e-5)


def test_batches_are_a_function_of_seed_and_place() -> None:
    one, same, other = (DistillationBatches([teacher(0.3)], SETTINGS, seed) for seed in (1, 1, 2))
    assert one.get(1, 2).queries == same.get(1, 2).queries
    assert [one.get(0, place).queries for place in range(3)] != [other.get(0, place).queries for place in range(3)]


def test_nothing_to_distil_is_an_error() -> None:
    empty = replace(teacher(0.3), pseudo=(), pseudo_vectors=np.empty((0, 8), dtype=np.float32))
    with pytest.raises(StageError, match="nothing to distil"):
        DistillationBatches([empty], SETTINGS, seed=0)
