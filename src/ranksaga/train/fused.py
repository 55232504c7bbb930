"""BERT's forward and backward pass on a CPU, in bf16, at about twice the library's speed (docs/log.md).

What makes the difference: torch's fused attention has a slow backward pass on a CPU, so attention is written out as
matrix products that keep their softmax; and the products run on weights in oneDNN's own layout, laid out once per
optimizer step. Same arithmetic as autocast in bf16: sums in float32, weights, gradients and optimizer in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ranksaga.encode.fused import STEP, fuse, pack, padding_bias

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

    def __call__(self, groups: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        """Token vectors (n, l, d) bf16 of each group's token ids (n, l), padded on the right, and mask (n, l), 1 where
        a token is. All groups share the products with weights, so their gradients are summed once."""
        import torch
        from torch.nn import functional

        self._refresh()
        shapes = [ids.shape for ids, _ in groups]
        states = self._embedded(torch.cat([ids.flatten() for ids, _ in groups]), shapes)
        size = len(states)
        states = functional.pad(states.to(torch.bfloat16), (0, 0, 0, -size % STEP))
        heads = self._model.config.num_attention_heads
        biases = [padding_bias(mask) for _, mask in groups]
        for layer, (inward, outward, up, down) in zip(self._model.encoder.layer, self._products, strict=True):
            seen = _attention(_product(states, inward), shapes, biases, heads)
            states = _norm(_product(seen, outward, states), layer.attention.output.LayerNorm)
            inner = functional.gelu(_product(states, up))
            states = _norm(_product(inner, down, states), layer.output.LayerNorm)
        parts = torch.split(states[:size], [count * longest for count, longest in shapes])
        return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]

    def _embedded(self, ids: torch.Tensor, shapes: Sequence[Sequence[int]]) -> torch.Tensor:
        """Normed sums (t, d) of the embeddings; taken at once, for each has a gradient as large as its table."""
        import torch
        from torch.nn.functional import embedding

        table = self._model.embeddings
        places = torch.cat([torch.arange(longest).repeat(count) for count, longest in shapes]) + self._first
        states = embedding(ids, table.word_embeddings.weight) + embedding(places, table.position_embeddings.weight)
        found: torch.Tensor = table.LayerNorm(states + table.token_type_embeddings.weight[0])
        return found

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


def _attention(
    threes: torch.Tensor, shapes: Sequence[Sequence[int]], biases: Sequence[torch.Tensor | None], heads: int
) -> torch.Tensor:
    """Attention over queries, keys and values (t, 3d) of groups of texts of ``shapes`` (count, tokens), (t, d); rows
    behind the texts are 0."""
    found: torch.Tensor = _functions()[1].apply(threes, shapes, biases, heads)
    return found


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
                biases = gradient.sum(0).float().split(ctx.sizes)  # asked for float32, torch would copy all of it first
                found = [*weights, *biases]
            return inward, gradient if needed[1] else None, None, *found

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, threes: Any, shapes: Any, biases: Any, heads: int) -> Any:
            found = threes.new_empty(len(threes), threes.shape[1] // 3)
            kept, first = [], 0
            for (count, longest), bias in zip(shapes, biases, strict=True):
                rows = slice(first, first := first + count * longest)
                apart = threes[rows].view(count, longest, 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous()
                query, key, value = apart.view(3, count * heads, longest, -1)
                query *= query.shape[-1] ** -0.5
                scores = torch.bmm(query, key.transpose(1, 2))
                if bias is not None:
                    scores.view(count, heads, longest, longest).add_(bias)
                weights = torch.softmax(scores, dim=-1)
                seen = torch.bmm(weights, value).view(count, heads, longest, -1)
                found[rows].view(count, longest, heads, -1).copy_(seen.transpose(1, 2))
                kept += [apart, weights]
            found[first:] = 0
            ctx.save_for_backward(*kept)
            return found

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (gradient,) = gradients
            threes = gradient.new_empty(len(gradient), 3 * gradient.shape[1])
            first = 0
            for apart, weights in zip(ctx.saved_tensors[::2], ctx.saved_tensors[1::2], strict=True):
                _, count, heads, longest, depth = apart.shape
                rows = slice(first, first := first + count * longest)
                query, key, value = apart.view(3, count * heads, longest, depth)
                seen = gradient[rows].view(count, longest, heads, depth).transpose(1, 2)
                seen = seen.reshape(count * heads, longest, depth)
                found = torch.empty_like(apart)
                of_query, of_key, of_value = found.view(3, count * heads, longest, depth)
                torch.bmm(weights.transpose(1, 2), seen, out=of_value)
                of_scores = torch.ops.aten._softmax_backward_data(
                    torch.bmm(seen, value.transpose(1, 2)), weights, -1, weights.dtype
                )
                torch.bmm(of_scores, key, out=of_query)
                of_query *= depth**-0.5
                torch.bmm(of_scores.transpose(1, 2), query, out=of_key)
                threes[rows].view(count, longest, 3, heads, depth).copy_(found.permute(1, 3, 0, 2, 4))
            threes[first:] = 0
            return threes, None, None, None

    _MADE.append((Linear, Attention))
    return _MADE[0]
