"""Folders of the vector cache: what each says of itself, its lock and its last use, and what all of them hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ranksaga.files import cache_home, read_checked_json, remove, write_checked_json

__all__ = [
    "CHECKSUMS",
    "FORMAT",
    "KEYS",
    "KEY_BYTES",
    "META",
    "VECTORS",
    "CachedModel",
    "Meta",
    "cached_models",
    "clear_cache",
    "last_used",
    "limit_bytes",
    "locked",
    "results_home",
    "touch",
    "vectors_home",
]

KEY_BYTES = 16
FORMAT = 3  # 3: a checksum for each vector
LIMIT_GB = 20.0
META, VECTORS, KEYS, CHECKSUMS = "meta.json", "vectors.f32", "keys.bin", "checksums.u32"
LOCKS = ".locks"


@dataclass(frozen=True)
class CachedModel:
    """One identity in the cache: how many vectors, of how many dimensions, in how many bytes."""

    identity: str
    label: str
    texts: int
    dimension: int
    size: int
    last_used: float


@dataclass(frozen=True)
class Meta:
    """What a folder says of itself; ``made`` is another one each time the files begin anew."""

    dimension: int
    label: str
    made: str

    @classmethod
    def of(cls, folder: Path) -> Meta | None:
        """Read it; ``None`` where it is missing, damaged, or of another format."""
        stored = read_checked_json(folder / META)
        if stored is None or stored.get("format") != FORMAT:
            return None
        return cls(stored["dimension"], stored["label"], stored["made"])

    def write(self, folder: Path) -> None:
        """Write it."""
        values = {"format": FORMAT, "dimension": self.dimension, "label": self.label, "made": self.made}
        write_checked_json(folder / META, values)


def cached_models(root: Path | None = None) -> tuple[CachedModel, ...]:
    """What the cache holds, by identity; what is damaged has no dimension."""
    found = []
    for folder in sorted((root or vectors_home()).glob("[!.]*")):
        try:
            time_of_use = last_used(folder)
            sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        except OSError:  # another process has just removed it
            continue
        meta = Meta.of(folder) or Meta(0, "damaged, or of another release", "")
        texts = sizes.get(KEYS, 0) // KEY_BYTES
        size = sum(sizes.values())
        found.append(CachedModel(folder.name, meta.label, texts, meta.dimension, size, time_of_use))
    return tuple(found)


def clear_cache(root: Path | None = None) -> int:
    """Delete all cached vectors; the bytes that were freed."""
    models = cached_models(root)
    for model in models:
        with locked(root or vectors_home(), model.identity):
            remove((root or vectors_home()) / model.identity)
    if root is None:
        remove(results_home())
    return sum(model.size for model in models)


def results_home() -> Path:
    """Folder of evaluations that ``ranksaga benchmark`` made before; cleared with the vectors."""
    return cache_home() / "results"


def touch(folder: Path) -> None:
    """Note that an identity is used: one that is being read or written is not the first to go."""
    os.utime(folder / META, (time.time(), time.time()))


def last_used(folder: Path) -> float:
    """Seconds since the epoch. Raises ``OSError`` where the folder has gone."""
    return (folder / META if (folder / META).is_file() else folder).stat().st_mtime


@contextmanager
def locked(root: Path, identity: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an identity; gives whether it is held, which without ``wait`` it may not be."""
    from filelock import FileLock, Timeout

    (root / LOCKS).mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / LOCKS / f"{identity}.lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def vectors_home() -> Path:
    """Folder of all identities."""
    return cache_home() / "vectors"


def limit_bytes() -> float:
    """How large the cache may be: ``RANKSAGA_CACHE_GB``, else 20 GB."""
    try:
        return float(os.environ.get("RANKSAGA_CACHE_GB", LIMIT_GB)) * 1e9
    except ValueError:
        return LIMIT_GB * 1e9
