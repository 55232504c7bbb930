"""Vectors that were computed once: on disk, by what computed them and by text.

A folder holds the vectors of one identity (weights, prompt, length, precision, normalisation):
``vectors.f32``, one row a text, read through a memory map, ``keys.bin``, a 16-byte hash of each
text, and ``checksums.u32``, the CRC-32 of each text's key and vector. Rows are appended, keys last, so what a
killed process leaves half-written is cut off by the next one; what cannot be read, and each vector whose
checksum is another one, is computed again. When the whole cache outgrows its limit,
identities that were not used for longest go. A folder is changed under its lock, which lies beside all
folders, and a file is never shortened below what a reader may have mapped: it goes, and another comes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.cache_folders import (
    CHECKSUMS,
    KEY_BYTES,
    KEYS,
    META,
    VECTORS,
    Meta,
    cached_models,
    last_used,
    limit_bytes,
    locked,
    touch,
    vectors_home,
)
from ranksaga.files import clear_parts, remove
from ranksaga.profile import timed

__all__ = ["VectorCache"]

logger = logging.getLogger(__name__)

NO_KEY = bytes(KEY_BYTES)  # of a row that is no text's


class _Index:
    """Rows by key, in sorted runs that get shorter from one to the next.

    A new run takes in those before it that are no longer than itself (the logarithmic method, Bentley and Saxe 1980):
    of n keys that are added bit by bit, each is sorted O(log n) times, and a look-up searches O(log n) runs.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Keys (n, 2) of the next n rows."""
        rows = np.arange(self._length, self._length + len(keys))
        self._length += len(keys)
        while self._runs and len(self._runs[-1][1]) <= len(rows):
            other_keys, other_rows = self._runs.pop()
            keys, rows = np.concatenate([other_keys, keys]), np.concatenate([other_rows, rows])
        order = np.argsort(keys[:, 0], kind="stable")
        self._runs.append((keys[order], rows[order]))

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each key (n, 2), -1 for those that are not there."""
        result = np.full(len(keys), -1, dtype=np.int64)
        for run_keys, run_rows in self._runs:
            # The first and the last of those that share 8 bytes: a damaged key must not hide the right one. What lies
            # between them counts as not there, which costs time and no truth.
            first = np.minimum(np.searchsorted(run_keys[:, 0], keys[:, 0]), len(run_rows) - 1)
            equal = (run_keys[first] == keys).all(axis=1)
            result[equal] = run_rows[first[equal]]
            others = np.flatnonzero((run_keys[first, 0] == keys[:, 0]) & ~equal)
            last = np.searchsorted(run_keys[:, 0], keys[others, 0], side="right") - 1
            equal = (run_keys[last] == keys[others]).all(axis=1)
            result[others[equal]] = run_rows[last[equal]]
        return result


class VectorCache:
    """Vectors (float32) of one identity. Several threads and processes may use it at once.

    An open cache knows the keys on disk and reads only those that were added since, by itself or by another process:
    keep it open over many calls, and each key is read once.

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
        self._root = root or vectors_home()
        self._folder = self._root / identity
        self._limit = limit_bytes() if limit is None else limit
        self._label = label
        self._dimension = dimension
        self._made = ""
        self._index = _Index()
        self._vectors: NDArray[np.float32] | None = None
        self._checksums: NDArray[np.uint32] | None = None
        self._thread_lock = threading.Lock()

    @timed("cache")
    def lookup(self, texts: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which texts (n,) the cache holds, and the vectors (m, d) of these, in their order."""
        with self._thread_lock:
            if self._limit > 0 and self._folder.is_dir():
                with self._unless_it_fails(), locked(self._root, self._folder.name):
                    self._refresh()
            keys = _keys_of(texts)
            rows = self._index.rows(keys) if len(self._index) and len(texts) else np.full(len(texts), -1)
            vectors, checksums = self._vectors, self._checksums
        if vectors is None or checksums is None:
            return rows >= 0, np.empty((0, self._dimension), dtype=np.float32)
        asked = np.flatnonzero(rows >= 0)
        read = np.asarray(vectors[rows[asked]])
        sound = _checksums_of(keys[asked], read) == checksums[rows[asked]]
        if not sound.all():
            self._drop(rows[asked[~sound]])
        known = np.zeros(len(texts), dtype=np.bool_)
        known[asked[sound]] = True
        return known, read if sound.all() else read[sound]

    def _drop(self, rows: NDArray[np.int64]) -> None:
        """Take the keys of damaged rows away, so that their texts count as unknown and are added again."""
        logger.warning("%s: %d damaged vectors are computed again", self._folder, len(rows))
        with self._thread_lock, self._unless_it_fails(), locked(self._root, self._folder.name):
            meta = Meta.of(self._folder)
            if meta is not None and meta.made == self._made:
                with (self._folder / KEYS).open("r+b") as stream:
                    for row in rows.tolist():
                        stream.seek(row * KEY_BYTES)
                        stream.write(NO_KEY)
            self._forget()

    @timed("cache")
    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep vectors (n, d) of texts that the cache lacks; those that appeared meanwhile are kept twice, unharmed.

        Where the disk is full or cannot be written to, they are not kept, nor are later ones.
        """
        with self._thread_lock:
            if self._limit <= 0 or not len(texts):
                return
            with self._unless_it_fails():
                with locked(self._root, self._folder.name):
                    self._append(_keys_of(texts), np.ascontiguousarray(vectors, dtype="<f4"))
                self._evict()

    def _append(self, keys: NDArray[np.uint64], vectors: NDArray[np.float32]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        meta = Meta.of(self._folder)
        if meta is None or meta.dimension != vectors.shape[1]:
            meta = Meta(int(vectors.shape[1]), self._label, uuid.uuid4().hex)
            self._begin(meta)
        _cut(self._folder, meta.dimension)
        checksums = _checksums_of(keys, vectors).astype("<u4")
        for name, content in ((VECTORS, vectors), (CHECKSUMS, checksums), (KEYS, keys)):
            with (self._folder / name).open("ab") as stream:
                stream.write(content.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
        self._load(meta)
        touch(self._folder)

    def _begin(self, meta: Meta) -> None:
        """Files of what nobody can read any more go before a new meta.json could vouch for them."""
        for name in (META, KEYS, CHECKSUMS, VECTORS):
            remove(self._folder / name)
        meta.write(self._folder)

    def _refresh(self) -> None:
        """Know what is on disk now; of files that cannot be believed, nothing. The first addition begins them anew."""
        clear_parts(self._folder, 0.0)  # the lock is held
        meta = Meta.of(self._folder)
        if meta is None or (self._dimension and meta.dimension != self._dimension):
            self._forget()
            return
        _cut(self._folder, meta.dimension)
        self._load(meta)
        touch(self._folder)

    def _load(self, meta: Meta) -> None:
        """Read the keys of rows that are new."""
        path = self._folder / KEYS
        rows = path.stat().st_size // KEY_BYTES if path.is_file() else 0
        if meta.made != self._made or len(self._index) > rows:  # the files began anew
            self._forget()
        self._made = meta.made
        known = len(self._index)
        if rows > known:
            self._index.append(np.fromfile(path, dtype="<u8", offset=known * KEY_BYTES).reshape(-1, 2))
            shape = (rows, meta.dimension)
            self._vectors = np.memmap(self._folder / VECTORS, dtype="<f4", mode="r", shape=shape)
            self._checksums = np.memmap(self._folder / CHECKSUMS, dtype="<u4", mode="r", shape=(rows,))

    def _forget(self) -> None:
        self._made, self._index, self._vectors, self._checksums = "", _Index(), None, None

    def _evict(self) -> None:
        """Remove identities that were not used for longest, until the cache is within its limit.

        Each goes under its own lock: what another process is writing to stays, and so does what it has used since the
        identities were listed. Who has read its keys keeps the vectors in its memory map.
        """
        models = cached_models(self._root)
        total = sum(model.size for model in models)
        for model in sorted(models, key=lambda model: model.last_used):
            if total <= self._limit or model.identity == self._folder.name:
                continue
            with locked(self._root, model.identity, wait=False) as held:
                folder = self._root / model.identity
                if held and folder.is_dir() and last_used(folder) == model.last_used:
                    remove(folder)
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
    """Cut off a torn end, so that all files have the same rows."""
    sizes = {folder / VECTORS: 4 * dimension, folder / CHECKSUMS: 4, folder / KEYS: KEY_BYTES}
    rows = min(path.stat().st_size // size if path.is_file() else 0 for path, size in sizes.items())
    for path, size in sizes.items():
        if rows == 0:
            remove(path)
        elif path.stat().st_size != rows * size:
            os.truncate(path, rows * size)


def _keys_of(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(n, 2) halves of a 16-byte hash of each text."""
    # Lone surrogates are no UTF-8, but texts of broken files may hold them.
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest() for text in texts
    )
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def _checksums_of(keys: NDArray[np.uint64], vectors: NDArray[np.float32]) -> NDArray[np.uint32]:
    """CRC-32 of each key (n, 2) with its vector (n, d): what lies in another's place is known, too."""
    if not len(keys):
        return np.empty(0, dtype=np.uint32)
    starts = keys.tobytes()
    rows = np.ascontiguousarray(vectors, dtype="<f4").data.cast("B")
    size = 4 * vectors.shape[1]
    checksums = (
        zlib.crc32(rows[row * size : (row + 1) * size], zlib.crc32(starts[row * KEY_BYTES : (row + 1) * KEY_BYTES]))
        for row in range(len(keys))
    )
    return np.fromiter(checksums, dtype=np.uint32, count=len(keys))
