"""Two processes train as one: the same loss curve and weights, and what one of them leaves the other can finish."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.encode.weight_files import load_weights
from ranksaga.train.embed import MicroBatch, of_rank

PROGRAM = Path(__file__).with_name("tiny_training.py")


@pytest.fixture(scope="module")
def alone(small: SimpleNamespace, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run by one process, its batches cut as those of two."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ranksaga.train.embed.TOKEN_BUDGET", {"cpu": small.PASS_TOKENS})
        small.run_small(tiny_folder, folder)
    return folder


def start(forked: SimpleNamespace, model: Path, folder: Path, pause: float = 0.0) -> list[Any]:
    return [forked.Program([PROGRAM, model, folder, pause, rank, 2]) for rank in range(2)]


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "loss.jsonl").read_text().splitlines()]


def assert_alike(folder: Path, expected: Path) -> None:
    assert curve(folder) == pytest.approx(curve(expected), abs=1e-5)
    assert len(curve(folder)) == 15
    for epoch in (1, 2, 3):
        ours, theirs = (load_weights(run / f"epoch-{epoch}.safetensors") for run in (folder, expected))
        for name, weights in theirs.items():
            np.testing.assert_allclose(ours[name], weights, atol=1e-4, err_msg=name)


def test_two_processes_train_as_one(forked: SimpleNamespace, tiny_folder: Path, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert [process.wait(200) for process in start(forked, tiny_folder, folder)] == [0, 0]
    assert_alike(folder, alone)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in alone.iterdir())
    # The other rank wrote nothing and ends in the very weights of the first.
    assert not (tmp_path / "run.rank-1").exists()
    first, other = load_weights(folder / "epoch-3.safetensors"), load_weights(tmp_path / "run.safetensors")
    assert all((first[name] == weights).all() for name, weights in other.items())


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_other_and_one_process_goes_on(
    forked: SimpleNamespace,
    small: SimpleNamespace,
    tiny_folder: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    first, other = start(forked, tiny_folder, folder, pause=0.05)
    deadline = time.monotonic() + 200
    log = folder / "loss.jsonl"
    while not log.exists() or log.read_text().count("\n") < 6:
        assert first.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)
    other.kill()
    assert first.wait(60) != 0
    assert not (folder / "training.json").exists()
    monkeypatch.setattr("ranksaga.train.embed.TOKEN_BUDGET", {"cpu": small.PASS_TOKENS})
    small.run_small(tiny_folder, folder)
    assert_alike(folder, alone)


def test_passes_are_dealt_fairly_and_each_once() -> None:
    passes = [
        MicroBatch(0, (row,), (np.zeros(size, dtype=np.int32),), size) for row, size in enumerate([9, 1, 4, 4, 2, 8])
    ]
    hands = [of_rank(passes, rank, 3) for rank in range(3)]
    assert sorted(place for hand in hands for place, _ in hand) == list(range(6))
    assert all(passes[place] is part for hand in hands for place, part in hand)
    assert max(sum(part.load for _, part in hand) for hand in hands) == 10
    assert [place for place, _ in of_rank(passes, 0, 1)] == list(range(6))
    assert of_rank(passes[:1], 1, 2) == []
