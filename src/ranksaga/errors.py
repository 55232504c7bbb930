"""The exceptions a user can meet. Each message says what was found, what was expected and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = [
    "BackendError",
    "DataError",
    "DownloadError",
    "Interrupted",
    "MachineError",
    "ModelError",
    "RankSagaError",
    "RecipeError",
    "RegressionError",
    "StageError",
    "UsageError",
    "machine_error",
    "machine_errors",
    "out_of_memory",
]


class RankSagaError(Exception):
    """Base of every error that RankSaga raises on purpose.

    ``exit_code`` is the exit code of the command line: 1 failed, 2 wrong usage or
    wrong input, 3 where ``--fail-on-regression`` cannot pass, 130 interrupted.
    """

    exit_code: int = 1

    def as_json(self) -> dict[str, str]:
        """Message and type, for another process."""
        return {"error": str(self), "type": type(self).__name__}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> RankSagaError:
        """The inverse of :meth:`as_json`; a type that is not known here (another release's) becomes the base."""
        kinds: dict[str, type[RankSagaError]] = {}
        to_see: list[type[RankSagaError]] = [RankSagaError]
        while to_see:
            kind = to_see.pop()
            kinds[kind.__name__] = kind
            to_see += kind.__subclasses__()
        return kinds.get(str(values.get("type")), RankSagaError)(str(values["error"]))


class UsageError(RankSagaError):
    """The command or its arguments are wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe is wrong: an unknown key, a bad value, a broken file."""


class DataError(UsageError):
    """A dataset is missing or broken. The message names file and line where there is one."""


class ModelError(UsageError):
    """A model cannot be found or must not be loaded."""


class DownloadError(RankSagaError):
    """A download failed or its content is not what was promised."""


class StageError(RankSagaError):
    """A stage of a run failed."""


class BackendError(RankSagaError):
    """The place where a run was to execute cannot be used."""


class MachineError(RankSagaError):
    """The machine has no more of something: disk, memory, open files; or it does not let us write."""


class RegressionError(RankSagaError):
    """A dataset got significantly worse, or that cannot be ruled out, and the exit code was to tell."""

    exit_code = 3


class Interrupted(RankSagaError):
    """The user has pressed Ctrl-C."""

    exit_code = 130


AGAIN = "then give the same command again: what is finished is kept"
# What a user can do about an error of the operating system.
REMEDIES = {
    errno.ENOSPC: f"free space there or name another place (--out, RANKSAGA_HOME), {AGAIN}",
    errno.EDQUOT: f"free some of your quota or name another place (--out, RANKSAGA_HOME), {AGAIN}",
    errno.EFBIG: f"raise the limit of a file's size (ulimit -f) or name another place (--out, RANKSAGA_HOME), {AGAIN}",
    errno.EROFS: "nothing can be written there: name another place (--out, RANKSAGA_HOME)",
    errno.EACCES: "allow it, or name another place (--out, RANKSAGA_HOME)",
    errno.EPERM: "allow it, or name another place (--out, RANKSAGA_HOME)",
    errno.EMFILE: f"raise the limit of open files (ulimit -n), {AGAIN}",
    errno.ENFILE: f"close other programs, {AGAIN}",
    errno.EIO: f"check the device, or name another place (--out, RANKSAGA_HOME), {AGAIN}",
    errno.ENOMEM: f"use a smaller max_length or batch_size, or a machine with more memory, {AGAIN}",
}
MEMORY = re.compile("can't allocate memory|cannot allocate memory|not enough memory|out of memory|ALLOC_FAILED", re.I)
OF_RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers name an error of the operating system


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, a device's or this machine's, for which torch raises a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and MEMORY.search(str(error)) is not None


def machine_error(error: BaseException) -> MachineError | None:
    """What a user is told of an error that the machine is the cause of; ``None`` for all others."""
    cause: BaseException | None = error
    while cause is not None:
        if out_of_memory(cause):
            return MachineError(f"memory ran out ({_first_line(cause)}); {REMEDIES[errno.ENOMEM]}")
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None and (told := OF_RUST.search(str(cause))) and not isinstance(cause, RankSagaError):
            number = int(told[1])
        if number in REMEDIES:
            name = f"{cause.filename}: " if isinstance(cause, OSError) and cause.filename else ""
            return MachineError(f"{name}{os.strerror(number)}; {REMEDIES[number]}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


@contextmanager
def machine_errors() -> Iterator[None]:
    """Raise errors of the machine as ours.

    Raises:
        MachineError: in place of them.
    """
    try:
        yield
    except RankSagaError:
        raise
    except Exception as error:
        known = machine_error(error)
        if known is None:
            raise
        raise known from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
