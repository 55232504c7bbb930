"""Two towers: what moves with which, and what a plain sentence-transformers installation makes of the saved model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.models import load_model
from ranksaga.encode.towers import has_two_towers, in_two_towers, query_tower_state, towers

TEXTS = ["the quick brown fox", "short", "Retrieval of documents by embedding."]


def test_one_model_is_its_own_two_towers(tiny_minilm: Path) -> None:
    model = load_model(str(tiny_minilm))
    assert towers(model) == (model, model)
    assert not query_tower_state(model.state_dict())


@pytest.mark.slow
def test_a_change_of_the_query_tower_moves_no_document(tiny_minilm: Path, tmp_path: Path) -> None:
    base = load_encoder(str(tiny_minilm), precision="fp32")
    model = in_two_towers(base.model)
    assert has_two_towers(model)
    split = base.with_model(model)
    np.testing.assert_array_equal(split.encode_queries(TEXTS), base.encode_queries(TEXTS))
    assert split.document_identity == base.document_identity

    names = query_tower_state(model.state_dict())
    assert 2 * len(names) == len(model.state_dict())
    for name, parameter in model.named_parameters():
        if name in names and name.endswith("value.weight"):
            parameter.data *= 2
    moved = base.with_model(model)
    assert moved.document_identity == base.document_identity
    assert moved.spec.identity != base.spec.identity
    np.testing.assert_array_equal(moved.encode_documents(TEXTS), base.encode_documents(TEXTS))
    assert np.abs(moved.encode_queries(TEXTS) - base.encode_queries(TEXTS)).max() > 1e-3

    from sentence_transformers import SentenceTransformer

    model.save_pretrained(str(tmp_path / "two"))
    plain = SentenceTransformer(str(tmp_path / "two"), device="cpu")
    np.testing.assert_allclose(plain.encode_query(TEXTS), moved.encode_queries(TEXTS), atol=2e-6)
    np.testing.assert_allclose(plain.encode_document(TEXTS), moved.encode_documents(TEXTS), atol=2e-6)
    again = load_encoder(str(tmp_path / "two"), precision="fp32")
    assert again.spec.revision == moved.spec.revision
    assert again.spec.max_length == 256
    np.testing.assert_allclose(again.encode_queries(TEXTS), moved.encode_queries(TEXTS), atol=2e-6)


@pytest.mark.slow
def test_cached_vectors_are_the_computed_ones(
    tiny_minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path))
    plain = load_encoder(str(tiny_minilm), precision="fp32")
    kept = load_encoder(str(tiny_minilm), precision="fp32", cached=True)
    expected = plain.encode_documents([*TEXTS, TEXTS[0]])
    np.testing.assert_allclose(kept.encode_documents(TEXTS[:2]), expected[:2], atol=2e-6)
    # One text is new, two come from disk, one is asked for twice.
    np.testing.assert_allclose(kept.encode_documents([*TEXTS, TEXTS[0]]), expected, atol=2e-6)
    again = load_encoder(str(tiny_minilm), precision="fp32", cached=True)
    monkeypatch.setattr(type(again._document), "_compute", lambda *_: pytest.fail("computed again"))
    np.testing.assert_allclose(again.encode_documents(TEXTS[::-1]), expected[2::-1], atol=2e-6)
