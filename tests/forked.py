"""Programs in processes of their own that need not import torch and sentence-transformers first.

Both take longer to import than most programs here take to run. One process imports them, runs nothing, and forks for
each program (``multiprocessing``'s fork server): what runs there is a process like any other, which can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

IMPORTED = [
    "torch",
    "torch.distributed",
    "sentence_transformers",
    "sentence_transformers.sentence_transformer.modules",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "ranksaga.cli",
    "ranksaga.run.pipeline",
    "ranksaga.train.trainer",
    "modal.cli.run",  # where it is installed
    "modal.experimental",
]


class Program:
    """A program under way; as of ``subprocess.Popen``, as far as tests need it.

    Args:
        arguments: the program's file, or ``-m`` and its module, and what it is told.
        cwd: its working folder; none: this one.
        env: its environment; none: this one.
    """

    def __init__(
        self, arguments: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._output = tempfile.TemporaryDirectory(prefix="forked-")
        request = {
            "arguments": [str(word) for word in arguments],
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "output": self._output.name,
        }
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        # Not daemonic: those may not have children.
        self._process: Any = context.Process(
            target=runpy.run_path, args=(__file__, {"REQUEST": request}, "forked"), daemon=False
        )
        with pytest.MonkeyPatch.context() as patch:  # for the server, which is started with the first program
            patch.setenv("OMP_NUM_THREADS", "1")
            self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return int(self._process.pid)

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; none while it runs."""
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        """The exit code, none while it runs."""
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to stdout and to stderr, once it has ended."""
        self.wait(timeout)
        return self._written("stdout"), self._written("stderr")

    def _written(self, name: str) -> str:
        return Path(self._output.name, name).read_text(encoding="utf-8")


def run(arguments: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; as of ``subprocess.run`` with captured text."""
    program = Program(arguments, **options)
    stdout, stderr = program.communicate()
    return subprocess.CompletedProcess([str(word) for word in arguments], program.wait(), stdout, stderr)


def _become(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Go on as that program."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(os.path.join(output, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "forked":
    _become(**globals()["REQUEST"])
