"""The store: work is done once, its marker comes last, unfinished work is done again."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ranksaga.files import write_checked_json
from ranksaga.run.stage import Inputs
from ranksaga.run.stages import TRAIN
from ranksaga.run.store import Entry, NotDone, Store, Survey


@dataclass(frozen=True)
class Given(Inputs):
    STAGE = TRAIN
    VERSION = 1

    number: int = 0


def test_work_is_done_once_and_by_its_inputs(tmp_path: Path) -> None:
    calls: list[Path] = []

    def work(_: Given, folder: Path) -> dict[str, Any]:
        calls.append(folder)
        (folder / "out.txt").write_text("x")
        return {"n": len(calls)}

    store = Store(tmp_path)
    first = store.work("a", Given(1), work)
    again = store.work("a", Given(1), work)
    other = store.work("a", Given(2), work)
    assert len(calls) == 2
    assert first.folder == again.folder != other.folder
    assert again.summary == {"n": 1}
    assert [timing.reused for timing in store.timings] == [False, True, False]


def test_failed_work_leaves_no_marker_and_is_done_again_in_the_same_folder(tmp_path: Path) -> None:
    def fail(_: Given, folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("x")
        raise ValueError("no")

    def finish(_: Given, folder: Path) -> dict[str, Any]:
        assert (folder / "half.txt").is_file()
        return {}

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="no"):
        store.work("a", Given(), fail)
    assert not store.entry("a", Given()).done
    assert store.work("a", Given(), finish).done


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[
            ("done.json", damage)
            for damage in ("", "{", "[]", "null", '{"summary": 3, "seconds": 1}', '{"seconds": 1}')
        ],
        ("done.json", '{"summary": {}, "seconds": "long"}'),
        ("done.json", '{"summary": {}, "seconds": 1, "files": {"out.json": 3}}'),
        ("out.json", None),
        ("out.json", '{"n": 1'),  # torn
        ("out.json", '{"n": 2}'),  # of equal size
        ("deep/weights.safetensors", "WeightS"),
        ("vectors.npy", "vector"),
        ("vectors.npy", "vectorS"),  # of equal size
        ("done.json", '{"n": 1}'),
    ],
)
def test_what_is_damaged_is_done_again_from_nothing(tmp_path: Path, name: str, content: str | None) -> None:
    calls: list[list[str]] = []

    def work(_: Given, folder: Path) -> dict[str, Any]:
        calls.append(sorted(path.name for path in folder.iterdir()))
        (folder / "deep").mkdir()
        (folder / "out.json").write_text('{"n": 1}')
        (folder / "vectors.npy").write_text("vectors")
        (folder / "deep" / "weights.safetensors").write_text("weights")
        return {"n": 1}

    entry = Store(tmp_path).work("a", Given(), work)
    assert Store(tmp_path).work("a", Given(), work).summary == {"n": 1}
    assert len(calls) == 1
    if content is None:
        (entry.folder / name).unlink()
    else:
        (entry.folder / name).write_text(content)
    assert not entry.sound
    assert Store(tmp_path).work("a", Given(), work).summary == {"n": 1}
    assert calls == [["inputs.json", "log.txt"]] * 2
    assert entry.sound


@pytest.mark.parametrize("change", [{"seconds": 7.0}, {"summary": {"n": 2}}, {"files": {"x": [1, ""]}}, {"format": 1}])
def test_a_marker_that_is_not_as_it_was_written_is_not_believed(tmp_path: Path, change: dict[str, Any]) -> None:
    entry = Store(tmp_path).work("a", Given(), lambda *_: {"n": 1})
    stored = json.loads((entry.folder / "done.json").read_text())
    (entry.folder / "done.json").write_text(json.dumps({**stored, **change}))
    assert not entry.done
    (entry.folder / "done.json").write_text(json.dumps({**stored}))
    assert entry.sound
    del stored["checksum"]  # as releases wrote it that had none: nobody can know whether it is sound
    write_checked_json(entry.folder / "done.json", {**stored, "format": 1})
    assert not entry.done


def test_a_damaged_account_of_attempts_counts_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.entry("a", Given()).folder
    folder.mkdir(parents=True)
    write_checked_json(folder / "attempts.json", {"seconds": 1000.0})
    sound = (folder / "attempts.json").read_text()
    for content in ("", "{", "[]", '{"seconds": "x"}', '{"seconds": 1000}', sound.replace("1000.0", "9000.0"), sound):
        (folder / "attempts.json").write_text(content)
        (folder / "done.json").unlink(missing_ok=True)
        assert (Store(tmp_path).work("a", Given(), lambda *_: {}).seconds >= 1000) == (content == sound)


def test_the_same_work_asked_for_side_by_side_is_done_once(tmp_path: Path) -> None:
    for race in range(100):
        store, calls, threads = Store(tmp_path / str(race)), [0], 4
        start = threading.Barrier(threads)

        def work(_: Given, folder: Path, calls: list[int] = calls) -> dict[str, Any]:
            calls[0] += 1
            return {}

        def ask(_: int, store: Store = store, start: threading.Barrier = start, work: Any = work) -> Entry:
            start.wait()
            return store.work("a", Given(), work)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ask, range(threads)))
        assert calls == [1]


def test_stages_side_by_side_have_their_own_logs_and_leave_the_level_as_it_was(tmp_path: Path) -> None:
    store, both = Store(tmp_path), threading.Barrier(2)
    library, module = logging.getLogger("ranksaga"), logging.getLogger("ranksaga.test")
    before, handlers = library.level, list(library.handlers)

    def ask(label: str) -> Entry:
        def work(_: Given, folder: Path) -> dict[str, Any]:
            both.wait()
            module.info("of %s", label)
            with ThreadPoolExecutor(1) as pool:  # one that was given the context, as the encoder's is
                pool.submit(copy_context().run, module.info, "in a thread of %s", label).result()
            both.wait()
            return {}

        entry = store.work(label, Given(ord(label)), work)
        both.wait()
        return entry

    with ThreadPoolExecutor(2) as pool:
        entries = dict(zip("ab", pool.map(ask, "ab"), strict=True))
    for label, entry in entries.items():
        lines = (entry.folder / "log.txt").read_text().splitlines()
        assert [line.split("ranksaga.test: ")[1] for line in lines] == [f"of {label}", f"in a thread of {label}"]
    assert (library.level, library.handlers) == (before, handlers)


def test_the_identity_is_of_stage_version_and_fields() -> None:
    @dataclass(frozen=True)
    class Other(Inputs):
        STAGE = TRAIN
        VERSION = 2

        number: int = 0

    assert Given(1).as_json() == {"stage": "train", "version": 1, "number": 1}
    assert len({one.identity for one in (Given(), Given(1), Other(), Given())}) == 3


def test_a_survey_does_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotDone):
        Survey(tmp_path).work("a", Given(), lambda *_: pytest.fail("done"))
    assert not (tmp_path / "stages").exists()
    entry = Store(tmp_path).work("a", Given(), lambda *_: {})
    assert Survey(tmp_path).work("b", Given(), lambda *_: pytest.fail("done")).folder == entry.folder
