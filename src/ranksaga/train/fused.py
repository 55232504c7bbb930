"""BERT's forward and backward pass on a CPU, in bf16, at about twice the library's speed (docs/log.md).

What makes the difference: torch's fused attention has a slow backward pass on a CPU, so attention is written out as
matrix products that keep their softmax; and the products run on weights in oneDNN's own layout, laid out once per
optimizer step. Same arithmetic as autocast in bf16: sums in float32, weights, gradients and optimizer in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ranksaga.encode.fused import STEP, fuse, pack

if TYPE_CHECKING:
    import torch

__all__ = ["FusedTraining", "fuse_training"]


@dataclass(frozen=True)
class Product:
    """One product of a layer: its live modules (side by side, as one), and what their weights were packed to."""

    modules: tuple[Any, ...]
    forward: Any
    backward: Any
    bias: Any

    @classmethod
    def of(cls, *modules: Any) -> Product:
        """Pack the modules' weights as they are now."""
        import torch

        weight = torch.cat([one.weight.detach() for one in modules]).to(torch.bfloat16)
        bias = torch.cat([one.bias.detach() for one in modules]).to(torch.bfloat16)
        return cls(modules, pack(weight), pack(weight.t()), bias)

    @property
    def parameters(self) -> tuple[torch.Tensor, ...]:
        """Weights, then biases."""
        return (*(one.weight for one in self.modules), *(one.bias for one in self.modules))


class FusedTraining:
    """Token vectors of a BERT-like model with gradients to its own float32 parameters.

    Args:
        model: a transformers model that :func:`ranksaga.encode.fused.fuse` knows, on the CPU.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._first = model.config.pad_token_id + 1 if model.config.model_type != "bert" else 0
        self._versions: tuple[int, ...] = ()
        self._products: list[tuple[Product, ...]] = []

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token vectors (n, l, d) bf16 of token ids (n, l) padded on the right, ``mask`` (n, l) 1 where a token is."""
        import torch
        from torch.nn import functional

        self._refresh()
        count, longest = ids.shape
        table = self._model.embeddings
        places = table.position_embeddings.weight[self._first : self._first + longest]
        states = functional.embedding(ids, table.word_embeddings.weight) + places
        states = states + table.token_type_embeddings.weight[0]
        size = count * longest
        states = table.LayerNorm(states).to(torch.bfloat16).view(size, -1)
        states = functional.pad(states, (0, 0, 0, -size % STEP))
        bias = None
        if not bool(mask.all()):
            bias = torch.zeros(count, 1, 1, longest, dtype=states.dtype)
            bias = bias.masked_fill_(mask[:, None, None] == 0, torch.finfo(states.dtype).min)
        shape = (count, longest, self._model.config.num_attention_heads)
        for layer, (inward, outward, up, down) in zip(self._model.encoder.layer, self._products, strict=True):
            seen = _attention(_product(states, inward), bias, shape)
            states = _norm(_product(seen, outward, states), layer.attention.output.LayerNorm)
            inner = functional.gelu(_product(states, up))
            states = _norm(_product(inner, down, states), layer.output.LayerNorm)
        tokens: torch.Tensor = states[:size].view(count, longest, -1)
        return tokens

    def _refresh(self) -> None:
        """Pack the weights again where the optimizer, or a resumed run, has changed one."""
        layers = self._model.encoder.layer
        versions = tuple(parameter._version for parameter in layers.parameters())
        if versions == self._versions:
            return
        self._products = [
            (
                Product.of(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
                Product.of(layer.attention.output.dense),
                Product.of(layer.intermediate.dense),
                Product.of(layer.output.dense),
            )
            for layer in layers
        ]
        self._versions = versions


def fuse_training(transformer: Any) -> FusedTraining | None:
    """The fused form of a sentence-transformers ``Transformer`` module, or ``None`` where it has none."""
    return None if fuse(transformer) is None else FusedTraining(transformer.auto_model)


def _norm(states: torch.Tensor, module: Any) -> torch.Tensor:
    from torch.nn import functional

    kind = states.dtype
    return functional.layer_norm(
        states, module.normalized_shape, module.weight.to(kind), module.bias.to(kind), module.eps
    )


def _product(states: torch.Tensor, product: Product, residual: torch.Tensor | None = None) -> torch.Tensor:
    """``states`` (t, k) times the weights, plus bias and, where given, ``residual`` (t, m)."""
    found: torch.Tensor = _functions()[0].apply(states, residual, product, *product.parameters)
    return found


def _attention(threes: torch.Tensor, bias: torch.Tensor | None, shape: Sequence[int]) -> torch.Tensor:
    """Attention over queries, keys and values (t, 3d) of texts of ``shape`` (count, tokens, heads), (t, d); rows behind
    the texts are 0."""
    found: torch.Tensor = _functions()[1].apply(threes, bias, *shape)
    return found


def _put(states: torch.Tensor, rows: int) -> torch.Tensor:
    """States (count, tokens, ...) as ``rows`` rows, 0 behind them."""
    count, longest, *rest = states.shape
    size = count * longest
    found = states.new_empty(rows, *rest)
    found[:size].view(states.shape).copy_(states)
    found[size:] = 0
    return found.view(rows, -1)


_MADE: list[tuple[Any, Any]] = []


def _functions() -> tuple[Any, Any]:
    """The two differentiable functions; made when first needed, so that importing this module needs no torch."""
    if _MADE:
        return _MADE[0]
    import torch

    linear = torch.ops.mkldnn._linear_pointwise

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, states: Any, residual: Any, product: Product, *parameters: Any) -> Any:
            ctx.save_for_backward(states)
            ctx.product, ctx.sizes = product, [len(one) for one in parameters[: len(product.modules)]]
            if residual is None:
                return linear(states, product.forward, product.bias, "none", [], "none")
            return linear.binary(states, residual, product.forward, product.bias, "add")

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (states,) = ctx.saved_tensors
            gradient = gradients[0].contiguous()
            needed = ctx.needs_input_grad
            inward = linear(gradient, ctx.product.backward, None, "none", [], "none") if needed[0] else None
            found: list[Any] = [None] * (2 * len(ctx.sizes))
            if any(needed[3:]):
                # oneDNN is a third faster with the longer side first.
                tall = gradient.shape[1] >= states.shape[1]
                product = gradient.t() @ states if tall else (states.t() @ gradient).t()
                weights = product.float().split(ctx.sizes)
                biases = gradient.sum(0, dtype=torch.float32).split(ctx.sizes)
                found = [*weights, *biases]
            return inward, gradient if needed[1] else None, None, *found

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, threes: Any, bias: Any, count: int, longest: int, heads: int) -> Any:
            real = threes[: count * longest]
            apart = real.view(count, longest, 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous()
            query, key, value = apart.view(3, count * heads, longest, -1)
            query *= query.shape[-1] ** -0.5
            scores = torch.bmm(query, key.transpose(1, 2))
            if bias is not None:
                scores.view(count, heads, longest, longest).add_(bias)
            weights = torch.softmax(scores, dim=-1)
            ctx.save_for_backward(apart, weights)
            ctx.rows = len(threes)
            seen = torch.bmm(weights, value).view(count, heads, longest, -1)
            return _put(seen.transpose(1, 2), len(threes))

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            apart, weights = ctx.saved_tensors
            _, count, heads, longest, depth = apart.shape
            query, key, value = apart.view(3, count * heads, longest, depth)
            gradient = gradients[0][: count * longest].view(count, longest, heads, depth).transpose(1, 2)
            gradient = gradient.reshape(count * heads, longest, depth)
            found = torch.empty_like(apart)
            of_query, of_key, of_value = found.view(3, count * heads, longest, depth)
            torch.bmm(weights.transpose(1, 2), gradient, out=of_value)
            of_scores = torch.ops.aten._softmax_backward_data(
                torch.bmm(gradient, value.transpose(1, 2)), weights, -1, weights.dtype
            )
            torch.bmm(of_scores, key, out=of_query)
            of_query *= depth**-0.5
            torch.bmm(of_scores.transpose(1, 2), query, out=of_key)
            return _put(found.permute(1, 3, 0, 2, 4), ctx.rows), None, None, None, None

    _MADE.append((Linear, Attention))
    return _MADE[0]
