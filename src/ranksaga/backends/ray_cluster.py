"""A Ray cluster: the only module that touches Ray.

The command itself runs the recipe. Batches to encode go to a pool of actors, training to Ray Train, and pieces of the
run that do not depend on one another (datasets, systems, folds, seeds) are done side by side, the workers divided
among them. What a worker did is a function of what it was given, so one that dies is replaced and its work repeated;
a training goes on from its last checkpoint, which rank 0 writes into the run's folder.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import ray
import ray.exceptions
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ranksaga.config.recipe import Recipe
from ranksaga.config.training import Training
from ranksaga.encode.engine import Engine, Tokens
from ranksaga.encode.models import on_cpu
from ranksaga.errors import BackendError, RankSagaError, UsageError
from ranksaga.run.console import Terminal
from ranksaga.run.pipeline import Outcome, run_recipe
from ranksaga.run.workers import SharedWorkers, TrainingOptions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ranksaga.train.pairs import TrainingPairs
    from ranksaga.train.teacher import Teacher
    from ranksaga.train.trainer import Progress, TrainingResult

__all__ = ["Place", "RayWorkers", "parse_place", "run_on_ray"]

KEPT = 2  # engines that an actor holds: one for queries, one for documents
SENT = 8  # engines in the object store: of several pieces side by side
AHEAD = 2  # batches that wait at an actor, so that it never waits for one
RETRIES = 3  # of one training
ENCODING, TRAINING = 0.4, 0.6  # of a GPU: an actor of the pool beside a training worker, but no two trainings


@dataclass(frozen=True)
class Place:
    """Where the cluster is (none: on this machine, started for the run) and how many workers do the work."""

    address: str | None = None
    workers: int | None = None


def parse_place(text: str) -> Place:
    """What follows ``--on ray:``: nothing, a number of workers, ADDRESS, or ADDRESS?workers=N.

    Raises:
        UsageError: the number is none above 0.
    """
    address, _, query = text.partition("?")
    count = address if address.isdecimal() else query.removeprefix("workers=")
    if count and (not count.isdecimal() or int(count) == 0):
        raise UsageError(f"--on ray:{text}: expected ray, ray:N, ray:ADDRESS or ray:ADDRESS?workers=N")
    return Place(None if address.isdecimal() else address or None, int(count) if count else None)


def run_on_ray(recipe: Recipe, folder: Path, place: Place, **options: Any) -> Outcome:
    """Execute a recipe on a cluster; options are ``start``, ``stop`` and ``fresh`` of ``run_recipe``.

    Raises:
        BackendError: the cluster cannot be used.
        RankSagaError: what the run itself raised.
    """
    with _connected(place), _plainly():
        return run_recipe(recipe, folder.resolve(), Terminal(), workers=RayWorkers(place.workers), **options)


class RayWorkers(SharedWorkers):
    """A run's team on the cluster that this process is connected to.

    Args:
        workers: how many; none: one a GPU, without GPUs one a node.

    Raises:
        UsageError: the cluster has not so many GPUs, or CPUs.
    """

    def __init__(self, workers: int | None = None) -> None:
        nodes = [(str(node["NodeID"]), node["Resources"]) for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(has.get("GPU", 0) for _, has in nodes))
        cpus = [int(has.get("CPU", 0)) for _, has in nodes]
        super().__init__(workers or gpus or max(1, sum(count > 0 for count in cpus)))
        fitting = [size for size in range(1, max(cpus) + 1) if sum(count // size for count in cpus) >= self.workers]
        if not fitting or (gpus and gpus < self.workers):
            raise UsageError(f"{self.workers} workers on a cluster of {sum(cpus)} CPUs and {gpus} GPUs; ask for fewer")
        self._threads = fitting[-1]
        self._gpu = gpus > 0
        seats = [int(has.get("GPU", 0)) if gpus else int(has.get("CPU", 0)) // self._threads for _, has in nodes]
        rounds = range(max(seats))
        self._homes = [node for turn in rounds for (node, _), free in zip(nodes, seats, strict=True) if turn < free]
        self.device: str | None = "cuda" if gpus else "cpu"
        self._lock = threading.Lock()
        self._actors: list[Any] = []
        self._sent: deque[tuple[str, Any]] = deque(maxlen=SENT)

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Each batch by the next actor that is free."""
        actors, reference = self._pool(), self._reference(engine)
        todo = iter(enumerate(batches))
        under_way: dict[Any, tuple[int, Any]] = {}

        def give(actor: Any) -> None:
            for place, tokens in islice(todo, 1):
                under_way[actor.vectors.remote(engine.identity, [reference], tokens)] = place, actor

        for actor in actors * AHEAD:
            give(actor)
        while under_way:
            (done,), _ = ray.wait(list(under_way), num_returns=1)
            place, actor = under_way.pop(done)
            give(actor)
            yield place, ray.get(done)

    def train(
        self,
        model: SentenceTransformer,
        sources: Sequence[TrainingPairs] | Sequence[Teacher],
        settings: Training,
        *,
        progress: Progress | None = None,
        **options: Unpack[TrainingOptions],
    ) -> TrainingResult:
        """With Ray Train, by as many workers as this piece of the run may have."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        monitor = ray.remote(num_cpus=0)(TrainingMonitor).remote()
        scratch = Path(options["folder"]) / "ray"  # what Ray Train notes down for itself
        job = ray.put((on_cpu(model), sources, settings, options))
        trainer = TorchTrainer(
            _fit,
            train_loop_config={"job": [job], "monitor": monitor, "threads": self._threads},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if self._gpu else "gloo", timeout_s=24 * 3600),
            scaling_config=ScalingConfig(
                num_workers=self.share,
                use_gpu=self._gpu,
                resources_per_worker={"CPU": 1, "GPU": TRAINING} if self._gpu else {"CPU": self._threads},
                placement_strategy="SPREAD",
            ),
            run_config=RunConfig(
                name="train", storage_path=str(scratch), failure_config=FailureConfig(max_failures=RETRIES)
            ),
        )
        try:
            outcome = _followed(trainer.fit, monitor, progress)
        except ray.train.TrainingFailedError as error:
            raise BackendError(
                f"training failed on Ray more than {RETRIES} times ({_first(error)}); "
                "the same command goes on from the last checkpoint"
            ) from None
        shutil.rmtree(scratch, ignore_errors=True)
        return _checked(outcome, Path(options["folder"]))

    def _pool(self) -> list[Any]:
        """The actors that encode, made when first needed."""
        with self._lock:
            if not self._actors:
                remote = ray.remote(
                    num_cpus=0,  # they work while nothing trains
                    memory=1,  # an actor that asks for nothing is put on any node, whatever its strategy
                    num_gpus=ENCODING if self._gpu else 0,
                    max_restarts=-1,
                    max_task_retries=-1,
                )(Actor)
                # SPREAD would also take a head without CPUs. Soft: a lost node's actors move to another.
                self._actors = [
                    remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(home, soft=True)).remote(
                        self._threads
                    )
                    for home in self._homes[: self.workers]
                ]
            return self._actors

    def _reference(self, engine: Engine) -> Any:
        """The engine in the object store, put there once."""
        with self._lock:
            if engine.identity not in dict(self._sent):
                self._sent.append((engine.identity, ray.put(engine)))
            return dict(self._sent)[engine.identity]


class Actor:
    """Computes batches in a process of its own."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._engines: deque[tuple[str, Engine]] = deque(maxlen=KEPT)

    def vectors(self, identity: str, reference: list[Any], tokens: Tokens) -> NDArray[np.float32]:
        """Vectors (n, d) of one batch; the engine is fetched unless it is here."""
        if identity not in dict(self._engines):
            self._engines.append((identity, ray.get(reference[0]).to(self._device)))
        return dict(self._engines)[identity](tokens)


class TrainingMonitor:
    """Where a training's rank 0 reports its last step and, when it is over, what came of it."""

    def __init__(self) -> None:
        self._report: dict[str, Any] = {}
        self._outcome: Any = None

    def tell(self, report: dict[str, Any]) -> None:
        """A step is done."""
        self._report = report

    def close(self, outcome: Any) -> None:
        """It is over: the result, or as JSON the error that the user has to mend."""
        self._outcome = outcome

    def read(self) -> tuple[dict[str, Any], Any]:
        """Report and outcome, as far as there are any."""
        return self._report, self._outcome


def _fit(config: dict[str, Any]) -> None:
    """What each worker of a training does."""
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device

    from ranksaga.train.trainer import train

    torch.set_num_threads(config["threads"])
    leads = get_context().get_world_rank() == 0
    monitor = config["monitor"]
    model, sources, settings, options = ray.get(config["job"][0])
    try:
        outcome: Any = train(
            model.to(get_device()),
            sources,
            settings,
            progress=(lambda **report: monitor.tell.remote(report)) if leads else None,
            **options,
        )
    except RankSagaError as error:  # trying again would not mend it
        outcome = error.as_json()
    if leads:
        ray.get(monitor.close.remote(outcome))


def _followed(fit: Callable[[], Any], monitor: Any, progress: Progress | None) -> Any:
    """Fit and tell of the steps meanwhile; in a thread, for it would take the interrupt key for itself."""
    beside = ThreadPoolExecutor(1)
    fitting = beside.submit(fit)
    beside.shutdown(wait=False)
    seen = 0
    while not fitting.done():
        wait_for([fitting], timeout=1.0)
        report, _ = ray.get(monitor.read.remote())
        if progress is not None and report and report["step"] > seen:
            progress(**report)
            seen = report["step"]
    fitting.result()
    return ray.get(monitor.read.remote())[1]


def _checked(outcome: Any, folder: Path) -> TrainingResult:
    if isinstance(outcome, dict):
        raise RankSagaError.from_json(outcome)
    if not (folder / "training.json").is_file():
        raise BackendError(
            f"a worker trained on another machine, and what it wrote to {folder} is not here; "
            "give --out a folder that all nodes of the cluster share"
        )
    result: TrainingResult = outcome
    return result


@contextmanager
def _connected(place: Place) -> Iterator[None]:
    """Connected to a cluster; one that is started for the run ends with it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"address": place.address or "local", "log_to_driver": False}
    if place.address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        options |= {"num_cpus": max(cores, place.workers or 1), "include_dashboard": False}
    try:
        ray.init(logging_level=logging.ERROR, configure_logging=False, **options)
    except Exception as error:  # Ray raises what it likes here
        raise BackendError(
            f"no Ray cluster can be reached at {place.address or 'this machine'} ({_first(error)}); "
            "start one with: ray start --head"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _plainly() -> Iterator[None]:
    """Ray's errors as one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise BackendError(f"Ray: {_first(error)}; the same command again continues the run") from None


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
