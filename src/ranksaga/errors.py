"""The exceptions a user can meet. Each message says what was found, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BackendError",
    "DataError",
    "DownloadError",
    "Interrupted",
    "ModelError",
    "RankSagaError",
    "RecipeError",
    "RegressionError",
    "StageError",
    "UsageError",
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


class RegressionError(RankSagaError):
    """A dataset got significantly worse, or that cannot be ruled out, and the exit code was to tell."""

    exit_code = 3


class Interrupted(RankSagaError):
    """The user has pressed Ctrl-C."""

    exit_code = 130
