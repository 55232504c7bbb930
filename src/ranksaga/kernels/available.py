"""Which compiled kernels run on this machine, and why.

``RANKSAGA_KERNELS`` decides: ``auto`` (the default) runs them where the processor has AVX-512 BF16; ``amx`` lets them
use AMX as well, which has been tested in an emulator only; ``off`` runs none.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ranksaga.errors import UsageError
from ranksaga.kernels.compiled import AMX, AVX512, KINDS, Kernels

__all__ = ["VARIABLE", "KernelChoice", "compiled_kernels", "kernel_choice"]

VARIABLE = "RANKSAGA_KERNELS"
MODES = ("auto", "amx", "off")


@dataclass(frozen=True)
class KernelChoice:
    """The kernels that run, ``None`` where none do, and the reason in words."""

    kernels: Kernels | None
    reason: str

    def __str__(self) -> str:
        return f"{'none' if self.kernels is None else self.kernels.name}: {self.reason}"


def compiled_kernels() -> Kernels | None:
    """The kernels that run on this machine; ``None`` where none do.

    Raises:
        UsageError: ``RANKSAGA_KERNELS`` has an unknown value.
    """
    return kernel_choice().kernels


def kernel_choice() -> KernelChoice:
    """The kernels that run on this machine, and why these.

    Raises:
        UsageError: ``RANKSAGA_KERNELS`` has an unknown value.
    """
    mode = os.environ.get(VARIABLE, "").strip().lower() or "auto"
    if mode not in MODES:
        raise UsageError(f"{VARIABLE}={os.environ[VARIABLE]}: there is no such mode; set it to {', '.join(MODES)}")
    return _choice(mode)


@cache
def _choice(mode: str) -> KernelChoice:
    if mode == "off":
        return KernelChoice(None, f"switched off by {VARIABLE}=off")
    try:
        library = _library()
    except OSError as error:
        return KernelChoice(None, f"the compiled file cannot be loaded ({error}); install the package again")
    if library is None:
        return KernelChoice(None, "not compiled; install a C compiler (gcc) and then the package again")
    best = int(library.kernels_kind())
    if best not in KINDS:
        return KernelChoice(None, "the processor has neither AVX-512 BF16 nor AMX")
    if mode == "amx":
        reason = f"asked for by {VARIABLE}=amx" if best == AMX else "the processor has no AMX"
        return KernelChoice(Kernels(library, best), reason)
    reason = "the processor has it"
    if best == AMX:
        reason += f"; AMX too, which is tested in an emulator only: {VARIABLE}=amx uses it"
    return KernelChoice(Kernels(library, AVX512), reason)


@cache
def _library() -> Any:
    """The compiled file; ``None`` where there is none."""
    import torch  # noqa: F401 - the kernels share torch's threads: they take the OpenMP library that is already loaded

    paths = [Path(__file__).with_name(f"_kernels{suffix}") for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.exists()), None)
    return None if path is None else ctypes.CDLL(str(path))
