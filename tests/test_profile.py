"""The account of a run's time: parts do not overlap, and nothing is kept unless asked for."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ranksaga.profile import enter_stage, profiled, timed


def test_parts_of_a_stage_add_up_to_its_time() -> None:
    with profiled() as profile:
        start = time.perf_counter()
        with enter_stage("train"):
            time.sleep(0.02)
            with timed("search", flops=6.0):
                time.sleep(0.03)
                with timed("encode", flops=2.0):
                    time.sleep(0.05)
            with timed("search", flops=4.0):
                pass
        whole = time.perf_counter() - start
    spent = {(one.stage, one.part): one for one in profile.spent}
    assert set(spent) == {("train", "encode"), ("train", "search"), ("train", "other")}
    assert sum(one.seconds for one in profile.spent) == pytest.approx(whole, abs=0.005)
    assert spent["train", "encode"].seconds >= 0.05
    assert 0.03 <= spent["train", "search"].seconds < 0.05
    assert spent["train", "other"].seconds >= 0.02
    assert spent["train", "search"].flops == 10.0


def test_an_error_is_booked_too_and_leaves_no_part_open() -> None:
    with profiled() as profile:
        with pytest.raises(KeyError), enter_stage("select"), timed("score"):
            raise KeyError
        with timed("score"):
            pass
    assert {(one.stage, one.part) for one in profile.spent} == {
        ("select", "score"),
        ("select", "other"),
        ("-", "score"),
    }


def test_threads_book_side_by_side() -> None:
    @timed("search", 1.0)
    def work(_: int) -> None:
        time.sleep(0.001)

    with profiled() as profile, ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(40)))
    (one,) = profile.spent
    assert one.flops == 40.0
    assert one.seconds >= 0.04


def test_nothing_is_kept_unless_asked_for() -> None:
    with timed("encode"):
        pass
    with profiled() as profile:
        pass
    with timed("encode"):
        pass
    assert profile.spent == ()


def test_the_table_shows_rates_against_the_peak() -> None:
    with profiled() as profile:
        profile.add("train", "forward", 2.0, 4e9)
        profile.add("train", "batches", 6.0, 0.0)
    lines = profile.table(peak=8e9).splitlines()
    assert lines[1].split() == ["train", "forward", "2.0", "25.0%", "2", "25%"]
    assert lines[2].split() == ["train", "batches", "6.0", "75.0%"]
