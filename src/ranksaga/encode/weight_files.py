"""Files of weights: what reads and writes safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ranksaga.errors import StageError
from ranksaga.files import atomic_open

if TYPE_CHECKING:
    import torch

__all__ = ["floating_dtype", "load_weights", "load_weights_and_metadata", "save_weights"]


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        StageError: the file is missing, cut or no safetensors file.
    """
    return load_weights_and_metadata(path)[0]


def load_weights_and_metadata(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file onto the CPU, and what its header says beside the tensors.

    Raises:
        StageError: the file is missing, cut or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
            return tensors, dict(stream.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise StageError(
            f"{path}: the weights cannot be read ({error}); delete the file and run the stage again"
        ) from error


def save_weights(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically. Tied weights are written once for each name."""
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        copied = tensor.detach().cpu().contiguous()
        storage = copied.untyped_storage()
        # A copy only of what shares its memory with another name, which the format refuses.
        if storage.data_ptr() in storages or storage.nbytes() != copied.nbytes:
            copied = copied.clone()
        storages.add(copied.untyped_storage().data_ptr())
        tensors[name] = copied
    with atomic_open(path, "wb") as stream:
        stream.write(save(tensors, dict(metadata or {})))


def floating_dtype(path: Path) -> str | None:
    """The type of a file's first tensor of floating numbers as safetensors names it (F32, BF16 ...); none: no such."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        for name in stream.keys():  # noqa: SIM118 - no mapping
            dtype = str(stream.get_slice(name).get_dtype())
            if dtype.startswith(("F", "BF")):
                return dtype
    return None
