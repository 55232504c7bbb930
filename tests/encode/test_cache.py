"""The cache of vectors: what comes back, what a torn write leaves, what goes when it is full."""

from __future__ import annotations

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
    import os

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
