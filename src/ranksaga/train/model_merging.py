"""Weights between models: interpolation with the base, and averages.

A fine-tuned model gains on what it was trained on and loses elsewhere; a straight line in
weight space between base and fine-tuned model often keeps most of the gain at little of the
loss (WiSE-FT, Wortsman et al. 2022; for embedding models LM-Cocktail, Xiao et al. 2023).
Averages over seeds or epochs are "model soups" (Wortsman et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ranksaga.errors import StageError

if TYPE_CHECKING:
    import torch

__all__ = ["average", "interpolate"]

State = Mapping[str, "torch.Tensor"]


def interpolate(base: State, tuned: State, weight: float) -> dict[str, torch.Tensor]:
    """``(1 - weight) * base + weight * tuned``; 0 is the base and 1 the tuned model, bit for bit.

    Computed in float32 where the base lies, returned in the base's types. Tensors that are no floats (positions) are
    the base's.

    Raises:
        StageError: the two are not the same architecture.
    """
    return _combine((base, tuned), (1.0 - weight, weight))


def average(states: Sequence[State]) -> dict[str, torch.Tensor]:
    """The mean of several models' weights, in float32, where the first one lies.

    Raises:
        StageError: no model, or models of different architectures.
    """
    return _combine(states, [1.0 / len(states)] * len(states) if states else [])


def _combine(states: Sequence[State], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    if not states:
        raise StageError("there are no weights to average; give at least one model")
    first = states[0]
    for other in states[1:]:
        _check_alike(first, other)
    # A term of weight 0 is left out: it would turn -0.0 into 0.0, and an overflow into NaN.
    terms = [(place, weight) for place, weight in enumerate(weights) if weight != 0.0]
    return {name: _mean([state[name] for state in states], terms) for name in first}


def _mean(tensors: Sequence[torch.Tensor], terms: Sequence[tuple[int, float]]) -> torch.Tensor:
    """The weighted sum of one tensor of several models, on the device of the first; a new tensor."""
    import torch

    first = tensors[0]
    if not first.is_floating_point() or terms == [(0, 1.0)]:
        return first.clone()
    tensors = [tensor.to(first.device, non_blocking=True) for tensor in tensors]
    if len(terms) == 1 and terms[0][1] == 1.0:
        return tensors[terms[0][0]].to(first.dtype, copy=True)
    # What no training moved stays, bit for bit. Asked and answered on the device: a GPU is not waited for.
    same = torch.stack([(tensor == first).all() for tensor in tensors]).all()
    total = tensors[terms[0][0]].float() * terms[0][1]
    for place, weight in terms[1:]:
        total.add_(tensors[place].float(), alpha=weight)
    return torch.where(same, first, total.to(first.dtype))


def _check_alike(first: State, other: State) -> None:
    odd = sorted(first.keys() ^ other.keys())
    odd += [name for name in first.keys() & other.keys() if first[name].shape != other[name].shape]
    if odd:
        raise StageError(
            f"the models differ in {len(odd)} tensors, {odd[0]} among them; merge only models of one architecture"
        )
