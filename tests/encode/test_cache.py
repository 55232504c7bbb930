"""The cache of vectors: what comes back, what a torn write leaves, what goes when it is full."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ranksaga.encode.cache import VectorCache, cached_models, clear_cache

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
    rows = again.find(asked)
    assert (rows >= 0).tolist() == [True, False, True, True]
    np.testing.assert_array_equal(again.read(rows[rows >= 0]), VECTORS[[7, 0, 7]])


def test_identities_are_apart(tmp_path: Path) -> None:
    filled(tmp_path)
    assert (VectorCache("b", "label", tmp_path, 1e9).find(TEXTS) == -1).all()


@pytest.mark.parametrize(("name", "left"), [("vectors.f32", 7 * 16 + 5), ("keys.bin", 7 * 16 + 3), ("keys.bin", 0)])
def test_a_torn_end_is_cut_off_and_written_again(tmp_path: Path, name: str, left: int) -> None:
    filled(tmp_path)
    file = tmp_path / "a" / name
    file.write_bytes(file.read_bytes()[:left])
    again = VectorCache("a", "label", tmp_path, 1e9)
    rows = again.find(TEXTS)
    whole = left // 16
    assert (rows >= 0).sum() == whole
    missing = [text for text, row in zip(TEXTS, rows, strict=True) if row < 0]
    again.add(missing, VECTORS[rows < 0])
    np.testing.assert_array_equal(again.read(again.find(TEXTS)), VECTORS)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    for age, identity in enumerate(("new", "middle", "old")):
        filled(tmp_path, identity)
        os.utime(tmp_path / identity / "meta.json", (1e9 - age, 1e9 - age))
    one = cached_models(tmp_path)[0].size
    filled(tmp_path, "newest", limit=3.5 * one)
    assert {model.identity for model in cached_models(tmp_path)} == {"newest", "new", "middle"}


def test_a_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = filled(tmp_path, limit=0)
    assert (cache.find(TEXTS) == -1).all()
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
    rows = again.find(TEXTS)
    there = rows >= 0
    if known is not None:
        assert there.sum() == known
    if there.any():
        np.testing.assert_array_equal(again.read(rows[there]), VECTORS[there])
    again.add([text for text, have in zip(TEXTS, there, strict=True) if not have], VECTORS[~there])
    for cache in (again, VectorCache("a", "label", root, 1e9, dimension=4)):
        np.testing.assert_array_equal(cache.read(cache.find(TEXTS)), VECTORS)


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


@pytest.mark.parametrize("name", ["meta.json", "vectors.f32", "keys.bin"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\0" * 50, b"\xff" * 7])
def test_a_damaged_file_is_recovered_from(tmp_path: Path, name: str, content: bytes | None) -> None:
    filled(tmp_path)
    if name != "vectors.f32" or content is None or len(content) < 16:  # other vectors of equal size cannot be known
        damaged(tmp_path / "a", name, content)
    assert cached_models(tmp_path)[0].identity == "a"
    assert_works(tmp_path)


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
    np.testing.assert_array_equal(cache.read(cache.find(TEXTS[:4])), VECTORS[:4])
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
    np.testing.assert_array_equal(cache.read(cache.find(TEXTS)), VECTORS)


def test_a_reader_survives_what_another_evicts(tmp_path: Path) -> None:
    filled(tmp_path)
    reader = VectorCache("a", "label", tmp_path, 1e9)
    rows = reader.find(TEXTS)
    filled(tmp_path, "b", limit=1)
    assert [model.identity for model in cached_models(tmp_path)] == ["b"]
    np.testing.assert_array_equal(reader.read(rows), VECTORS)
    reader.add(TEXTS[:1], VECTORS[:1])  # begins anew
    assert (reader.find(TEXTS) >= 0).sum() == 1
    np.testing.assert_array_equal(reader.read(reader.find(TEXTS[:1])), VECTORS[:1])


def test_what_is_being_written_is_not_evicted(tmp_path: Path) -> None:
    filled(tmp_path)
    code = (
        "import sys; from pathlib import Path; from ranksaga.encode.cache import _locked\n"
        "with _locked(Path(sys.argv[1]), 'a'): print('held', flush=True); sys.stdin.read()"
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
