"""Identity of weights, computed where they lie: of a model on a GPU 16 bytes a tensor come to the CPU, not the weights.

A tensor's hash is multilinear modulo 2^64 (Carter and Wegman 1979; Lemire and Kaser 2014): the sum of its 32-bit
words, each times a random 64-bit key of its place, twice with keys of their own. Sums of integers are exact in any
order, so every device gives the same one. Two tensors that differ share it with a probability below 2^-64.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["fingerprint"]

CHUNK = 1 << 18  # words that share the keys of their places; small enough for a processor's cache
STEP = 6364136223846793005  # between chunks: odd, so that no bit of an earlier chunk is lost


def fingerprint(tensors: Iterable[torch.Tensor]) -> bytes:
    """16 bytes for each tensor: a hash of its values, floating ones as float32; names and shapes are the caller's."""
    import torch

    with torch.no_grad():
        hashes = [_hash(tensor.detach()) for tensor in tensors]
        return torch.stack(hashes).cpu().numpy().tobytes() if hashes else b""


def _hash(tensor: torch.Tensor) -> torch.Tensor:
    """(2,) int64 on the tensor's device."""
    import torch

    values = tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64)
    words = values.contiguous().view(-1).view(torch.int32)
    keys = _keys(str(words.device))
    total = torch.zeros(2, dtype=torch.int64, device=words.device)
    for start in range(0, len(words), CHUNK):
        chunk = words[start : start + CHUNK]
        total = total * STEP + (chunk.long() * keys[:, : len(chunk)]).sum(dim=1)
    return total


@cache
def _keys(device: str) -> torch.Tensor:
    """(2, CHUNK) int64, the same on every machine: the raw stream of NumPy's PCG64."""
    import torch

    raw = np.random.PCG64(0).random_raw(2 * CHUNK).view(np.int64)
    return torch.from_numpy(raw.reshape(2, CHUNK)).to(device)
