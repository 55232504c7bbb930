"""Which attention kernels a GPU computes a transformer with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["kernels_of_any_shape"]


@contextmanager
def kernels_of_any_shape(device: torch.device) -> Iterator[None]:
    """Without cuDNN's attention, which plans every new shape anew; batches of texts differ in shape nearly always.

    PyTorch prefers it for half precision on a Hopper card. There a training step of 32 pairs took a second with it,
    nearly all of it spent on plans (docs/log/; PyTorch's pull request 155958 says the same). The kernel that a pass
    takes forward is also the one of its backward pass. On a CPU nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield
