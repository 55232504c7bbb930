"""What does the work of a run: computes vectors, trains, and does independent pieces side by side.

By default that is this process. A back end puts workers of its own in its place; a stage's result and
identity do not depend on them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, Protocol, TypedDict, TypeVar, Unpack

from ranksaga.encode.engine import LocalWorkers, Workers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ranksaga.config.training import Training
    from ranksaga.train.pairs import TrainingPairs
    from ranksaga.train.teacher import Teacher
    from ranksaga.train.trainer import Progress, TrainingResult

__all__ = ["LocalRunWorkers", "RunWorkers", "SharedWorkers", "TrainingOptions"]

T = TypeVar("T")
R = TypeVar("R")


class TrainingOptions(TypedDict):
    """What else :func:`ranksaga.train.trainer.train` is told, as it names it."""

    query_prompt: str
    document_prompt: str
    max_length: int
    precision: str
    seed: int
    folder: Path
    checkpoint_seconds: NotRequired[float]


class RunWorkers(Workers, Protocol):
    """What a back end offers to a run."""

    def train(
        self,
        model: SentenceTransformer,
        sources: Sequence[TrainingPairs] | Sequence[Teacher],
        settings: Training,
        *,
        progress: Progress | None = None,
        **options: Unpack[TrainingOptions],
    ) -> TrainingResult:
        """As :func:`ranksaga.train.trainer.train`; what becomes of ``model`` is open, the weights are in the files."""
        ...

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The function's results in the order of the items, which do not depend on one another."""
        ...


class LocalRunWorkers(LocalWorkers):
    """This process, one thing after the other."""

    def train(
        self,
        model: SentenceTransformer,
        sources: Sequence[TrainingPairs] | Sequence[Teacher],
        settings: Training,
        *,
        progress: Progress | None = None,
        **options: Unpack[TrainingOptions],
    ) -> TrainingResult:
        """In this process."""
        from ranksaga.train.trainer import train

        return train(model, sources, settings, progress=progress, **options)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other."""
        return [function(item) for item in items]


class SharedWorkers:
    """Workers that are divided among pieces which are done side by side, and among the pieces of those."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._of_thread = threading.local()

    @property
    def share(self) -> int:
        """How many of the workers the piece in this thread may use at once; at least 1."""
        return int(getattr(self._of_thread, "share", self.workers))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """As many side by side as there are workers."""
        todo = list(items)
        width = min(self.share, len(todo))
        if width < 2:
            return [function(item) for item in todo]
        share = self.share // width

        def with_its_share(item: T) -> R:
            self._of_thread.share = share
            return function(item)

        threads = ThreadPoolExecutor(width)
        try:
            return list(threads.map(with_its_share, todo))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # an error or an interrupt need not wait for the others
