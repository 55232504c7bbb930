"""The C library's memory: kept between the passes of a model, given back after them."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

__all__ = ["keep_memory", "return_memory"]

# Of mallopt(3). Larger pieces are the system's again as soon as they are freed; of smaller ones, this much is kept.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE, KEPT = (256 << 20, 32 << 20), 1 << 30  # older versions of glibc take no more than 32 MiB


@cache
def keep_memory() -> None:
    """Let this process keep what its tensors free, for the next ones.

    glibc gives large pieces back to the system at once, and a transformer's pass on a CPU asks for them again: up to
    85,000 pages that the system fills with zeros in each training step of MiniLM, 2 to 12% of its time (docs/log/).
    Where the C library is another one, or its settings are the user's (``MALLOC_...``, ``GLIBC_TUNABLES``), nothing is
    done.
    """
    library = _glibc()
    # The second setting alone would be worse than none: it ends glibc's own adjusting of the first.
    if library is not None and any(library.mallopt(M_MMAP_THRESHOLD, size) for size in LARGE):
        library.mallopt(M_TRIM_THRESHOLD, KEPT)


def return_memory() -> None:
    """Give back to the system what is free and was kept, likewise."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library, or ``None`` where it lacks these two functions or obeys the user's own settings."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return None
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
