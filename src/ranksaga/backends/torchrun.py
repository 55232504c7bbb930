"""Several processes on this machine: ``--on torchrun:N``.

The command starts N processes and waits for them. Rank 0 runs the recipe; the others compute what it deals out:
batches to encode, and their share of every training step. Between those they wait, for as long as it takes. If one
dies, all end with a line that says which, and the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.recipe import Recipe
from ranksaga.config.training import Training
from ranksaga.encode.engine import Engine, Tokens, compute_batches
from ranksaga.encode.models import on_cpu
from ranksaga.errors import BackendError, RankSagaError, UsageError
from ranksaga.files import read_json, write_json
from ranksaga.run.console import Terminal
from ranksaga.run.pipeline import Outcome, run_recipe
from ranksaga.run.workers import LocalRunWorkers, TrainingOptions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ranksaga.train.pairs import TrainingPairs
    from ranksaga.train.teacher import Teacher
    from ranksaga.train.trainer import Progress, TrainingResult

__all__ = ["main", "parse_count", "run_on_torchrun"]

KEPT = 2  # engines that a process holds: one for queries, one for documents
FOREVER = timedelta(days=365)  # others wait while rank 0 evaluates; a process that died is noticed without a timeout
GO_ON = "the same command goes on from the last checkpoint"


def parse_count(text: str) -> int:
    """The N of ``--on torchrun:N``.

    Raises:
        UsageError: it is no number above 0.
    """
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--on torchrun{text and f':{text}'}: expected the number of processes, as in --on torchrun:2")
    return int(text)


def run_on_torchrun(recipe: Recipe, folder: Path, count: int, **options: Any) -> Outcome:
    """Execute a recipe with ``count`` processes; options are ``start``, ``stop`` and ``fresh`` of ``run_recipe``.

    Raises:
        BackendError: a process died.
        RankSagaError: what the run itself raised.
    """
    with tempfile.TemporaryDirectory(prefix="ranksaga-") as shared:
        job = Path(shared) / "job.json"
        write_json(job, {"recipe": recipe.model_dump(mode="json"), "folder": str(folder), "options": options})
        _start(count, job)
        result = read_json(job.with_name("result.json"))
    if "error" in result:
        raise RankSagaError.from_json(result)
    return Outcome(**{**result, "folder": Path(result["folder"])})


def _start(count: int, job: Path) -> None:
    """Start the processes and wait for their end; torchrun's own log would only repeat what the error says."""
    import logging

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.disable(logging.CRITICAL)
    try:
        elastic_launch(config, sys.executable)("-m", __name__, str(job))
    except ChildFailedError as error:
        raise BackendError(_cause(error, count, job.parent)) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise BackendError(f"ended by {error.sigval.name}; {GO_ON}") from None
    finally:
        logging.disable(logging.NOTSET)


def _cause(error: Any, count: int, shared: Path) -> str:
    """What ended the run. A rank that is killed makes others fail, and so does the first one that raises."""
    killed = {rank: failure for rank, failure in error.failures.items() if failure.exitcode < 0}
    for rank, failure in killed.items():
        return f"rank {rank} of {count} was killed ({signal.Signals(-failure.exitcode).name}); {GO_ON}"
    notes = sorted(shared.glob("rank-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    if not notes:
        rank, failure = next(iter(error.failures.items()))
        return f"rank {rank} of {count} ended with exit code {failure.exitcode}; {GO_ON}"
    kept = Path(tempfile.gettempdir()) / f"ranksaga-{os.getpid()}-{notes[0].name}"
    text = notes[0].read_text(encoding="utf-8")
    kept.write_text(text, encoding="utf-8")
    rank = int(notes[0].stem.removeprefix("rank-"))
    return f"rank {rank} of {count} failed ({text.strip().splitlines()[-1]}); see {kept}; {GO_ON}"


def main(arguments: Sequence[str]) -> int:
    """One of the processes: ``python -m ranksaga.backends.torchrun JOB.json``; the exit code."""
    job = Path(arguments[0])
    rank = int(os.environ["RANK"])
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        device = _join()
        if rank == 0:
            write_json(job.with_name("result.json"), _lead(read_json(job), device))
        else:
            _follow(device)
        import torch.distributed as distributed

        distributed.destroy_process_group()
    except KeyboardInterrupt:
        return 130
    except Exception:
        (job.parent / f"rank-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return 1
    return 0


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone: a second command would write the same run."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _join() -> str:
    """Join the others; the device of this process, as torch names it."""
    import torch
    import torch.distributed as distributed

    count = int(os.environ["WORLD_SIZE"])
    if torch.cuda.is_available():
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
        # Processes that share a GPU cannot use NCCL.
        backend = "cpu:gloo,cuda:nccl" if count <= torch.cuda.device_count() else "cpu:gloo,cuda:gloo"
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // count))
        device, backend = "cpu", "gloo"
    distributed.init_process_group(backend, timeout=FOREVER)
    return device


def _lead(job: dict[str, Any], device: str) -> dict[str, Any]:
    """Run the recipe; a mistake of the user comes back as data."""
    workers = TorchrunWorkers(device)
    recipe = Recipe.model_validate(job["recipe"])
    result: dict[str, Any]
    try:
        outcome = run_recipe(recipe, Path(job["folder"]), Terminal(), workers=workers, **job["options"])
        result = {**asdict(outcome), "folder": str(outcome.folder)}
    except RankSagaError as error:
        result = error.as_json()
    workers.stop()
    return result


class TorchrunWorkers(LocalRunWorkers):
    """Rank 0's team: itself and those that :func:`_follow`."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._sent: deque[str] = deque(maxlen=KEPT)

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Every N-th batch each; the own ones come as they are made."""
        if len(batches) == 1:
            yield from super().vectors(engine, batches)
            return
        new = engine.identity not in self._sent
        if new:
            self._sent.append(engine.identity)
        _broadcast(("encode", engine.identity, engine if new else None, batches))
        try:
            yield from _own(engine, batches)
        finally:
            # The others wait for this, whatever happened here.
            others = _gathered(())
        yield from others

    def train(
        self,
        model: SentenceTransformer,
        sources: Sequence[TrainingPairs] | Sequence[Teacher],
        settings: Training,
        *,
        progress: Progress | None = None,
        **options: Unpack[TrainingOptions],
    ) -> TrainingResult:
        """All together."""
        _broadcast(("train", on_cpu(model), sources, settings, options))
        return super().train(model, sources, settings, progress=progress, **options)

    def stop(self) -> None:
        """The others end."""
        _broadcast(("stop",))


def _follow(device: str) -> None:
    """Do what rank 0 says, until it says stop."""
    from ranksaga.train.trainer import train

    engines: deque[tuple[str, Engine]] = deque(maxlen=KEPT)
    while True:
        match _broadcast(None):
            case ("encode", identity, engine, batches):
                if engine is not None:
                    engines.append((identity, engine.to(device)))
                _gathered(list(_own(dict(engines)[identity], batches)))
            case ("train", model, sources, settings, options):
                with contextlib.suppress(RankSagaError):  # rank 0 has it, too
                    train(model.to(device), sources, settings, **options)
            case _:
                return


def _broadcast(message: Any) -> Any:
    """Rank 0's message, on every rank."""
    import torch
    import torch.distributed as distributed

    sent = [message]
    distributed.broadcast_object_list(sent, device=torch.device("cpu"))
    return sent[0]


def _own(engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """This rank's batches. They are sorted by length, so every N-th one is a fair share."""
    import torch.distributed as distributed

    places = range(distributed.get_rank(), len(batches), distributed.get_world_size())
    return compute_batches(engine, ((place, batches[place]) for place in places))


def _gathered(
    made: Sequence[tuple[int, NDArray[np.float32]]],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """What all ranks made, on rank 0; nothing on the others."""
    import torch.distributed as distributed

    everyone: list[Any] | None = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
    distributed.gather_object(made, everyone)
    return (one for part in everyone or () for one in part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
