"""Which floating-point format is really faster on this device: its instructions say so, or a probe."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from statistics import median
from time import perf_counter

from ranksaga.kernels.available import compiled_kernels

__all__ = ["choose_precision", "matmul_rate"]

# Times that bf16 must be as fast as fp32 to be chosen, and how often the two are held against each other.
ENOUGH, ROUNDS = 1.5, 7
# Compute capability from which NVIDIA's tensor cores know bf16 (Ampere); those before know fp16 (Volta, Turing).
BF16_SINCE, FP16_SINCE = (8, 0), (7, 0)


@cache
def matmul_rate(device: str, precision: str) -> float:
    """Measured matrix-product rate in FLOP/s (best of several short runs on square operands)."""
    seconds, size = _timer(device, precision)
    return 2.0 * size**3 / min(seconds() for _ in range(4))


def choose_precision(wanted: str, device: str) -> str:
    """``auto`` becomes bf16 where its matrix products are at least 1.5 times as fast as fp32, else fp32.

    The answer enters the identity of every vector, so it must not change from run to run with what else the machine
    does: where the processor has instructions for bf16, or is known to have none, that settles it, elsewhere the two
    are timed in turn. Of a GPU its generation settles it: bf16 since Ampere, fp16 on Volta and Turing (V100, T4), fp32
    before.
    """
    if wanted != "auto":
        return wanted
    kind = device.split(":")[0]
    if kind == "cuda":
        return _of_gpu(device)
    if kind != "cpu":
        return "fp32"
    if compiled_kernels() is not None:
        return "bf16"
    if _lacks_bf16():
        return "fp32"
    return "bf16" if _gain(device) > ENOUGH else "fp32"


def _lacks_bf16() -> bool:
    """Whether the processor is known to have no instructions for bf16: then a probe would take half a minute."""
    import torch

    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


def _of_gpu(device: str) -> str:
    import torch

    capability = torch.cuda.get_device_capability(device)
    return "bf16" if capability >= BF16_SINCE else "fp16" if capability >= FP16_SINCE else "fp32"


@cache
def _gain(device: str) -> float:
    """Times that bf16 is as fast as fp32: the median of several pairs, so that a pause in one counts little."""
    (plain, _), (half, _) = _timer(device, "fp32"), _timer(device, "bf16")
    return median(plain() / half() for _ in range(ROUNDS))


def _timer(device: str, precision: str) -> tuple[Callable[[], float], int]:
    """What gives the seconds of one matrix product, and the side of its operands."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    generator = torch.Generator().manual_seed(0)
    size = 1024 if device == "cpu" else 8192
    left = torch.randn(size, size, generator=generator).to(device, dtype)
    right = torch.randn(size, size, generator=generator).to(device, dtype)

    def seconds() -> float:
        start = perf_counter()
        product = left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        del product
        return perf_counter() - start

    seconds()  # the first one makes ready what all need
    return seconds, size
