"""Several processes on this machine do what one does, and end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ranksaga.backends.torchrun import _cause, parse_count
from ranksaga.errors import UsageError


def start(forked: SimpleNamespace, root: Path, home: Path, recipe: Any, out: str, on: str) -> Any:
    (root / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return forked.Program(
        ["-m", "ranksaga", "run", root / "tiny.yaml", "--out", root / out, "--on", on],
        env={**os.environ, "RANKSAGA_HOME": str(home)},
    )


def rank_of(process: int) -> str | None:
    """The rank of a process of ours; ``None`` for any other."""
    try:
        pairs = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((pair.decode().partition("=")[2] for pair in pairs if pair.startswith(b"RANK=")), None)


def children(parent: int) -> list[int]:
    shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(word) for word in shown.stdout.split()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_two_processes_score_as_one_and_a_killed_rank_is_no_loss(
    forked: SimpleNamespace, tmp_path: Path, small_run: Any
) -> None:
    home = small_run.new_home(tmp_path / "home")
    lost = start(forked, tmp_path, home, small_run.recipe, "two", "torchrun:2")
    logs = tmp_path / "two" / "tiny" / "stages" / "train"
    while not any(log.read_text().count("\n") >= 6 for log in logs.glob("*/loss.jsonl")):
        assert lost.poll() is None, lost.communicate()[1]
        time.sleep(0.05)
    (other,) = [child for child in children(lost.pid) if rank_of(child) == "1"]
    os.kill(other, signal.SIGKILL)
    _, told = lost.communicate(timeout=120)
    assert lost.returncode == 1
    assert "Traceback" not in told
    assert told.strip().splitlines()[-1] == (
        "ranksaga: rank 1 of 2 was killed (SIGKILL); the same command goes on from the last checkpoint"
    )
    assert [line for line in told.splitlines() if line.startswith("ranksaga: ")] == told.strip().splitlines()[-1:]

    again = start(forked, tmp_path, home, small_run.recipe, "two", "torchrun:2")
    shown = again.communicate()
    assert again.returncode == 0, shown[1]
    assert "[baseline] python:stdlib?limit=150 (done before)" in shown[1]
    ours, theirs = small_run.scores(tmp_path / "two" / "tiny"), small_run.scores(small_run.folder)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("best ") for name in ours)
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values, abs=1e-4), name
    losses = [
        [json.loads(line)["loss"] for line in log.read_text().splitlines()]
        for folder in (tmp_path / "two" / "tiny", small_run.folder)
        for log in sorted((folder / "stages" / "train").glob("*/loss.jsonl"))
    ]
    assert [len(curve) for curve in losses] == [small_run.steps] * 2
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


FAULTY = """
import numpy as np
from ranksaga.backends import torchrun
from ranksaga.errors import StageError
import torch.distributed as distributed

class Engine:
    def __init__(self, identity):
        self.identity = identity
    def to(self, device):
        return self
    def begin(self, batch):
        if self.identity == "faulty" and distributed.get_rank() == 0:
            raise StageError("out of luck")
        return lambda: np.full((1, 2), batch, dtype=np.float32)

torchrun._join()
if distributed.get_rank():
    torchrun._follow("cpu")
else:
    workers = torchrun.TorchrunWorkers("cpu")
    try:
        list(workers.vectors(Engine("faulty"), [0, 1, 2]))
    except StageError as error:
        print(error)
    left = workers.vectors(Engine("left"), [0, 1, 2])
    next(left)
    left.close()
    print(sorted((place, float(made[0, 0])) for place, made in workers.vectors(Engine("good"), [5, 6, 7])))
    workers.stop()
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_an_error_of_rank_0_leaves_the_others_in_step(forked: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    joined = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [forked.Program([tmp_path / "faulty.py"], env={**joined, "RANK": str(rank)}) for rank in (0, 1)]
    told, _ = ranks[0].communicate(timeout=120)
    assert ranks[1].wait(timeout=120) == ranks[0].returncode == 0
    assert told.splitlines() == ["out of luck", "[(0, 5.0), (1, 6.0), (2, 7.0)]"]


@pytest.mark.parametrize("text", ["", "0", "two", "-1", "2.0"])
def test_the_number_of_processes_is_a_number(text: str) -> None:
    with pytest.raises(UsageError, match="as in --on torchrun:2"):
        parse_count(text)


def failed(**codes: int) -> Any:
    return SimpleNamespace(failures={int(rank[1:]): SimpleNamespace(exitcode=code) for rank, code in codes.items()})


def test_the_cause_is_the_rank_that_fell_first(tmp_path: Path) -> None:
    assert _cause(failed(r0=1, r2=-9), 4, tmp_path).startswith("rank 2 of 4 was killed (SIGKILL); the same command")
    assert "rank 3 of 4 ended with exit code 7" in _cause(failed(r3=7), 4, tmp_path)
    for rank, error in ((1, "ValueError: bad"), (0, "RuntimeError: Connection closed by peer")):
        (tmp_path / f"rank-{rank}.txt").write_text(f"Traceback\n  ...\n{error}\n")
        os.utime(tmp_path / f"rank-{rank}.txt", (1000 - rank, 1000 - rank))
    told = _cause(failed(r0=1, r1=1), 2, tmp_path)
    assert told.startswith("rank 1 of 2 failed (ValueError: bad); see ")
    assert "\n" not in told
    assert "  ..." in Path(told.split("; see ")[1].split(";")[0]).read_text()
