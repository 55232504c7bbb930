"""What a run really took: shared work once, money only where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ranksaga.files import read_json
from ranksaga.run.costs import Spent, cost_facts, costs_json, spent_by_stage
from ranksaga.run.stage import Inputs
from ranksaga.run.stages import TRAIN
from ranksaga.run.store import Store, Timing


@dataclass(frozen=True)
class Given(Inputs):
    STAGE = TRAIN
    VERSION = 1

    number: int = 0


TIMINGS = (
    Timing("baseline", "a", 60.0, True, "1", None),
    Timing("train", "best shipped", 1800.0, False, "2", 0.5),
    Timing("train", "best fold-1", 1800.0, True, "2", 0.5),
    Timing("train", "v2 fold-1", 900.0, False, "3", 0.25),
)


def test_shared_work_counts_once_and_a_sum_with_an_unknown_price_is_unknown() -> None:
    assert spent_by_stage(TIMINGS) == (Spent("baseline", 1, 60.0, None), Spent("train", 2, 2700.0, 0.75))


def test_the_report_names_all_that_share_a_piece_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "seconds_beside", 36.0)
    stages, pieces = cost_facts(Store(tmp_path, price=10.0, timings=list(TIMINGS[1:])))
    assert stages.title == "Time and cost"
    assert stages.rows == (
        ("train", "45 min 0 s, $0.7500"),
        ("rest", "36.0 s, $0.1000"),
        ("total", "45 min 36 s, $0.8500"),
    )
    assert pieces.rows == (
        ("train best shipped, best fold-1", "30 min 0 s, $0.5000"),
        ("train v2 fold-1", "15 min 0 s, $0.2500"),
    )


def test_without_a_price_there_is_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "seconds_beside", 6.0)
    store = Store(tmp_path, timings=[TIMINGS[0]])
    assert cost_facts(store)[0].rows == (("baseline", "1 min 0 s"), ("rest", "6.0 s"), ("total", "1 min 6 s"))
    assert cost_facts(store)[1].rows == (("baseline a", "1 min 0 s (done before)"),)
    spent = costs_json(store)
    assert (spent["seconds"], spent["usd"], spent["usd_per_hour"]) == (66.0, None, None)


def test_work_keeps_the_price_of_the_machine_that_did_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ranksaga.run.store.time.perf_counter", lambda: now[0])

    def work(_: Given, folder: Path) -> dict[str, object]:
        now[0] += 5.0
        return {}

    dear = Store(tmp_path, price=3600.0)
    dear.work("a", Given(), work)
    Store(tmp_path, price=1.0).work("a", Given(), work)
    free = Store(tmp_path)
    entry = free.work("a", Given(), work)
    assert (entry.seconds, entry.usd) == (5.0, 5.0)
    assert free.timings[0].usd == 5.0
    assert read_json(entry.folder / "done.json")["usd"] == 5.0


def test_time_beside_the_work_is_what_no_work_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ranksaga.run.store.time.perf_counter", lambda: now[0])
    store = Store(tmp_path)

    def work(_: Given, folder: Path) -> dict[str, object]:
        now[0] += 7.0
        return {}

    now[0] += 2.0
    store.work("a", Given(), work)
    now[0] += 1.0
    store.work("a", Given(), work)  # done before
    assert store.seconds_beside == pytest.approx(3.0)
    assert store.timings[1].seconds == pytest.approx(7.0)


def test_pieces_side_by_side_share_the_price_of_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ranksaga.run.store.time.perf_counter", lambda: now[0])
    store = Store(tmp_path, price=3600.0)

    def short(_: Given, folder: Path) -> dict[str, object]:
        now[0] += 4.0
        return {}

    def long(_: Given, folder: Path) -> dict[str, object]:
        now[0] += 3.0
        store.work("short", Given(1), short)  # goes on while the long one does
        now[0] += 5.0
        return {}

    store.work("long", Given(2), long)
    now[0] += 1.0
    assert [(one.label, one.seconds, one.usd) for one in store.timings] == [("short", 4.0, 2.0), ("long", 12.0, 10.0)]
    assert store.seconds_beside == 1.0
