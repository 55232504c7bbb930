"""Who does the work of a run: computes vectors, trains, and does independent pieces side by side.

By default that is this process. A back end puts a team of its own in its place; a stage's result and
identity know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ranksaga.encode.engine import Here, Workers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ranksaga.recipe import Training
    from ranksaga.train.trainer import Progress, TrainingResult

__all__ = ["Alone", "Team"]

T = TypeVar("T")
R = TypeVar("R")


class Team(Workers, Protocol):
    """What a back end offers to a run."""

    def train(
        self,
        model: SentenceTransformer,
        sources: Sequence[Any],
        settings: Training,
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> TrainingResult:
        """As :func:`ranksaga.train.trainer.train`; what becomes of ``model`` is open, the weights are in the files."""
        ...

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The function's results in the order of the items, which do not depend on one another."""
        ...


class Alone(Here):
    """This process, one thing after the other."""

    def train(
        self,
        model: SentenceTransformer,
        sources: Sequence[Any],
        settings: Training,
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> TrainingResult:
        """In this process."""
        from ranksaga.train.trainer import train

        return train(model, sources, settings, progress=progress, **options)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other."""
        return [function(item) for item in items]
