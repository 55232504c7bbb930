"""Vectors that were computed once: on disk, by what computed them and by text.

A folder holds the vectors of one identity (weights, prompt, length, precision, normalisation):
``vectors.f32``, one row a text, read through a memory map, and ``keys.bin``, a 16-byte hash of each
text. Rows are appended, vectors before keys, so what a killed process leaves half-written is cut off
by the next one. When the whole cache outgrows its limit, identities that were not used for longest go.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranksaga.files import cache_home, read_json, write_json
from ranksaga.profile import timed

__all__ = ["CachedModel", "VectorCache", "cached_models", "clear_cache", "results_home"]

KEY_BYTES = 16
FORMAT = 1
LIMIT_GB = 20.0


@dataclass(frozen=True)
class CachedModel:
    """One identity in the cache: how many vectors, of how many dimensions, in how many bytes."""

    identity: str
    label: str
    texts: int
    dimension: int
    size: int
    last_used: float


class VectorCache:
    """Vectors (float32) of one identity.

    Args:
        identity: hash of all that changes a vector but the text.
        label: for people who look into the cache.
        root: folder of all identities; none: ``vectors`` in the cache folder (``RANKSAGA_HOME``).
        limit: bytes of the whole cache; none: ``RANKSAGA_CACHE_GB``, else 20 GB. 0 keeps nothing.
    """

    def __init__(self, identity: str, label: str, root: Path | None = None, limit: float | None = None) -> None:
        self._root = root or _root()
        self._folder = self._root / identity
        self._limit = _limit() if limit is None else limit
        self._label = label
        self._keys: NDArray[np.uint64] = np.empty((0, 2), dtype=np.uint64)
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._vectors: NDArray[np.float32] | None = None
        if self._limit > 0:
            self._open()

    @timed("cache")
    def find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the texts in the cache, -1 for those it lacks."""
        if not len(self._keys) or not len(texts):
            return np.full(len(texts), -1, dtype=np.int64)
        keys = _keys_of(texts)
        firsts = self._keys[self._order, 0]
        places = np.minimum(np.searchsorted(firsts, keys[:, 0]), len(firsts) - 1)
        rows = self._order[places]
        # Two texts whose first 8 bytes collide: one of them counts as not there, which costs time and no truth.
        found: NDArray[np.int64] = np.where((self._keys[rows] == keys).all(axis=1), rows, -1)
        return found

    @timed("cache")
    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (n, d) of rows that :meth:`find` gave."""
        assert self._vectors is not None
        return np.asarray(self._vectors[rows])

    @timed("cache")
    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep vectors (n, d) of texts that the cache lacks; those that appeared meanwhile are kept twice, unharmed."""
        if self._limit <= 0 or not len(texts):
            return
        from filelock import FileLock

        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / "lock"):
            if not (self._folder / "meta.json").is_file():
                values = {"format": FORMAT, "dimension": int(vectors.shape[1]), "label": self._label}
                write_json(self._folder / "meta.json", values)
            kept = self._cut()
            for name, content in (
                ("vectors.f32", np.ascontiguousarray(vectors, dtype="<f4")),
                ("keys.bin", _keys_of(texts)),
            ):
                with (self._folder / name).open("r+b" if kept else "wb") as stream:
                    stream.seek(0, os.SEEK_END)
                    stream.write(content.tobytes())
                    stream.flush()
                    os.fsync(stream.fileno())
        self._load()
        self._evict()

    def _open(self) -> None:
        if (self._folder / "meta.json").is_file():
            from filelock import FileLock

            with FileLock(self._folder / "lock"):
                self._cut()
            self._load()
            os.utime(self._folder / "meta.json", (time.time(), time.time()))

    def _cut(self) -> int:
        """Cut off a torn end; the number of whole rows."""
        dimension = int(read_json(self._folder / "meta.json")["dimension"])
        sizes = {"vectors.f32": 4 * dimension, "keys.bin": KEY_BYTES}
        paths = {name: self._folder / name for name in sizes}
        rows = min(path.stat().st_size // sizes[name] if path.is_file() else 0 for name, path in paths.items())
        for name, path in paths.items():
            if path.is_file() and path.stat().st_size != rows * sizes[name]:
                os.truncate(path, rows * sizes[name])
        return rows

    def _load(self) -> None:
        dimension = int(read_json(self._folder / "meta.json")["dimension"])
        self._keys = np.fromfile(self._folder / "keys.bin", dtype="<u8").reshape(-1, 2)
        self._order = np.argsort(self._keys[:, 0], kind="stable")
        self._vectors = (
            np.memmap(self._folder / "vectors.f32", dtype="<f4", mode="r", shape=(len(self._keys), dimension))
            if len(self._keys)
            else None
        )

    def _evict(self) -> None:
        models = cached_models(self._root)
        total = sum(model.size for model in models)
        for model in sorted(models, key=lambda one: one.last_used):
            if total <= self._limit or model.identity == self._folder.name:
                continue
            shutil.rmtree(self._root / model.identity, ignore_errors=True)
            total -= model.size


def cached_models(root: Path | None = None) -> tuple[CachedModel, ...]:
    """What the cache holds, by identity."""
    found = []
    for meta in sorted((root or _root()).glob("*/meta.json")):
        values = read_json(meta)
        size = sum(path.stat().st_size for path in meta.parent.iterdir() if path.is_file())
        keys = meta.parent / "keys.bin"
        texts = keys.stat().st_size // KEY_BYTES if keys.is_file() else 0
        found.append(
            CachedModel(meta.parent.name, values["label"], texts, values["dimension"], size, meta.stat().st_mtime)
        )
    return tuple(found)


def clear_cache(root: Path | None = None) -> int:
    """Delete all cached vectors; the bytes that were freed."""
    models = cached_models(root)
    for model in models:
        shutil.rmtree((root or _root()) / model.identity, ignore_errors=True)
    if root is None:
        shutil.rmtree(results_home(), ignore_errors=True)
    return sum(model.size for model in models)


def results_home() -> Path:
    """Folder of evaluations that ``ranksaga benchmark`` made before; cleared with the vectors."""
    return cache_home() / "results"


def _keys_of(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(n, 2) halves of a 16-byte hash of each text."""
    # Lone surrogates are no UTF-8, but texts of broken files may hold them.
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest() for text in texts
    )
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def _root() -> Path:
    return cache_home() / "vectors"


def _limit() -> float:
    try:
        return float(os.environ.get("RANKSAGA_CACHE_GB", LIMIT_GB)) * 1e9
    except ValueError:
        return LIMIT_GB * 1e9
