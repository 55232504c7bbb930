"""Independent pieces side by side, the workers divided among them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ranksaga.run.stage import Inputs
from ranksaga.run.stages import TRAIN
from ranksaga.run.store import Store
from ranksaga.run.workers import LocalRunWorkers, SharedWorkers


@dataclass(frozen=True)
class Given(Inputs):
    STAGE = TRAIN
    VERSION = 1

    number: int = 0


def test_results_are_in_the_order_of_the_items() -> None:
    assert LocalRunWorkers().map(lambda item: item * 2, range(5)) == [0, 2, 4, 6, 8]
    assert SharedWorkers(3).map(lambda item: item * 2, range(5)) == [0, 2, 4, 6, 8]


def test_workers_are_divided_and_divided_again() -> None:
    workers = SharedWorkers(4)
    together = threading.Barrier(2, timeout=10)

    def piece(name: str) -> tuple[str, int, list[int]]:
        together.wait()  # neither gets on unless both are under way
        return name, workers.share, workers.map(lambda _: workers.share, range(3))

    assert workers.map(piece, "ab") == [("a", 2, [1, 1, 1]), ("b", 2, [1, 1, 1])]
    assert workers.share == 4
    assert workers.map(lambda _: workers.share, range(1)) == [4]
    assert SharedWorkers(1).map(lambda _: threading.current_thread(), range(2)) == [threading.current_thread()] * 2


def test_an_error_of_a_piece_is_the_error_of_all() -> None:
    with pytest.raises(ZeroDivisionError):
        SharedWorkers(2).map(lambda item: 1 // item, [1, 0, 2])


def test_the_same_work_side_by_side_is_done_once(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    together = threading.Barrier(2, timeout=10)

    def work(_: Given, folder: Path) -> dict[str, Any]:
        calls.append(folder)
        threading.Event().wait(0.2)  # time for the other to come in between
        return {}

    def ask(_: int) -> str:
        together.wait()
        return store.work("same", Given(), work).identity

    first, second = SharedWorkers(2).map(ask, range(2))
    assert first == second
    assert len(calls) == 1
    assert [timing.reused for timing in store.timings] == [False, True]
