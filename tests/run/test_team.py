"""Independent pieces side by side, the workers divided among them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from ranksaga.run.store import Store
from ranksaga.run.team import Alone, Sharing


def test_results_are_in_the_order_of_the_items() -> None:
    assert Alone().map(lambda item: item * 2, range(5)) == [0, 2, 4, 6, 8]
    assert Sharing(3).map(lambda item: item * 2, range(5)) == [0, 2, 4, 6, 8]


def test_workers_are_divided_and_divided_again() -> None:
    team = Sharing(4)
    together = threading.Barrier(2, timeout=10)

    def piece(name: str) -> tuple[str, int, list[int]]:
        together.wait()  # neither gets on unless both are under way
        return name, team.share, team.map(lambda _: team.share, range(3))

    assert team.map(piece, "ab") == [("a", 2, [1, 1, 1]), ("b", 2, [1, 1, 1])]
    assert team.share == 4
    assert team.map(lambda _: team.share, range(1)) == [4]
    assert Sharing(1).map(lambda _: threading.current_thread(), range(2)) == [threading.current_thread()] * 2


def test_an_error_of_a_piece_is_the_error_of_all() -> None:
    with pytest.raises(ZeroDivisionError):
        Sharing(2).map(lambda item: 1 // item, [1, 0, 2])


def test_the_same_work_side_by_side_is_done_once(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    together = threading.Barrier(2, timeout=10)

    def work(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        threading.Event().wait(0.2)  # time for the other to come in between
        return {}

    def ask(_: int) -> str:
        together.wait()
        return store.work("train", "same", {"a": 1}, work).identity

    first, second = Sharing(2).map(ask, range(2))
    assert first == second
    assert len(calls) == 1
    assert [timing.reused for timing in store.timings] == [False, True]
