"""Every kind of model that can learn: its training sees the vectors that are scored, and what comes out is shipped."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.config.training import Distillation, Distilled, Labelled, Lora, Training
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.encode.saving import save_model
from ranksaga.encode.towers import in_two_towers
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.train.embed import Embedder
from ranksaga.train.pairs import TrainingPairs
from ranksaga.train.pseudo_queries import PseudoQuery
from ranksaga.train.teacher import Mix, Teacher
from ranksaga.train.trainer import train

pytestmark = pytest.mark.slow  # a model of every kind

RNG = np.random.default_rng(4)
DOCUMENTS = tuple(" ".join(f"word{number}" for number in RNG.integers(0, 40, count)) for count in (3, 9, 50, 6, 12, 4))
QUERIES = tuple(" ".join(text.split()[1:3]) for text in DOCUMENTS)
KINDS = [
    *("t5", "chat", "left-leaving", "query-length", "normalize-dense dot", "truncated cosine normalize"),
    *("truncated dot", "leaving mean", "router-second", "router-last", "router-lengths", "router-deep"),
]
LABELLED = Labelled(epochs=2, batch_size=4, learning_rate=1e-2, max_steps=3)
DISTILLED = Distilled(
    epochs=2,
    learning_rate=1e-2,
    max_steps=3,
    towers="query",
    distillation=Distillation(pseudo_queries=64, queries=2, labelled=2, documents=4),
)


def loaded(folder: Path) -> Encoder:
    return load_encoder(str(folder), precision="fp32", device="cpu")


def fit(encoder: Encoder, model: Any, settings: Training, folder: Path) -> Encoder:
    """The encoder around a model that was trained."""
    rows = np.arange(len(QUERIES), dtype=np.int32)
    pairs = np.stack([rows, rows], axis=1)
    source: Any = TrainingPairs("words", QUERIES, DOCUMENTS, pairs, pairs)
    if isinstance(settings, Distilled):
        ids = tuple(f"d{row}" for row in rows)
        dataset = Dataset("words", Corpus(ids, ("",) * len(ids), DOCUMENTS), Queries(ids, QUERIES), {})
        queries, documents = encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS)
        judged = Qrels.of([(int(row), int(row), 1) for row in rows])
        pseudo = tuple(PseudoQuery(text, row) for row, text in enumerate(QUERIES))
        source = Teacher(dataset, LexicalIndex.of(dataset), Mix(bm25=0.3), documents, pseudo, queries, judged, queries)
    spec = encoder.spec
    train(
        model,
        [source],
        settings,
        query_prompt=spec.prompts.query,
        document_prompt=spec.prompts.document,
        max_length=spec.max_length,
        precision="fp32",
        seed=1,
        folder=folder,
    )
    return encoder.with_model(model)


def assert_shipped(encoder: Encoder, folder: Path) -> None:
    """Plain sentence-transformers scores as the encoder does."""
    from sentence_transformers import SentenceTransformer

    folder.mkdir()
    prompts = {"query": encoder.spec.prompts.query, "document": encoder.spec.prompts.document}
    save_model(encoder.model, folder, prompts, encoder.spec.max_length)
    plain = SentenceTransformer(str(folder), device="cpu")
    expected = plain.similarity(plain.encode_query(QUERIES), plain.encode_document(DOCUMENTS)).numpy()
    measured = encoder.encode_queries(QUERIES) @ encoder.encode_documents(DOCUMENTS).T
    np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=2e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_the_vectors_that_are_scored(families: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    encoder = loaded(families.supported(kind, tmp_path))
    prompts = encoder.spec.prompts.query, encoder.spec.prompts.document
    embedder = Embedder(encoder.model, prompts, max_length=encoder.spec.max_length, precision="fp32")
    expected = np.concatenate([encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS)])
    made = np.full_like(expected, np.nan)
    for part in embedder.passes(QUERIES, DOCUMENTS):
        made[list(part.rows)] = embedder.forward(part).detach().numpy()
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=2e-6 * np.abs(expected).max())
    assert embedder.dimension == expected.shape[1]
    lengths = np.linalg.norm(expected, axis=1)
    assert embedder.unit_length == bool(np.allclose(lengths, 1, atol=1e-5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, Lora(rank=2, alpha=4.0)])
def test_one_model_learns_from_labels(families: SimpleNamespace, tmp_path: Path, kind: str, lora: Lora | None) -> None:
    encoder = loaded(families.supported(kind, tmp_path))
    before = encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS)
    settings = LABELLED.model_copy(update={"lora": lora})
    tuned = fit(encoder, copy.deepcopy(encoder.model), settings, tmp_path / "run")
    after = tuned.encode_queries(QUERIES), tuned.encode_documents(DOCUMENTS)
    assert all(np.abs(new - old).max() > 1e-3 for new, old in zip(after, before, strict=True))
    assert_shipped(tuned, tmp_path / "shipped")


@pytest.mark.parametrize("kind", KINDS)
def test_queries_then_documents_learn_from_a_teacher(families: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    encoder = loaded(families.supported(kind, tmp_path))
    documents = encoder.encode_documents(DOCUMENTS)
    first = fit(encoder, in_two_towers(encoder.model), DISTILLED, tmp_path / "queries")
    np.testing.assert_array_equal(first.encode_documents(DOCUMENTS), documents)  # an index stays valid
    assert np.abs(first.encode_queries(QUERIES) - encoder.encode_queries(QUERIES)).max() > 1e-3
    queries = first.encode_queries(QUERIES)
    after = DISTILLED.model_copy(update={"towers": "document"})
    second = fit(encoder, copy.deepcopy(first.model), after, tmp_path / "documents")
    np.testing.assert_array_equal(second.encode_queries(QUERIES), queries)
    assert np.abs(second.encode_documents(DOCUMENTS) - documents).max() > 1e-3
    assert_shipped(second, tmp_path / "shipped")
