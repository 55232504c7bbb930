"""Errors of the machine: one line that says what to do, nothing half-written, and the next try goes on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ranksaga.encode.weight_files import load_weights, save_weights
from ranksaga.errors import MachineError, StageError, machine_error, machine_errors, out_of_memory
from ranksaga.files import PART, atomic_dir, clear_parts, write_json, write_text
from ranksaga.run.arrays import read_array, write_array
from ranksaga.run.stage import Inputs
from ranksaga.run.stages import TRAIN
from ranksaga.run.store import Store


@dataclass(frozen=True)
class Given(Inputs):
    STAGE = TRAIN
    VERSION = 1


def test_errors_of_the_machine_are_known_whoever_raises_them() -> None:
    no_space = OSError(errno.ENOSPC, "No space left on device")
    assert str(machine_error(no_space)).startswith("No space left on device; free space there or name another place")
    of_rust = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "No space left on device; free space" in str(machine_error(of_rust))
    assert "ulimit -f" in str(machine_error(OSError(errno.EFBIG, "File too large", "/x/y")))
    assert str(machine_error(OSError(errno.EFBIG, "File too large", "/x/y"))).startswith("/x/y: ")
    with pytest.raises(MachineError, match=r"^memory ran out \(.*\); use a smaller max_length"), machine_errors():
        torch.empty(1 << 60)
    with pytest.raises(MachineError, match="memory ran out"), machine_errors():
        np.empty(1 << 50)
    for other in (ValueError("os error"), OSError("x"), FileNotFoundError(2, "no", "x"), KeyError("out of memory")):
        assert machine_error(other) is None
        with pytest.raises(type(other)), machine_errors():
            raise other
    with pytest.raises(StageError, match="ours"), machine_errors():
        raise StageError("ours") from no_space
    later = ValueError("on the way out")
    later.__context__ = no_space  # as of what fails in a finally
    assert machine_error(later) is not None


@pytest.mark.parametrize("text", ["", "CUDA out of memory. Tried", "CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_memory_that_runs_out_is_known(text: str) -> None:
    assert out_of_memory(torch.OutOfMemoryError(text))
    assert out_of_memory(MemoryError(text))
    assert out_of_memory(RuntimeError(text)) == (text != "")


def failure(folder: Path) -> MachineError | None:
    """Of the work in a folder; none: it is done."""
    try:
        with machine_errors():
            Store(folder).work("a", Given(), work)
    except MachineError as error:
        return error
    return None


def work(_: Given, folder: Path) -> dict[str, Any]:
    write_json(folder / "a.json", {"n": 1})
    write_array(folder / "deep" / "b.npy", np.arange(5))
    with atomic_dir(folder / "model") as model:
        (model / "config.json").write_text("{}")
        save_weights(model / "w.safetensors", {"w": torch.ones(3)})
    return {"n": 1}


@pytest.mark.parametrize("call", ["fsync", "replace", "open", "mkdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_any_call_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real = getattr(os, call)
    left = 0

    def fails(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    for allowed in range(100):
        folder = tmp_path / str(allowed)
        left = allowed
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            error = failure(folder)
        if error is None:
            break
        assert "\n" not in str(error)
        assert os.strerror(number) in str(error)
        if call == "open":  # nothing can be opened to be removed: the next run does it
            clear_parts(folder, 0.0)
        assert not list(folder.rglob(f"*{PART}"))
        left = 10**9
        entry = Store(folder).work("a", Given(), work)  # the same again goes on, and all is right
        assert entry.sound
        assert read_array(entry.folder / "deep" / "b.npy").tolist() == [0, 1, 2, 3, 4]
        assert load_weights(entry.folder / "model" / "w.safetensors")["w"].tolist() == [1, 1, 1]
    assert error is None
    assert allowed > 3


def test_a_file_that_cannot_be_written_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match=r"a\.txt"):
            write_text(path, "after")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.argv = ["ranksaga", *sys.argv[1:]]
from ranksaga.cli import main
main()
"""


def test_a_limit_of_file_sizes_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, "datasets", "build", "python:json", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "File too large; raise the limit of a file's size (ulimit -f)" in line
    assert not list(tmp_path.iterdir())


def test_a_log_on_a_full_disk_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    entry = Store(tmp_path).entry("a", Given())
    entry.folder.mkdir(parents=True)
    (entry.folder / "log.txt").symlink_to("/dev/full")

    def speak(_: Given, folder: Path) -> dict[str, Any]:
        import logging

        logging.getLogger("ranksaga.test").info("something")
        return {}

    assert Store(tmp_path).work("a", Given(), speak).sound
    assert capsys.readouterr().err == ""
    assert json.loads((entry.folder / "done.json").read_text())["summary"] == {}
