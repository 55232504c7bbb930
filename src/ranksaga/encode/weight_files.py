"""Files of weights: what reads and writes safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ranksaga.errors import StageError
from ranksaga.files import atomic_open

if TYPE_CHECKING:
    import torch

__all__ = ["floating_dtype", "load_weights", "load_weights_and_metadata", "save_weights"]


CHECKSUM = "checksum"  # key of the header that tells whether tensors and metadata are as they were written


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file that :func:`save_weights` wrote onto the CPU.

    Raises:
        StageError: the file is missing, cut, no safetensors file, or not as it was written.
    """
    return load_weights_and_metadata(path)[0]


def load_weights_and_metadata(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read such a file onto the CPU, and what its header says beside the tensors.

    Raises:
        StageError: the file is missing, cut, no safetensors file, or not as it was written.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
            metadata = dict(stream.metadata() or {})
    except Exception as error:  # of a damaged header safetensors and torch raise what they like
        raise _unreadable(path, error) from error
    if metadata.pop(CHECKSUM, None) != _checksum(tensors, metadata):
        raise _unreadable(path, "its content is not what was written")
    return tensors, metadata


def save_weights(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically, with a checksum. Tied weights are written once for each name."""
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
    content = dict(metadata or {})
    with atomic_open(path, "wb") as stream:
        stream.write(save(tensors, {**content, CHECKSUM: _checksum(tensors, content)}))


def _checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes of all tensors, and of the metadata; 64 hex digits."""
    import torch

    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unreadable(path: Path, cause: object) -> StageError:
    return StageError(f"{path}: the weights cannot be read ({cause}); delete the file and run the stage again")


def floating_dtype(path: Path) -> str | None:
    """The type of a file's first tensor of floating numbers as safetensors names it (F32, BF16 ...); none: no such."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        for name in stream.keys():  # noqa: SIM118 - no mapping
            dtype = str(stream.get_slice(name).get_dtype())
            if dtype.startswith(("F", "BF")):
                return dtype
    return None
