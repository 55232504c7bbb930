"""A run that is killed, or whose files are damaged, ends in the results of one that was let alone: a few cases of
``bench/kills.py``, which does any number."""

from __future__ import annotations

import os
import random
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

KILLS = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "bench" / "kills.py")))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="needs fork and /proc"),
]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return KILLS.prepare(tmp_path)


def test_a_killed_run_ends_as_if_nothing_had_happened(job: Any) -> None:
    assert [line for line in KILLS.kills(job, 3, random.Random(1)) if "all results equal" in line]


def test_a_damaged_file_is_found_and_made_again(job: Any) -> None:
    assert len(list(KILLS.flips(job, 5, random.Random(1)))) == 5


def test_what_was_flushed_is_known_by_its_name_after_all_renames(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    lines = ("fsync\t/a/.part/w\t5", "replace\t/a/.part\t/a/model", "fsync\t/a/x\t3", "replace\t/a/x\t/a/model")
    journal.write_text("\n".join(lines[:2]))
    assert KILLS.flushed(journal) == {"/a/model/w": 5}
    journal.write_text("\n".join(lines))
    assert KILLS.flushed(journal) == {"/a/model": 3}
