"""Vectors that were computed once: on disk, by what computed them and by text.

A folder holds the vectors of one identity (weights, prompt, length, precision, normalisation):
``vectors.f32``, one row a text, read through a memory map, and ``keys.bin``, a 16-byte hash of each
text. Rows are appended, vectors before keys, so what a killed process leaves half-written is cut off
by the next one; what cannot be read is computed again. When the whole cache outgrows its limit,
identities that were not used for longest go. A folder is changed under its lock, which lies beside all
folders, and a file is never shortened below what a reader may have mapped: it goes, and another comes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranksaga.files import cache_home, clear_parts, read_json_if_sound, remove, write_json
from ranksaga.profile import timed

__all__ = ["CachedModel", "VectorCache", "cached_models", "clear_cache", "results_home"]

logger = logging.getLogger(__name__)

KEY_BYTES = 16
FORMAT = 2
LIMIT_GB = 20.0
META, VECTORS, KEYS = "meta.json", "vectors.f32", "keys.bin"
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
class _Meta:
    """What a folder says of itself; ``made`` is another one each time the files begin anew."""

    dimension: int
    label: str
    made: str

    @classmethod
    def of(cls, folder: Path) -> _Meta | None:
        """Read it; ``None`` where it is missing, damaged, or of another format."""
        stored = read_json_if_sound(folder / META)
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            return None
        dimension, label, made = (stored.get(key) for key in ("dimension", "label", "made"))
        sound = isinstance(dimension, int) and dimension > 0 and isinstance(label, str) and isinstance(made, str)
        return cls(dimension, label, made) if sound else None  # type: ignore[arg-type]


class VectorCache:
    """Vectors (float32) of one identity.

    Args:
        identity: hash of all that changes a vector but the text.
        label: for people who look into the cache.
        root: folder of all identities; none: ``vectors`` in the cache folder (``RANKSAGA_HOME``).
        limit: bytes of the whole cache; none: ``RANKSAGA_CACHE_GB``, else 20 GB. 0 keeps nothing.
        dimension: length of a vector; rows of another are not believed. 0: not known.
    """

    def __init__(
        self, identity: str, label: str, root: Path | None = None, limit: float | None = None, dimension: int = 0
    ) -> None:
        self._root = root or _root()
        self._folder = self._root / identity
        self._limit = _limit() if limit is None else limit
        self._label = label
        self._dimension = dimension
        self._made = ""
        self._keys: NDArray[np.uint64] = np.empty((0, 2), dtype=np.uint64)
        self._added: list[NDArray[np.uint64]] = []  # of rows behind those of _keys, not sorted yet
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._vectors: NDArray[np.float32] | None = None
        if self._limit > 0 and self._folder.is_dir():
            with self._unless_it_fails(), _locked(self._root, identity):
                self._open()

    @timed("cache")
    def find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the texts in the cache, -1 for those it lacks."""
        self._sort()
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
        """Keep vectors (n, d) of texts that the cache lacks; those that appeared meanwhile are kept twice, unharmed.

        Where the disk is full or cannot be written to, they are not kept, nor are later ones.
        """
        if self._limit <= 0 or not len(texts):
            return
        with self._unless_it_fails():
            with _locked(self._root, self._folder.name):
                self._append(_keys_of(texts), np.ascontiguousarray(vectors, dtype="<f4"))
            self._evict()

    def _append(self, keys: NDArray[np.uint64], vectors: NDArray[np.float32]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        meta = _Meta.of(self._folder)
        if meta is None or meta.dimension != vectors.shape[1]:
            meta = _Meta(int(vectors.shape[1]), self._label, uuid.uuid4().hex)
            self._begin(meta)
        _cut(self._folder, meta.dimension)
        for name, content in ((VECTORS, vectors), (KEYS, keys)):
            with (self._folder / name).open("ab") as stream:
                stream.write(content.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
        self._load(meta)

    def _begin(self, meta: _Meta) -> None:
        """Files of what nobody can read any more go before a new meta.json could vouch for them."""
        for name in (META, KEYS, VECTORS):
            remove(self._folder / name)
        values = {"format": FORMAT, "dimension": meta.dimension, "label": meta.label, "made": meta.made}
        write_json(self._folder / META, values)

    def _open(self) -> None:
        clear_parts(self._folder)
        meta = _Meta.of(self._folder)
        if meta is None or (self._dimension and meta.dimension != self._dimension):
            return  # the first vectors that are added begin anew
        _cut(self._folder, meta.dimension)
        self._load(meta)
        os.utime(self._folder / META, (time.time(), time.time()))

    def _load(self, meta: _Meta) -> None:
        """Know the rows on disk: only those that are new, so that many additions cost no more than one."""
        path = self._folder / KEYS
        rows = path.stat().st_size // KEY_BYTES if path.is_file() else 0
        known = len(self._keys) + sum(map(len, self._added))
        if meta.made != self._made or known > rows:  # the files began anew
            self._keys, self._added, self._order, known = self._keys[:0], [], self._order[:0], 0
        self._made = meta.made
        self._vectors = None
        if rows:
            self._added.append(np.fromfile(path, dtype="<u8", offset=known * KEY_BYTES).reshape(-1, 2))
            shape = (rows, meta.dimension)
            self._vectors = np.memmap(self._folder / VECTORS, dtype="<f4", mode="r", shape=shape)

    def _sort(self) -> None:
        if self._added:
            self._keys = np.concatenate([self._keys, *self._added])
            self._added = []
            self._order = np.argsort(self._keys[:, 0], kind="stable")

    def _evict(self) -> None:
        models = cached_models(self._root)
        total = sum(model.size for model in models)
        for model in sorted(models, key=lambda one: one.last_used):
            if total <= self._limit or model.identity == self._folder.name:
                continue
            # What is being written to stays; who has read its keys keeps the vectors in its memory map.
            with _locked(self._root, model.identity, wait=False) as mine:
                if mine:
                    remove(self._root / model.identity)
                    total -= model.size

    @contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        """A cache that cannot be used costs time: no reason to end the work that it was to save."""
        try:
            yield
        except (OSError, NotImplementedError) as error:
            logger.warning("%s: vectors are not kept (%s)", self._folder, error)
            self._limit = 0


def _cut(folder: Path, dimension: int) -> None:
    """Cut off a torn end, so that both files have the same rows."""
    sizes = {folder / VECTORS: 4 * dimension, folder / KEYS: KEY_BYTES}
    rows = min(path.stat().st_size // size if path.is_file() else 0 for path, size in sizes.items())
    for path, size in sizes.items():
        if rows == 0:
            remove(path)
        elif path.stat().st_size != rows * size:
            os.truncate(path, rows * size)


@contextmanager
def _locked(root: Path, identity: str, *, wait: bool = True) -> Iterator[bool]:
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


def cached_models(root: Path | None = None) -> tuple[CachedModel, ...]:
    """What the cache holds, by identity; what is damaged has no dimension."""
    found = []
    for folder in sorted((root or _root()).glob("[!.]*")):
        try:
            status = (folder / META if (folder / META).is_file() else folder).stat()
            sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        except OSError:  # another process has just removed it
            continue
        meta = _Meta.of(folder) or _Meta(0, "damaged, or of another release", "")
        texts = sizes.get(KEYS, 0) // KEY_BYTES
        size = sum(sizes.values())
        found.append(CachedModel(folder.name, meta.label, texts, meta.dimension, size, status.st_mtime))
    return tuple(found)


def clear_cache(root: Path | None = None) -> int:
    """Delete all cached vectors; the bytes that were freed."""
    models = cached_models(root)
    for model in models:
        with _locked(root or _root(), model.identity):
            remove((root or _root()) / model.identity)
    if root is None:
        remove(results_home())
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
