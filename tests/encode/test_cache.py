"""The cache of vectors: what comes back, what a torn write leaves, what goes when it is full."""

from __future__ import annotations

import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.encode.cache import VectorCache, _Index
from ranksaga.encode.cache_folders import CachedModel, cached_models, clear_cache, locked
from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.identity import software
from ranksaga.files import remove

MODELS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_models.py"))))

TEXTS = [f"text {number}" for number in range(10)]
VECTORS = np.arange(40, dtype=np.float32).reshape(10, 4)


def filled(root: Path, identity: str = "a", limit: float = 1e9) -> VectorCache:
    cache = VectorCache(identity, "label", root, limit)
    cache.add(TEXTS[:6], VECTORS[:6])
    cache.add(TEXTS[6:], VECTORS[6:])
    return cache


def test_what_was_added_is_found_by_text_in_any_order(tmp_path: Path) -> None:
    filled(tmp_path)
    again = VectorCache("a", "label", tmp_path, 1e9)
    asked = [TEXTS[7], "unknown", TEXTS[0], TEXTS[7]]
    known, vectors = again.lookup(asked)
    assert known.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(vectors, VECTORS[[7, 0, 7]])


def test_identities_are_apart(tmp_path: Path) -> None:
    filled(tmp_path)
    assert not VectorCache("b", "label", tmp_path, 1e9).lookup(TEXTS)[0].any()


@pytest.mark.parametrize(("name", "left"), [("vectors.f32", 7 * 16 + 5), ("keys.bin", 7 * 16 + 3), ("keys.bin", 0)])
def test_a_torn_end_is_cut_off_and_written_again(tmp_path: Path, name: str, left: int) -> None:
    filled(tmp_path)
    file = tmp_path / "a" / name
    file.write_bytes(file.read_bytes()[:left])
    again = VectorCache("a", "label", tmp_path, 1e9)
    known, _ = again.lookup(TEXTS)
    assert known.sum() == left // 16
    again.add([text for text, is_known in zip(TEXTS, known, strict=True) if not is_known], VECTORS[~known])
    np.testing.assert_array_equal(again.lookup(TEXTS)[1], VECTORS)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    for age, identity in enumerate(("new", "middle", "old")):
        filled(tmp_path, identity)
        os.utime(tmp_path / identity / "meta.json", (1e9 - age, 1e9 - age))
    one = cached_models(tmp_path)[0].size
    filled(tmp_path, "newest", limit=3.5 * one)
    assert {model.identity for model in cached_models(tmp_path)} == {"newest", "new", "middle"}


def test_a_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = filled(tmp_path, limit=0)
    assert not cache.lookup(TEXTS)[0].any()
    assert cached_models(tmp_path) == ()


def test_clearing_says_what_was_freed(tmp_path: Path) -> None:
    filled(tmp_path)
    (model,) = cached_models(tmp_path)
    assert (model.texts, model.dimension, model.label) == (10, 4, "label")
    assert clear_cache(tmp_path) == model.size
    assert cached_models(tmp_path) == ()


def damaged(folder: Path, name: str, content: bytes | None) -> None:
    """Give a file of an identity other bytes; none: it is lost."""
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)


def assert_works(root: Path, known: int | None = None) -> None:
    """Whatever an identity's folder holds: it opens, believes nothing wrong, and takes what it lacks."""
    again = VectorCache("a", "label", root, 1e9, dimension=4)
    there, vectors = again.lookup(TEXTS)
    if known is not None:
        assert there.sum() == known
    np.testing.assert_array_equal(vectors, VECTORS[there])
    again.add([text for text, have in zip(TEXTS, there, strict=True) if not have], VECTORS[~there])
    for cache in (again, VectorCache("a", "label", root, 1e9, dimension=4)):
        np.testing.assert_array_equal(cache.lookup(TEXTS)[1], VECTORS)


def test_any_prefix_of_what_is_written_is_recovered_from(tmp_path: Path) -> None:
    """Files are written in this order: a kill or a full disk leaves whole ones, a torn one, and none behind it."""
    filled(tmp_path)
    folder = tmp_path / "a"
    written = {name: (folder / name).read_bytes() for name in ("meta.json", "vectors.f32", "keys.bin")}
    for torn, name in enumerate(written):
        for size in (None, *range(0, len(written[name]), len(written[name]) // 9), len(written[name])):
            for place, (other, content) in enumerate(written.items()):
                (folder / other).unlink(missing_ok=True)
                if place < torn:
                    (folder / other).write_bytes(content)
            if size is not None:
                (folder / name).write_bytes(written[name][:size])
            assert_works(tmp_path, size // 16 if name == "keys.bin" and size is not None else 0)


@pytest.mark.parametrize("name", ["meta.json", "vectors.f32", "keys.bin", "checksums.u32"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\0" * 50, b"\xff" * 7])
def test_a_damaged_file_is_recovered_from(tmp_path: Path, name: str, content: bytes | None) -> None:
    filled(tmp_path)
    damaged(tmp_path / "a", name, content)
    assert cached_models(tmp_path)[0].identity == "a"
    assert_works(tmp_path)


@pytest.mark.parametrize("name", ["meta.json", "vectors.f32", "keys.bin", "checksums.u32"])
@pytest.mark.parametrize("how", ["flip", "lose", "insert", "zeros"])
def test_a_damaged_byte_anywhere_is_found(tmp_path: Path, name: str, how: str) -> None:
    """At each place in turn; what else is there is still known, and the damage costs its own rows alone."""
    filled(tmp_path)
    file = tmp_path / "a" / name
    whole = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    damages: dict[str, Callable[[bytes, int], bytes]] = {
        "flip": lambda content, place: content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :],
        "lose": lambda content, place: content[:place] + content[place + 1 :],
        "insert": lambda content, place: content[:place] + b"\1" + content[place:],
        "zeros": lambda content, place: content[:place] + bytes(min(32, len(content) - place)) + content[place + 32 :],
    }
    for place in range(0, len(whole[file]), 7):
        for path, content in whole.items():
            path.write_bytes(content)
        file.write_bytes(damages[how](whole[file], place))
        if how == "flip" and name != "meta.json":
            known, _ = VectorCache("a", "label", tmp_path, 1e9).lookup(TEXTS)
            assert known.sum() == 9
        assert_works(tmp_path)


def test_a_damaged_vector_is_said_once_and_kept_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, other = filled(tmp_path), VectorCache("a", "label", tmp_path, 1e9)
    assert other.lookup(TEXTS)[0].all()
    with (tmp_path / "a" / "vectors.f32").open("r+b") as stream:
        stream.seek(16 * 3)
        stream.write(np.float32(np.nan).tobytes())
    for cache in (first, other):  # both have its row in mind
        known, vectors = cache.lookup(TEXTS)
        assert np.flatnonzero(~known).tolist() == [3]
        np.testing.assert_array_equal(vectors, VECTORS[known])
    first.add(TEXTS[3:4], VECTORS[3:4])
    for cache in (first, other, VectorCache("a", "label", tmp_path, 1e9)):
        np.testing.assert_array_equal(cache.lookup(TEXTS)[1], VECTORS)
    assert caplog.text.count("1 damaged vectors are computed again") == 2
    assert cached_models(tmp_path)[0].texts == 11


def test_a_cache_that_is_deleted_meanwhile_begins_anew(tmp_path: Path) -> None:
    cache = filled(tmp_path / "home")
    remove(tmp_path / "home")
    known, vectors = cache.lookup(TEXTS)
    np.testing.assert_array_equal(vectors, VECTORS[known])
    cache.add(["another"], VECTORS[:1])
    known, vectors = cache.lookup([*TEXTS, "another"])
    np.testing.assert_array_equal(vectors, np.concatenate([VECTORS, VECTORS[:1]])[known])
    assert known[-1]
    remove(tmp_path / "home")
    assert_works(tmp_path / "home", 0)


EVICTING = """
import logging, sys
from pathlib import Path
import numpy as np
from ranksaga.encode.cache import VectorCache
logging.basicConfig(level=logging.WARNING)
for number in range(100):
    cache = VectorCache(f"{sys.argv[2]}{number % 7}", "", Path(sys.argv[1]), 4000)
    texts = [f"{number} {row}" for row in range(20)]
    vectors = np.full((20, 4), number, dtype=np.float32)
    cache.add(texts, vectors)
    known, found = cache.lookup(texts)
    assert (found == number).all() and len(found) == known.sum()
"""


@pytest.mark.slow
def test_processes_that_evict_each_others_vectors_fail_at_nothing(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", EVICTING, str(tmp_path), name] for name in ("a", "a", "b")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert [process.returncode for process in processes] == [0] * 3


@pytest.mark.parametrize("values", [{"dimension": 3}, {"dimension": 0}, {"dimension": "4"}, {"format": 1}, {"made": 1}])
def test_another_meta_is_not_believed(tmp_path: Path, values: dict[str, object]) -> None:
    filled(tmp_path)
    meta = tmp_path / "a" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **values}))
    assert_works(tmp_path, 0)


def test_a_full_disk_costs_the_cache_and_not_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = VectorCache("a", "label", tmp_path, 1e9)
    cache.add(TEXTS[:4], VECTORS[:4])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr("ranksaga.encode.cache.os.fsync", full)
        cache.add(TEXTS[4:], VECTORS[4:])
    assert "No space left" in caplog.text
    np.testing.assert_array_equal(cache.lookup(TEXTS[:4])[1], VECTORS[:4])
    assert_works(tmp_path, 4)


def test_an_addition_reads_its_own_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    fromfile = np.fromfile

    def counted(*arguments: object, **options: object) -> object:
        found = fromfile(*arguments, **options)  # type: ignore[call-overload]
        read.append(len(found) // 2)
        return found

    monkeypatch.setattr("ranksaga.encode.cache.np.fromfile", counted)
    cache, other = (VectorCache("a", "label", tmp_path, 1e9) for _ in range(2))
    cache.add(TEXTS[:3], VECTORS[:3])
    cache.add(TEXTS[3:5], VECTORS[3:5])
    other.add(TEXTS[5:8], VECTORS[5:8])  # with those that another wrote meanwhile
    cache.add(TEXTS[8:], VECTORS[8:])
    assert read == [3, 2, 8, 5]
    np.testing.assert_array_equal(cache.lookup(TEXTS)[1], VECTORS)


def test_a_corpus_in_many_chunks_costs_linear_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are read and sorted while n chunks are looked up and added, as an encoder does block by block."""
    work = {"read": 0, "sorted": 0}
    fromfile, argsort = np.fromfile, np.argsort

    def counted_read(*arguments: object, **options: object) -> object:
        keys = fromfile(*arguments, **options)  # type: ignore[call-overload]
        work["read"] += len(keys) // 2
        return keys

    def counted_sort(keys: NDArray[np.uint64], **options: Any) -> object:
        work["sorted"] += len(keys)
        return argsort(keys, **options)

    monkeypatch.setattr("ranksaga.encode.cache.np.fromfile", counted_read)
    monkeypatch.setattr("ranksaga.encode.cache.np.argsort", counted_sort)
    chunk, vectors = 5, np.zeros((5, 4), dtype=np.float32)
    cache = VectorCache("a", "label", tmp_path, 1e9)
    for chunks in (32, 64):  # 32 chunks, then 32 more
        for number in range(chunks - 32, chunks):
            texts = [f"text {number} {row}" for row in range(chunk)]
            assert not cache.lookup(texts)[0].any()
            cache.add(texts, vectors)
        assert work["read"] == chunks * chunk
        # Powers of two: each key is sorted once in a run of each size.
        assert work["sorted"] == chunks * chunk // 2 * int(np.log2(chunks)) + chunks * chunk
    assert cache.lookup([f"text {number} {row}" for number in range(64) for row in range(chunk)])[0].all()


def test_an_encoder_reads_each_key_once_however_many_blocks_it_encodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    read: list[int] = []
    fromfile = np.fromfile

    def counted(*arguments: object, **options: object) -> object:
        keys = fromfile(*arguments, **options)  # type: ignore[call-overload]
        read.append(len(keys) // 2)
        return keys

    monkeypatch.setattr("ranksaga.encode.cache.np.fromfile", counted)
    encoder = load_encoder(str(MODELS.save_tiny(tmp_path / "model")), precision="fp32", cached=True)
    blocks = [[f"word {block} {row}" for row in range(3)] for block in range(8)]
    first = [encoder.encode_documents(block) for block in blocks]
    assert sum(read) == 24
    again = [encoder.encode_documents(block) for block in blocks]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    assert sum(read) == 24


def test_threads_share_one_open_cache(tmp_path: Path) -> None:
    cache = VectorCache("a", "label", tmp_path, 1e9)

    def work(number: int) -> bool:
        texts = [f"text {number} {row}" for row in range(20)]
        vectors = (number + np.arange(20)[:, None] / 32 + np.zeros((1, 4))).astype(np.float32)
        cache.add(texts, vectors)
        known, found = cache.lookup(texts)
        return bool(known.all()) and np.array_equal(found, vectors)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(40)))
    assert cached_models(tmp_path)[0].texts == 800


def test_what_goes_is_locked_while_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    held: list[bool] = []

    def watched(path: Path) -> None:
        if path == tmp_path / "a":
            with locked(tmp_path, "a", wait=False) as free:
                held.append(not free)
        remove(path)

    monkeypatch.setattr("ranksaga.encode.cache.remove", watched)
    filled(tmp_path, "b", limit=1)
    assert held == [True]
    assert [model.identity for model in cached_models(tmp_path)] == ["b"]


def test_what_was_used_since_the_list_was_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    os.utime(tmp_path / "a" / "meta.json", (1e9, 1e9))

    def listed(root: Path) -> tuple[CachedModel, ...]:
        models = cached_models(root)
        assert VectorCache("a", "label", tmp_path, 1e9).lookup(TEXTS)[0].all()  # another process, just now
        return models

    monkeypatch.setattr("ranksaga.encode.cache.cached_models", listed)
    cache = VectorCache("b", "label", tmp_path, 1)
    cache.add(TEXTS, VECTORS)
    assert {model.identity for model in cached_models(tmp_path)} == {"a", "b"}


@pytest.mark.parametrize("use", ["lookup", "add"])
def test_every_use_is_noted(tmp_path: Path, use: str) -> None:
    cache = filled(tmp_path)
    os.utime(tmp_path / "a" / "meta.json", (1e9, 1e9))
    cache.lookup(TEXTS) if use == "lookup" else cache.add(["another"], VECTORS[:1])
    assert cached_models(tmp_path)[0].last_used > 1e9 + 1


def test_a_reader_survives_what_another_evicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    reader = VectorCache("a", "label", tmp_path, 1e9)
    rows_of = _Index.rows

    def evicted_meanwhile(index: _Index, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        rows = rows_of(index, keys)
        remove(tmp_path / "a")
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(_Index, "rows", evicted_meanwhile)
        np.testing.assert_array_equal(reader.lookup(TEXTS)[1], VECTORS)
    assert cached_models(tmp_path) == ()
    np.testing.assert_array_equal(reader.lookup(TEXTS)[1], VECTORS)
    reader.add(TEXTS[:1], VECTORS[:1])  # begins anew
    known, vectors = reader.lookup(TEXTS)
    assert known.tolist() == [True] + [False] * 9
    np.testing.assert_array_equal(vectors, VECTORS[:1])


def test_what_is_being_written_is_not_evicted(tmp_path: Path) -> None:
    filled(tmp_path)
    code = (
        "import sys; from pathlib import Path; from ranksaga.encode.cache_folders import locked\n"
        "with locked(Path(sys.argv[1]), 'a'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        filled(tmp_path, "b", limit=1)
        assert {model.identity for model in cached_models(tmp_path)} == {"a", "b"}
        writer.kill()
    filled(tmp_path, "b", limit=1)  # the lock of a killed process is free
    assert {model.identity for model in cached_models(tmp_path)} == {"b"}


def test_vectors_of_another_release_of_torch_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bits differ, so neither vectors nor what is measured with them may be mixed; a build is no release."""
    name = str(MODELS.save_tiny(tmp_path / "model"))
    now = load_encoder(name, precision="fp32")
    version = metadata.version

    def identities(release: str) -> tuple[str, str]:
        def other(package: str) -> str:
            return release if package == "torch" else version(package)

        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", other)
            software.cache_clear()
            encoder = load_encoder(name, precision="fp32")
            found = encoder.spec.identity, encoder.document_identity
        software.cache_clear()
        return found

    same = version("torch").split("+")[0]
    assert identities(f"{same}+cu999") == (now.spec.identity, now.document_identity)
    assert not set(identities("99.0")) & {now.spec.identity, now.document_identity}
