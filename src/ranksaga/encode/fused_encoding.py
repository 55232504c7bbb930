"""BERT's forward pass on a CPU, on packed texts, with oneDNN's fused kernels and our own.

The same arithmetic as transformers' BertModel in bf16, with no padding, weights in oneDNN's own layout, one product for
queries, keys and values, and GELU and the residual sum computed inside the products (docs/log/ has the times). For
BERT, RoBERTa and XLM-RoBERTa, which is what most embedding models are made of; any other model, any whose vectors this
does not reproduce on a probe, and any machine without the kernel keeps the library's own forward pass.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ranksaga.encode.batch_layout import Packed
from ranksaga.kernels.available import compiled_kernels
from ranksaga.kernels.compiled import Kernels

if TYPE_CHECKING:
    import torch

__all__ = ["FusedTransformer", "fuse", "pack", "position_pad"]

logger = logging.getLogger(__name__)

KINDS = ("bert", "roberta", "xlm-roberta")
# Rows that oneDNN lays the weights out for; it takes any number.
ROWS = 4096
# Rows of a product are a multiple of this: oneDNN makes a kernel for each number of rows that it has not met, which
# takes milliseconds.
STEP = 128
# Two bf16 passes that round in another order agree to 3e-3; a wrong layer is further off than this.
CLOSE = 0.999


@dataclass(frozen=True)
class Norm:
    """A layer norm's weight and bias, float32 but rounded to bf16: one that came here in bf16 has the same."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> Norm:
        """Copy a module's."""
        weight, bias = (one.detach().bfloat16().float() for one in (module.weight, module.bias))
        return cls(weight, bias, module.eps)

    def __call__(self, states: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        return kernels.norm(states, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class Layer:
    """One layer's weights (packed) and vectors."""

    qkv: tuple[Any, Any]
    output: tuple[Any, Any]
    up: tuple[Any, Any]
    down: tuple[Any, Any]
    norms: tuple[Norm, Norm]


class FusedTransformer:
    """Token vectors of a BERT-like model in bf16.

    Args:
        model: a transformers model of one of ``KINDS``, on the CPU; its weights are copied.
        kernels: the compiled ones.
    """

    def __init__(self, model: Any, kernels: Kernels) -> None:
        import torch

        config, kind = model.config, torch.bfloat16
        self._kernels = kernels
        self._heads = config.num_attention_heads
        self._pad = position_pad(config)
        table = model.embeddings
        self._words = table.word_embeddings.weight.detach().to(kind)
        # Rounded before they are added: weights that came here in bf16 give the same sum.
        places = (table.position_embeddings.weight, table.token_type_embeddings.weight[0])
        self._places = places[0].detach().to(kind) + places[1].detach().to(kind)
        self._norm = Norm.of(table.LayerNorm)
        self._layers = [_layer(layer) for layer in model.encoder.layer]

    def __call__(self, texts: Packed) -> torch.Tensor:
        """Token vectors (t or more, d) bf16; rows behind the last token mean nothing."""
        import torch
        from torch.nn import functional

        states = functional.embedding(texts.ids, self._words)
        states = self._norm(states + self._places[texts.positions(self._pad)], self._kernels)
        states = functional.pad(states, (0, 0, 0, -len(states) % STEP))
        product = torch.ops.mkldnn._linear_pointwise
        for layer in self._layers:
            qkv = product(states, *layer.qkv, "none", [], "none")
            attended = self._kernels.attention(qkv, texts.offsets, self._heads)
            states = layer.norms[0](product.binary(attended, states, *layer.output, "add"), self._kernels)
            hidden = product(states, *layer.up, "gelu", [], "none")
            states = layer.norms[1](product.binary(hidden, states, *layer.down, "add"), self._kernels)
        return states


def position_pad(config: Any) -> int | None:
    """What :meth:`Packed.positions` is asked with."""
    return config.pad_token_id if config.model_type != "bert" else None


def fuse(modules: Sequence[Any]) -> FusedTransformer | None:
    """The fused form of the ``Transformer`` that a sentence-transformers model begins with.

    ``None`` where it has none, where something else than a ``Pooling``, which takes packed texts, follows, or where the
    tokenizer pads on the left or makes no token at all of an empty text.
    """
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer, following = modules[0], modules[1:2]
    model = getattr(transformer, "auto_model", None)
    config = getattr(model, "config", None)
    if config is None or config.model_type not in KINDS or config.hidden_act != "gelu" or config.is_decoder:
        return None
    if transformer.tokenizer.padding_side != "right" or not transformer.tokenizer("")["input_ids"]:
        return None
    if [type(one) for one in following] != [Pooling]:
        return None
    kernels = compiled_kernels()
    if kernels is None or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    try:
        with torch.inference_mode():
            fused = FusedTransformer(model, kernels)
            if _agrees(fused, transformer):
                return fused
    except (AttributeError, RuntimeError, TypeError) as error:
        # Variants of these models exist under the same name, and the kernels are torch's own affair.
        logger.info("no fused forward pass: %s", error)
    return None


def _agrees(fused: FusedTransformer, transformer: Any) -> bool:
    """Whether both forms give the pooling the same token vectors, in the real model's precision."""
    import torch
    from torch.nn.functional import cosine_similarity

    config, generator = transformer.auto_model.config, torch.Generator().manual_seed(0)
    ids = torch.randint(5, config.vocab_size, (2, 16), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    ids[1, 11:] = config.pad_token_id or 0
    expected = transformer({"input_ids": ids, "attention_mask": mask})["token_embeddings"][mask == 1].float()
    found = fused(Packed.of([ids[0], ids[1, :11]]))[: len(expected)].float()
    return bool(cosine_similarity(found, expected, dim=-1).min() > CLOSE)


def _layer(layer: Any) -> Layer:
    import torch

    attention, projection = layer.attention.self, layer.attention.output
    parts = (attention.query, attention.key, attention.value)
    qkv = _packed(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
    output, up, down = (
        _packed(linear.weight, linear.bias)
        for linear in (projection.dense, layer.intermediate.dense, layer.output.dense)
    )
    return Layer(qkv, output, up, down, (Norm.of(projection.LayerNorm), Norm.of(layer.output.LayerNorm)))


def pack(weight: torch.Tensor) -> torch.Tensor:
    """A weight (m, k) bf16 in the layout that oneDNN's product likes best; only ``_linear_pointwise`` reads it."""
    import torch

    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    return packed


def _packed(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    weight, bias = (one.detach().to(torch.bfloat16) for one in (weight, bias))
    return pack(weight), bias
