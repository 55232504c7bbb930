"""What torch does slowly on a CPU, by compiled kernels: parts of a transformer's bf16 pass, and exact search.

The C files beside this one are compiled when the package is installed, where the machine has a C compiler. Whether they
run, and with which instructions, is decided in ``available.py``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["AMX", "AVX512", "BLOCK", "KINDS", "Candidates", "Kernels"]

# As ``products.h`` numbers the instructions.
AVX512, AMX = 1, 2
KINDS = {AVX512: "AVX-512 BF16", AMX: "AMX"}
# What each function of the C files takes: numbers (k: int, i: int64, d: double) and arrays of bf16 (b), float32 (f),
# int64 (l) or int32 (w). A test holds this against the prototypes.
ARGUMENTS = {
    "attention_forward": "kbliiibf",
    "attention_backward": "kbliiibfbb",
    "linear_backward": "ibbffiii",
    "gelu": "bbbi",
    "norm_forward": "bffdbfii",
    "norm_backward": "bffbbfii",
    "lengths": "fiif",
    "scan": "kfiibfliiiwfw",
    "rescore": "fiifiiwwf",
}
NUMBERS: Mapping[str, Any] = {"k": ctypes.c_int, "i": ctypes.c_int64, "d": ctypes.c_double}
ARRAYS = {"b": "bfloat16", "f": "float32", "l": "int64", "w": "int32"}
BLOCK = 32  # rows and columns of the smallest product, as in ``products.h``


@dataclass(frozen=True)
class Candidates:
    """What can be among the best documents of each query.

    Attributes:
        documents: (n, room) int32, ascending; what lies behind the count means nothing.
        scores: (n, room) float32.
        counts: (n,) int32; -1 for a query of which too little can be said.
    """

    documents: NDArray[np.int32]
    scores: NDArray[np.float32]
    counts: NDArray[np.int32]


class Kernels:
    """The compiled kernels, with one kind of instructions (``AVX512`` or ``AMX``).

    Tensors and arrays are contiguous, on the CPU and of the types and sizes that a method names; ``ValueError`` where
    they are not.

    Attributes:
        name: the instructions they use.
    """

    def __init__(self, library: Any, kind: int) -> None:
        self.name = KINDS[kind]
        self._library = library
        self._kind = kind

    def attention(
        self, qkv: torch.Tensor, offsets: torch.Tensor, heads: int, log_sum_exp: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attention output (t, d) bf16 of every token, over the tokens of its own text.

        Args:
            qkv: (t, 3 * d) bf16, query, key and value of each token side by side. Rows behind the last text are
                allowed; what belongs to them is 0.
            offsets: (n + 1,) int64, text i has the tokens ``offsets[i]`` to ``offsets[i + 1]``.
            log_sum_exp: (heads, t) float32, where given, is filled with the logarithm (to base 2) of the sum that each
                softmax divides by: the backward pass needs it.
        """
        output = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
        self._attend("attention_forward", qkv, offsets, heads, output, log_sum_exp)
        output[int(offsets[-1]) :] = 0
        return output

    def attention_backward(
        self,
        qkv: torch.Tensor,
        offsets: torch.Tensor,
        heads: int,
        output: torch.Tensor,
        log_sum_exp: torch.Tensor,
        gradient: torch.Tensor,
    ) -> torch.Tensor:
        """Gradient (t, 3 * d) bf16 of ``qkv``, given that of ``output`` (t, d)."""
        qkv_gradient = qkv.new_empty(qkv.shape)
        self._attend("attention_backward", qkv, offsets, heads, output, log_sum_exp, gradient, qkv_gradient)
        qkv_gradient[int(offsets[-1]) :] = 0
        return qkv_gradient

    def linear_backward(self, gradient: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of weights (m, k) and bias (m,), float32, given that (t, m) bf16 of ``states`` (t, k) times them.

        t, k and m are multiples of 32.
        """
        import torch

        _expect(len(gradient) == len(states), f"{len(gradient)} rows of gradients for {len(states)} of states")
        sizes = (*_in_blocks(gradient).shape, _in_blocks(states).shape[1])
        weights = torch.empty(sizes[1:])
        bias = weights.new_empty(len(weights))
        self._call("linear_backward", self._kind, gradient, states, weights, bias, *sizes)
        return weights, bias

    def gelu(self, states: torch.Tensor) -> torch.Tensor:
        """GELU with the error function (Hendrycks and Gimpel, 2016), bf16."""
        output = states.new_empty(states.shape)
        self._call("gelu", states, None, output, states.numel())
        return output

    def gelu_backward(self, states: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient of ``states``, bf16."""
        _expect(gradient.shape == states.shape, f"a gradient {tuple(gradient.shape)} for {tuple(states.shape)}")
        states_gradient = states.new_empty(states.shape)
        self._call("gelu", states, gradient, states_gradient, states.numel())
        return states_gradient

    def norm(
        self,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        epsilon: float,
        moments: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Layer norm (t, d) bf16 of ``states``.

        Args:
            weight: (d,) float32, and so is ``bias``.
            epsilon: added to the variance.
            moments: (t, 2) float32, where given, is filled with what the backward pass needs.
        """
        _expect(weight.shape == bias.shape == states.shape[1:], f"{len(weight)} weights for {tuple(states.shape)}")
        output = states.new_empty(states.shape)
        self._call("norm_forward", states, weight, bias, epsilon, output, moments, *states.shape)
        return output

    def norm_backward(
        self, states: torch.Tensor, weight: torch.Tensor, moments: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of ``states`` (t, d) bf16, and of weight and bias (2, d) float32."""
        _expect(gradient.shape == states.shape, f"a gradient {tuple(gradient.shape)} for {tuple(states.shape)}")
        states_gradient, weight_and_bias = states.new_empty(states.shape), weight.new_empty(2, len(weight))
        self._call("norm_backward", states, weight, moments, gradient, states_gradient, weight_and_bias, *states.shape)
        return states_gradient, weight_and_bias

    def lengths(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lengths (n, 2) of rows (n, d), and of what rounding to bf16 takes from them."""
        result = np.empty((len(rows), 2), dtype=np.float32)
        self._call("lengths", rows, *rows.shape, result)
        return result

    def scan(
        self,
        documents: NDArray[np.float32],
        queries: NDArray[np.float32],
        slack: NDArray[np.float32],
        own: NDArray[np.int64],
        *,
        depth: int,
        room: int,
    ) -> Candidates:
        """What can be among the best ``depth`` documents of each query, with their scores in float32.

        Args:
            documents: (m, d), with m more than ``depth``.
            queries: (n, d).
            slack: (n,) how far a score of vectors in bf16 can be from that of the exact ones.
            own: (n,) a document a query that is no candidate, or -1.
            depth: at least 1.
            room: candidates a query while the corpus is read, a multiple of 16 above ``depth`` + 16.
        """
        import torch

        (count, width), n = documents.shape, len(queries)
        padded, padded_width = (-(-size // BLOCK) * BLOCK for size in (n, width))
        rounded = torch.zeros(padded, padded_width, dtype=torch.bfloat16)
        rounded[:n, :width] = torch.from_numpy(np.array(queries))
        rows, scores = np.empty((padded, room), dtype=np.int32), np.empty((padded, room), dtype=np.float32)
        counts = np.empty(padded, dtype=np.int32)
        slack, own = np.pad(slack, (0, padded - n)), np.pad(own, (0, padded - n), constant_values=-1)
        numbers = (padded, depth, room)
        self._call("scan", self._kind, documents, count, width, rounded, slack, own, *numbers, rows, scores, counts)
        self._call("rescore", documents, count, width, queries, n, room, rows, counts, scores)
        return Candidates(rows[:n], scores[:n], counts[:n])

    def _attend(
        self, function: str, qkv: torch.Tensor, offsets: torch.Tensor, heads: int, *rest: torch.Tensor | None
    ) -> None:
        texts, (rows, width) = len(offsets) - 1, qkv.shape
        _expect(width % (3 * heads) == 0, f"{heads} heads for a width of {width}: three times the heads must divide it")
        _expect(int(offsets[-1]) <= rows, f"texts of {int(offsets[-1])} tokens in {rows} rows")
        depth = width // 3 // heads
        self._call(function, self._kind, qkv, offsets, texts, heads, depth, *rest)

    def _call(self, function: str, *values: torch.Tensor | NDArray[Any] | float | None) -> None:
        arguments = [_as_c(code, value) for code, value in zip(ARGUMENTS[function], values, strict=True)]
        if getattr(self._library, function)(*arguments):
            raise MemoryError(f"no memory for {function}")


def _expect(condition: bool, given: str) -> None:
    if not condition:
        raise ValueError(f"the kernels were given {given}")


def _in_blocks(matrix: torch.Tensor) -> torch.Tensor:
    if any(size % BLOCK for size in matrix.shape):
        raise ValueError(f"the products' sides are multiples of {BLOCK}, not {tuple(matrix.shape)}")
    return matrix


def _as_c(code: str, value: torch.Tensor | NDArray[Any] | float | None) -> Any:
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, (int, float, np.integer)):
        return NUMBERS[code](value)
    if (dtype := str(value.dtype).removeprefix("torch.")) != ARRAYS[code]:
        raise ValueError(f"the kernels read {ARRAYS[code]} here, not {dtype}")
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise ValueError(f"the kernels read contiguous arrays, not {value.strides}")
        return ctypes.c_void_p(value.ctypes.data)
    if value.device.type != "cpu" or not value.is_contiguous():
        raise ValueError(f"the kernels read contiguous tensors on the CPU, not {value.stride()} on {value.device}")
    return ctypes.c_void_p(value.data_ptr())
