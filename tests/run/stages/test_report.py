"""The shipped model's folders and card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.encode.towers import in_two_towers
from ranksaga.files import write_json
from ranksaga.run.plan import Plan
from ranksaga.run.shipped_model import publish, write_shipped_model
from ranksaga.run.stages.score import System

TEXTS = ["word1 word2", "word3"]


def ship(encoder: Encoder, folder: Path) -> None:
    """What a run writes that ships this encoder and measured nothing."""
    system = System("best", encoder, ())
    plan: Any = None
    write_shipped_model(system, system, cast("Plan", plan), "small", folder)


def test_two_towers_are_shipped_as_one_model_and_each_alone(families: SimpleNamespace, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = load_encoder(str(families.supported("normalize-dense", tmp_path)), precision="fp32", device="cpu")
    run = tmp_path / "run"
    split = encoder.with_model(in_two_towers(encoder.model))
    for parameter in split.model[0].sub_modules["query"].parameters():
        parameter.data *= 1.1
    split = encoder.with_model(split.model)
    ship(split, tmp_path / "first")
    publish(tmp_path / "first", run, leave=())
    assert sorted(path.name for path in run.iterdir()) == ["model", "model_document", "model_query"]
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "Call `encode_query(texts)` and `encode_document(texts)`" in card
    assert "`model_query` and `model_document`" in card
    vectors = {"query": split.encode_queries(TEXTS), "document": split.encode_documents(TEXTS)}
    assert np.abs(vectors["query"] - vectors["document"]).max() > 1e-2
    for task, expected in vectors.items():
        alone = SentenceTransformer(str(run / f"model_{task}"), device="cpu")
        np.testing.assert_allclose(alone.encode(TEXTS, normalize_embeddings=True), expected, atol=2e-6)

    # Another recipe, whose model has one tower, leaves nothing of the first one.
    for name in ("selection_gone.png", "per_query/best/gone.json", "kept.txt"):
        write_json(run / name, {})
    ship(encoder, tmp_path / "second")
    write_json(tmp_path / "second" / "log.txt", {})
    publish(tmp_path / "second", run, leave=("log.txt",))
    assert sorted(path.name for path in run.iterdir()) == ["kept.txt", "model"]
    assert "encode_query" not in (run / "model" / "README.md").read_text(encoding="utf-8")
