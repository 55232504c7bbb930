"""Copies between the CPU's memory and a GPU's that nobody waits for: through pinned memory, in the GPU's own order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["fetched", "sent"]


def sent(values: NDArray[Any] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """An array or a tensor of the CPU on a device; on the CPU the same memory."""
    import torch

    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensor: torch.Tensor) -> Callable[[], NDArray[Any]]:
    """Gives a tensor's values in the CPU's memory; the copy from a GPU is begun here, and waited for when called."""
    import torch

    if tensor.device.type != "cuda":
        here: NDArray[Any] = tensor.cpu().numpy()
        return lambda: here
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> NDArray[Any]:
        copied.synchronize()
        values: NDArray[Any] = host.numpy()
        return values

    return wait
