"""Attention over packed texts by this package's compiled kernel (``attention.c``), where there is one.

It is compiled when the package is installed, if the machine has a C compiler, and chooses by the processor it runs on.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["CompiledAttention", "Packing", "compiled_attention"]

logger = logging.getLogger(__name__)

KINDS = {1: "AVX-512 BF16", 2: "AMX"}


@dataclass(frozen=True)
class Packing:
    """Where the tokens of padded texts (n, l) lie when they follow each other without padding.

    Attributes:
        rows: (t,) int64, the place of each token among the ``n * l``.
        offsets: (n + 1,) int64, text i has the tokens ``offsets[i]`` to ``offsets[i + 1]``.
        places: (t,) int64, the place of each token in its text.
    """

    rows: torch.Tensor
    offsets: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(cls, mask: torch.Tensor) -> Packing:
        """``mask`` (n, l): 1 where a token is, padded on the right."""
        import torch

        rows = mask.flatten().nonzero().squeeze(1)
        offsets = torch.zeros(len(mask) + 1, dtype=torch.int64)
        torch.cumsum(mask.sum(1), 0, out=offsets[1:])
        return cls(rows, offsets, rows % mask.shape[1])

    def padded(self, states: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Token vectors (t or more, d) as (n, l, d), zeros where no token is."""
        found = states.new_zeros(shape.numel(), states.shape[1]).index_copy(0, self.rows, states[: len(self.rows)])
        return found.view(*shape, -1)


class CompiledAttention:
    """Attention by the compiled kernel.

    Queries, keys and values are (t, 3 * d) bf16, contiguous, those of a token side by side; rows behind the last text
    are allowed, and what belongs to them is 0.

    Attributes:
        name: the instructions it uses.
    """

    def __init__(self, library: Any, kind: int) -> None:
        self.name = KINDS[kind]
        self._library = library
        self._kind = kind

    def forward(
        self, threes: torch.Tensor, offsets: torch.Tensor, heads: int, logs: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What every token sees (t, d) bf16.

        Args:
            logs: (heads, t) float32, where given, is filled with what the backward pass needs.
        """
        size, width = int(offsets[-1]), threes.shape[1] // 3
        seen = threes.new_empty(len(threes), width)
        self._call("attention_forward", threes, offsets, heads, seen, logs)
        seen[size:] = 0
        return seen

    def backward(
        self,
        threes: torch.Tensor,
        offsets: torch.Tensor,
        heads: int,
        seen: torch.Tensor,
        logs: torch.Tensor,
        gradient: torch.Tensor,
    ) -> torch.Tensor:
        """Gradient (t, 3 * d) bf16 of queries, keys and values, given that of what was seen (t, d)."""
        found = threes.new_empty(threes.shape)
        self._call("attention_backward", threes, offsets, heads, seen, logs, gradient, found)
        found[int(offsets[-1]) :] = 0
        return found

    def _call(
        self, function: str, threes: torch.Tensor, offsets: torch.Tensor, heads: int, *rest: torch.Tensor | None
    ) -> None:
        for one in (threes, offsets, *rest):
            if one is not None and not (one.device.type == "cpu" and one.is_contiguous()):
                raise ValueError(f"the kernel reads contiguous tensors on the CPU, not {one.stride()} on {one.device}")
        texts, depth = len(offsets) - 1, threes.shape[1] // 3 // heads
        sizes = (ctypes.c_int64(one) for one in (texts, heads, depth))
        pointers = (None if one is None else ctypes.c_void_p(one.data_ptr()) for one in rest)
        first = ctypes.c_void_p(threes.data_ptr()), ctypes.c_void_p(offsets.data_ptr())
        if getattr(self._library, function)(self._kind, *first, *sizes, *pointers):
            raise MemoryError("no memory for attention")


@cache
def compiled_attention() -> CompiledAttention | None:
    """The kernel, or ``None`` where it was not compiled or the processor has neither AMX nor AVX-512 BF16."""
    import torch  # noqa: F401 - the kernel shares torch's threads: it takes the OpenMP library that is already loaded

    here = Path(__file__)
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = here.with_name(f"_attention{suffix}")
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
            except OSError as error:
                logger.info("the attention kernel cannot be loaded: %s", error)
                return None
            kind = library.attention_kind()
            return CompiledAttention(library, kind) if kind else None
    return None
