"""How much arithmetic a pass through a transformer asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["ForwardFlops", "transformer_flops"]


def transformer_flops(lengths: Sequence[int], *, weights: int, layers: int, hidden: int) -> float:
    """Floating-point operations of one pass over texts of so many tokens each.

    Two for each weight and token, and in each layer ``4 * hidden`` for each pair of tokens of a text: the products of
    queries with keys and of attention weights with values.

    Args:
        lengths: tokens of each text.
        weights: those that a token is multiplied with, in all layers.
        layers: how many have attention.
        hidden: width of a layer.
    """
    return 2.0 * weights * sum(lengths) + 4.0 * layers * hidden * sum(length * length for length in lengths)


class ForwardFlops:
    """Floating-point operations of a transformer's matrix products, padding not counted.

    Look-ups, norms and activations are no matrix products. 0 for a module whose shape is not known.

    Args:
        transformer: a sentence-transformers ``Transformer`` module.
    """

    def __init__(self, transformer: Any) -> None:
        import torch

        model = getattr(transformer, "auto_model", None)
        config = getattr(model, "config", None)
        self._weights = self._layers = self._hidden = 0
        if model is None or config is None or not hasattr(config, "num_hidden_layers"):
            return
        # The pooler of BERT is no part of a token vector; GPT-2's linear layers are of a class of its own.
        linear = [
            module
            for name, module in model.named_modules()
            if (isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D")
            and not name.startswith("pooler")
        ]
        self._weights = sum(module.weight.numel() for module in linear)
        self._layers, self._hidden = config.num_hidden_layers, config.hidden_size

    def __call__(self, lengths: Sequence[int]) -> float:
        """Operations for texts of so many tokens each."""
        return transformer_flops(lengths, weights=self._weights, layers=self._layers, hidden=self._hidden)
