"""Weights between models: interpolation with the base, and averages.

A fine-tuned model gains on what it was trained on and loses elsewhere; a straight line in
weight space between base and fine-tuned model often keeps most of the gain at little of the
loss (WiSE-FT, Wortsman et al. 2022; for embedding models LM-Cocktail, Xiao et al. 2023).
Averages over seeds or epochs are "model soups" (Wortsman et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ranksaga.errors import StageError
from ranksaga.files import atomic_open

if TYPE_CHECKING:
    import torch

__all__ = ["average", "interpolate", "load_weights", "save_weights"]

State = Mapping[str, "torch.Tensor"]


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        StageError: the file is missing, cut or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StageError(
            f"{path}: the weights cannot be read ({error}); delete the file and run the stage again"
        ) from None


def save_weights(path: Path, state: State, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically. Tied weights are written once for each name."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    with atomic_open(path, "wb") as stream:
        stream.write(save(tensors, dict(metadata or {})))


def interpolate(base: State, tuned: State, weight: float) -> dict[str, torch.Tensor]:
    """``(1 - weight) * base + weight * tuned``; 0 is the base and 1 the tuned model, bit for bit.

    Computed in float32, returned in the base's types. Tensors that are no floats (positions) are the base's.

    Raises:
        StageError: the two are not the same architecture.
    """
    return _combine((base, tuned), (1.0 - weight, weight))


def average(states: Sequence[State]) -> dict[str, torch.Tensor]:
    """The mean of several models' weights, in float32.

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
    terms = [(state, weight) for state, weight in zip(states, weights, strict=True) if weight != 0.0]
    merged = {}
    for name, tensor in first.items():
        if not tensor.is_floating_point() or all(tensor.equal(state[name]) for state in states[1:]):
            merged[name] = tensor.clone()  # what no training moved stays, bit for bit
        elif len(terms) == 1 and terms[0][1] == 1.0:
            merged[name] = terms[0][0][name].to(tensor.dtype, copy=True)
        else:
            total = terms[0][0][name].float() * terms[0][1]
            for state, weight in terms[1:]:
                total.add_(state[name].float(), alpha=weight)
            merged[name] = total.to(tensor.dtype)
    return merged


def _check_alike(first: State, other: State) -> None:
    odd = sorted(first.keys() ^ other.keys())
    odd += [name for name in first.keys() & other.keys() if first[name].shape != other[name].shape]
    if odd:
        raise StageError(
            f"the models differ in {len(odd)} tensors, {odd[0]} among them; merge only models of one architecture"
        )
