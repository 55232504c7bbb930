"""Which floating-point format is really faster on this device: probed, not assumed."""

from __future__ import annotations

from functools import cache
from time import perf_counter

__all__ = ["choose_precision", "matmul_rate"]


@cache
def matmul_rate(device: str, precision: str) -> float:
    """Measured matrix-product rate in FLOP/s (best of several short runs on 1024 x 1024 operands)."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    generator = torch.Generator().manual_seed(0)
    size = 1024 if device == "cpu" else 8192
    left = torch.randn(size, size, generator=generator).to(device, dtype)
    right = torch.randn(size, size, generator=generator).to(device, dtype)
    best = float("inf")
    for _ in range(4):
        start = perf_counter()
        product = left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        del product
        best = min(best, perf_counter() - start)
    return 2.0 * size**3 / best


def choose_precision(wanted: str, device: str) -> str:
    """``auto`` becomes bf16 where its matrix products are at least 1.5 times as fast as fp32, else fp32."""
    if wanted != "auto":
        return wanted
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda"):
        return "fp32"
    return "bf16" if matmul_rate(device, "bf16") > 1.5 * matmul_rate(device, "fp32") else "fp32"
