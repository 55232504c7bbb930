"""BERT's forward and backward pass on a CPU, in bf16, on packed texts (docs/log/ has the times).

What makes the difference: attention by our own kernel, which keeps no scores and computes no padding, products that run
on weights in oneDNN's own layout, laid out once per optimizer step, and gradients of weights by our own kernel, which
oneDNN's product of two transposed matrices would round to bf16. Otherwise the arithmetic of autocast in bf16: sums in
float32, weights, gradients and optimizer in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ranksaga.encode.batch_layout import Packed
from ranksaga.encode.fused_encoding import STEP, fuse, pack, position_pad
from ranksaga.kernels.available import compiled_kernels
from ranksaga.kernels.compiled import BLOCK, Kernels

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

        weight = torch.cat([one.weight.detach().to(torch.bfloat16) for one in modules])
        bias = torch.cat([one.bias.detach().to(torch.bfloat16) for one in modules])
        return cls(modules, pack(weight), pack(weight.t()), bias)

    @property
    def parameters(self) -> tuple[torch.Tensor, ...]:
        """Weights, then biases."""
        return (*(one.weight for one in self.modules), *(one.bias for one in self.modules))


class FusedTraining:
    """Token vectors of a BERT-like model with gradients to its own float32 parameters.

    Args:
        model: a transformers model that :func:`ranksaga.encode.fused_encoding.fuse` knows, on the CPU.
        kernels: the compiled ones.
    """

    def __init__(self, model: Any, kernels: Kernels) -> None:
        self._model = model
        self._kernels = kernels
        self._pad = position_pad(model.config)
        self._versions: tuple[int, ...] = ()
        self._products: list[tuple[Product, ...]] = []

    def __call__(self, texts: Packed) -> torch.Tensor:
        """Token vectors (t or more, d) bf16; rows behind the last token mean nothing."""
        import torch
        from torch.nn import functional

        self._refresh()
        states = self._embedded(texts).to(torch.bfloat16)
        states = functional.pad(states, (0, 0, 0, -len(states) % STEP))
        heads, kernels, functions = self._model.config.num_attention_heads, self._kernels, _functions()
        for layer, (qkv, output, up, down) in zip(self._model.encoder.layer, self._products, strict=True):
            attended = functions.attention.apply(_product(states, qkv, kernels), texts.offsets, heads, kernels)
            states = self._norm(_product(attended, output, kernels, states), layer.attention.output.LayerNorm)
            hidden = functions.gelu.apply(_product(states, up, kernels), kernels)
            states = self._norm(_product(hidden, down, kernels, states), layer.output.LayerNorm)
        return states

    def _norm(self, states: torch.Tensor, module: Any) -> torch.Tensor:
        found: torch.Tensor = _functions().norm.apply(states, module.weight, module.bias, module.eps, self._kernels)
        return found

    def _embedded(self, texts: Packed) -> torch.Tensor:
        """Normed sums (t, d) of the embeddings of tokens and their places."""
        table = self._model.embeddings
        states = table.word_embeddings(texts.ids) + table.position_embeddings(texts.positions(self._pad))
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


def fuse_training(modules: Sequence[Any]) -> FusedTraining | None:
    """The fused form of the ``Transformer`` that a model begins with.

    ``None`` where ``fuse`` has none, for widths that the kernels do not take, and for weights that are not float32.
    """
    import torch

    kernels = compiled_kernels()
    if kernels is None or fuse(modules) is None:
        return None
    model = modules[0].auto_model
    if model.config.hidden_size % BLOCK or model.config.intermediate_size % BLOCK:
        return None
    if any(one.dtype != torch.float32 for one in model.parameters()):
        return None
    return FusedTraining(model, kernels)


def _product(
    states: torch.Tensor, product: Product, kernels: Kernels, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """``states`` (t, k) times the weights, plus bias and, where given, ``residual`` (t, m)."""
    found: torch.Tensor = _functions().linear.apply(states, residual, product, kernels, *product.parameters)
    return found


@dataclass(frozen=True)
class Functions:
    """The differentiable ones."""

    linear: Any
    attention: Any
    gelu: Any
    norm: Any


@cache
def _functions() -> Functions:
    """Made when first needed, so that importing this module needs no torch."""
    import torch

    linear = torch.ops.mkldnn._linear_pointwise

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, states: Any, residual: Any, product: Product, kernels: Kernels, *parameters: Any) -> Any:
            ctx.save_for_backward(states)
            ctx.kernels, ctx.product = kernels, product
            ctx.sizes = [len(one) for one in parameters[: len(product.modules)]]
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
            if any(needed[4:]):
                weights, bias = ctx.kernels.linear_backward(gradient, states)
                found = [*weights.split(ctx.sizes), *bias.split(ctx.sizes)]
            return inward, gradient if needed[1] else None, None, None, *found

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, qkv: Any, offsets: Any, heads: int, kernels: Kernels) -> Any:
            log_sum_exp = qkv.new_empty(heads, int(offsets[-1]), dtype=torch.float32)
            output = kernels.attention(qkv, offsets, heads, log_sum_exp)
            ctx.save_for_backward(qkv, offsets, output, log_sum_exp)
            ctx.heads, ctx.kernels = heads, kernels
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            qkv, offsets, output, log_sum_exp = ctx.saved_tensors
            gradient = gradients[0].contiguous()
            backward = ctx.kernels.attention_backward
            return backward(qkv, offsets, ctx.heads, output, log_sum_exp, gradient), None, None, None

    class Gelu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, states: Any, kernels: Kernels) -> Any:
            ctx.save_for_backward(states)
            ctx.kernels = kernels
            return kernels.gelu(states)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (states,) = ctx.saved_tensors
            return ctx.kernels.gelu_backward(states, gradients[0].contiguous()), None

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, states: Any, weight: Any, bias: Any, epsilon: float, kernels: Kernels) -> Any:
            moments = weight.new_empty(len(states), 2)
            output = kernels.norm(states, weight, bias, epsilon, moments)
            ctx.save_for_backward(states, weight, moments)
            ctx.kernels = kernels
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            states, weight, moments = ctx.saved_tensors
            kernel = ctx.kernels.norm_backward
            states_gradient, (weight_gradient, bias_gradient) = kernel(
                states, weight, moments, gradients[0].contiguous()
            )
            return states_gradient, weight_gradient, bias_gradient, None, None

    return Functions(Linear, Attention, Gelu, Norm)
