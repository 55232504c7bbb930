"""Arrays of a stage folder: rankings, vectors and values, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranksaga.files import atomic_open
from ranksaga.profile import timed
from ranksaga.retrieve.rankings import Rankings

__all__ = ["read_array", "read_rankings", "read_values", "write_array", "write_rankings", "write_values"]


@timed("read and write")
def write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write one array as ``.npy``."""
    with atomic_open(path, "wb") as stream:
        np.save(stream, array, allow_pickle=False)


def read_array(path: Path) -> NDArray[np.generic]:
    """Memory-map one array."""
    array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


@timed("read and write")
def write_rankings(path: Path, rankings: Rankings) -> None:
    """Write rankings as ``.npz``."""
    with atomic_open(path, "wb") as stream:
        np.savez(stream, queries=rankings.queries, documents=rankings.documents, scores=rankings.scores)


@timed("read and write")
def read_rankings(path: Path) -> Rankings:
    """Read rankings."""
    with np.load(path, allow_pickle=False) as stored:
        return Rankings(stored["queries"], stored["documents"], stored["scores"])


def write_values(path: Path, values: Mapping[str, NDArray[np.float64]]) -> None:
    """Write values a query, (n,) each, by metric as ``.npz``; their order is kept."""
    with atomic_open(path, "wb") as stream:
        np.savez(stream, **dict(values))  # type: ignore[arg-type]  # no metric is called allow_pickle


def read_values(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read them."""
    with np.load(path, allow_pickle=False) as stored:
        return {metric: stored[metric] for metric in stored.files}
