"""Low-rank updates (LoRA, Hu et al. 2021): of every linear layer only the product of two narrow matrices is learned.

They are torch parametrizations: a layer's weight reads as ``weight + alpha / rank * up @ down`` wherever it is used,
and when training ends the sum takes the weight's place. So files, checkpoints and models look as without it, and the
optimizer keeps moments of the narrow matrices alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from ranksaga.config.training import Lora

if TYPE_CHECKING:
    import torch

__all__ = ["add_low_rank", "merge_low_rank", "plain_state"]

WEIGHT, ORIGINAL, UPDATE = ".weight", ".parametrizations.weight.original", ".parametrizations.weight.0."


def add_low_rank(modules: Iterable[torch.nn.Module], settings: Lora, seed: int) -> None:
    """Give every linear layer in the modules an update, 0 at first; nothing but updates is trainable after.

    ``down`` (rank, in) is drawn as in the paper's code (Kaiming uniform), ``up`` (out, rank) is 0.
    """
    import torch
    from torch.nn.utils import parametrize

    generator = torch.Generator().manual_seed(seed)
    modules = list(modules)
    for module in modules:  # all of them first: two towers may share a layer
        module.requires_grad_(False)
    for module in modules:
        for layer in list(module.modules()):
            if isinstance(layer, torch.nn.Linear) and not parametrize.is_parametrized(layer):
                weight = layer.weight
                drawn = torch.rand(settings.rank, weight.shape[1], generator=generator) * 2 - 1
                down = drawn.to(weight) / weight.shape[1] ** 0.5
                parametrize.register_parametrization(
                    layer, "weight", _low_rank()(down, weight.new_zeros(len(weight), settings.rank), settings)
                )


def merge_low_rank(model: torch.nn.Module) -> None:
    """Put every update into its layer's weight, and leave the layers as they were made."""
    from torch.nn.utils import parametrize

    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def plain_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of the model with every update in its weight."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(ORIGINAL):
            layer: Any = model.get_submodule(name.removesuffix(ORIGINAL))
            found[name.removesuffix(ORIGINAL) + WEIGHT] = layer.weight.detach()
        elif UPDATE not in name:
            found[name] = tensor
    return found


@cache
def _low_rank() -> Any:
    """The parametrization; made when first needed, so that importing this module needs no torch."""
    import torch

    class LowRank(torch.nn.Module):
        def __init__(self, down: torch.Tensor, up: torch.Tensor, settings: Lora) -> None:
            super().__init__()
            self.down, self.up = torch.nn.Parameter(down), torch.nn.Parameter(up)
            self.scale = settings.alpha / settings.rank

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + self.scale * (self.up @ self.down)

    return LowRank
