"""The store: work is done once, its marker comes last, unfinished work is done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ranksaga.run.store import Store


def test_work_is_done_once_and_by_its_inputs(tmp_path: Path) -> None:
    calls: list[Path] = []

    def work(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        (folder / "out.txt").write_text("x")
        return {"n": len(calls)}

    store = Store(tmp_path)
    first = store.work("train", "a", {"lr": 1}, work)
    again = store.work("train", "a", {"lr": 1}, work)
    other = store.work("train", "a", {"lr": 2}, work)
    assert len(calls) == 2
    assert first.folder == again.folder != other.folder
    assert again.summary == {"n": 1}
    assert [timing.reused for timing in store.timings] == [False, True, False]


def test_failed_work_leaves_no_marker_and_is_done_again_in_the_same_folder(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("x")
        raise ValueError("no")

    def finish(folder: Path) -> dict[str, Any]:
        assert (folder / "half.txt").is_file()
        return {}

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="no"):
        store.work("train", "a", {}, fail)
    assert not store.entry("train", "a", {}).done
    assert store.work("train", "a", {}, finish).done


def test_fresh_does_everything_again_from_nothing(tmp_path: Path) -> None:
    def work(folder: Path) -> dict[str, Any]:
        assert not (folder / "old.txt").exists()
        (folder / "old.txt").write_text("x")
        return {}

    Store(tmp_path).work("train", "a", {}, work)
    assert not Store(tmp_path, fresh=True).work("train", "a", {}, work).summary
