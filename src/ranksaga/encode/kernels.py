"""What torch does slowly in a transformer's bf16 pass on a CPU, by this package's compiled kernels (``kernels.c``).

They are compiled when the package is installed, where the machine has a C compiler, and choose by the processor.
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

__all__ = ["Kernels", "Packing", "compiled_kernels"]

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


class Kernels:
    """The compiled kernels. All tensors are contiguous and on the CPU; ``ValueError`` where they are not.

    Attributes:
        name: the instructions they use.
    """

    def __init__(self, library: Any, kind: int) -> None:
        self.name = KINDS[kind]
        self._library = library
        self._kind = kind

    def attention(
        self, threes: torch.Tensor, offsets: torch.Tensor, heads: int, logs: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What every token sees (t, d) bf16.

        Args:
            threes: (t, 3 * d) bf16, query, key and value of each token side by side. Rows behind the last text are
                allowed; what belongs to them is 0.
            offsets: as in :class:`Packing`.
            logs: (heads, t) float32, where given, is filled with what the backward pass needs.
        """
        seen = threes.new_empty(len(threes), threes.shape[1] // 3)
        self._attend("attention_forward", threes, offsets, heads, seen, logs)
        seen[int(offsets[-1]) :] = 0
        return seen

    def attention_backward(
        self,
        threes: torch.Tensor,
        offsets: torch.Tensor,
        heads: int,
        seen: torch.Tensor,
        logs: torch.Tensor,
        gradient: torch.Tensor,
    ) -> torch.Tensor:
        """Gradient (t, 3 * d) bf16 of ``threes``, given that of ``seen`` (t, d)."""
        found = threes.new_empty(threes.shape)
        self._attend("attention_backward", threes, offsets, heads, seen, logs, gradient, found)
        found[int(offsets[-1]) :] = 0
        return found

    def gelu(self, states: torch.Tensor) -> torch.Tensor:
        """GELU with the error function (Hendrycks and Gimpel, 2016), bf16."""
        found = states.new_empty(states.shape)
        self._call("gelu", states, None, found, states.numel())
        return found

    def gelu_backward(self, states: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient of ``states``, bf16."""
        found = states.new_empty(states.shape)
        self._call("gelu", states, gradient, found, states.numel())
        return found

    def norm(
        self,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        tiny: float,
        moments: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Layer norm (t, d) bf16 of ``states``.

        Args:
            weight: (d,) float32, and so is ``bias``.
            tiny: added to the variance.
            moments: (t, 2) float32, where given, is filled with what the backward pass needs.
        """
        found = states.new_empty(states.shape)
        self._call("norm_forward", states, weight, bias, tiny, found, moments, *states.shape)
        return found

    def norm_backward(
        self, states: torch.Tensor, weight: torch.Tensor, moments: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of ``states`` (t, d) bf16, and of weight and bias (2, d) float32."""
        found, both = states.new_empty(states.shape), weight.new_empty(2, len(weight))
        self._call("norm_backward", states, weight, moments, gradient, found, both, *states.shape)
        return found, both

    def _attend(
        self, function: str, threes: torch.Tensor, offsets: torch.Tensor, heads: int, *rest: torch.Tensor | None
    ) -> None:
        texts, depth = len(offsets) - 1, threes.shape[1] // 3 // heads
        self._call(function, self._kind, threes, offsets, texts, heads, depth, *rest)

    def _call(self, function: str, *values: torch.Tensor | float | None) -> None:
        if getattr(self._library, function)(*map(_as_c, values)):
            raise MemoryError(f"no memory for {function}")


def _as_c(value: torch.Tensor | float | None) -> Any:
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    if value.device.type != "cpu" or not value.is_contiguous():
        raise ValueError(f"the kernels read contiguous tensors on the CPU, not {value.stride()} on {value.device}")
    return ctypes.c_void_p(value.data_ptr())


@cache
def compiled_kernels() -> Kernels | None:
    """The kernels, or ``None`` where they were not compiled or the processor has neither AMX nor AVX-512 BF16."""
    import torch  # noqa: F401 - the kernels share torch's threads: they take the OpenMP library that is already loaded

    here = Path(__file__)
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = here.with_name(f"_kernels{suffix}")
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
            except OSError as error:
                logger.info("the compiled kernels cannot be loaded: %s", error)
                return None
            kind = library.kernels_kind()
            return Kernels(library, kind) if kind else None
    return None
