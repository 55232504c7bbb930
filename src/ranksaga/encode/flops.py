"""How much arithmetic a pass through a transformer asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["ForwardFlops"]


class ForwardFlops:
    """Floating-point operations of a transformer's matrix products, padding not counted.

    Two for each weight of a linear layer and token, and ``4 * width * length ** 2`` a layer for attention; look-ups,
    norms and activations are no matrix products. 0 for a module whose shape is not known.

    Args:
        transformer: a sentence-transformers ``Transformer`` module.
    """

    def __init__(self, transformer: Any) -> None:
        import torch

        model = getattr(transformer, "auto_model", None)
        config = getattr(model, "config", None)
        self._weights = 0
        self._attention = 0
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
        self._attention = config.num_hidden_layers * config.hidden_size

    def __call__(self, lengths: Sequence[int]) -> float:
        """Operations for texts of so many tokens each."""
        return 2.0 * self._weights * sum(lengths) + 4.0 * self._attention * sum(one * one for one in lengths)
