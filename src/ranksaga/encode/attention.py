"""Attention on a GPU without the kernels that suit texts badly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["without_cudnn_attention"]


@contextmanager
def without_cudnn_attention(device: torch.device) -> Iterator[None]:
    """On a GPU, no attention by cuDNN: it plans every new shape anew, and few batches have the same one.

    PyTorch prefers it for half precision on a Hopper card. There a training step of 32 pairs took a second with it
    (docs/log/; PyTorch's pull request 155958 is about the same cost). The kernel that a pass
    takes forward is also the one of its backward pass. On a CPU nothing changes.
    """
    import torch

    flags: Any = torch.backends.cuda
    before = flags.cudnn_sdp_enabled()
    flags.enable_cudnn_sdp(before and device.type != "cuda")
    try:
        yield
    finally:
        flags.enable_cudnn_sdp(before)
