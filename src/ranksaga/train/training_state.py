"""What a training run leaves on disk: a loss log, checkpoints while it runs, its result when done."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import IO, TYPE_CHECKING, Any

from ranksaga.encode.weight_files import save_weights
from ranksaga.errors import StageError
from ranksaga.files import file_record, first_changed, read_checked_json, write_checked_json, write_text
from ranksaga.train.batches import Batch
from ranksaga.train.checkpoint import Position, restore_latest, save_checkpoint, share_state
from ranksaga.train.lora import plain_state
from ranksaga.train.process_group import ProcessGroup

if TYPE_CHECKING:
    import torch

__all__ = ["TrainingResult", "TrainingState", "epoch_path", "read_finished", "write_finished"]

logger = logging.getLogger(__name__)

LOG = "loss.jsonl"
FINISHED = "training.json"


@dataclass(frozen=True)
class TrainingResult:
    """A finished training run.

    Attributes:
        epochs: weights after each epoch (safetensors, all tensors of the model), in order.
        losses: mean training loss of each epoch.
        steps: optimizer steps.
        pairs: examples seen, with repetition.
        seconds: spent in training, in all starts of the run together.
        capped: ``max_steps`` ended the run before its last epoch was complete.
    """

    epochs: tuple[Path, ...]
    losses: tuple[float, ...]
    steps: int
    pairs: int
    seconds: float
    capped: bool


def epoch_path(folder: Path, epoch: int) -> Path:
    """File with the weights after an epoch (0, 1, ...)."""
    return folder / f"epoch-{epoch + 1}.safetensors"


class TrainingState:
    """Where a training run stands, in memory and on disk.

    Opening it restores the newest checkpoint into model, optimizer and scaler.

    Of several ranks only the first reads and writes files; the others are brought to its state and keep count.

    Raises:
        StageError: the folder holds a checkpoint of another run.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        world: ProcessGroup,
    ) -> None:
        self._folder = folder
        self._process_group = world
        self._state = (identity, model, optimizer, scaler)
        self.position = self._resumed = world.on_rank_zero(lambda: restore_latest(folder, *self._state))
        share_state(world, model, optimizer, scaler)
        if self.position.step:
            logger.info("resuming after step %d", self.position.step)
        self._start = self._saved = perf_counter()
        self._loss = math.nan

    def __enter__(self) -> TrainingState:
        self._log: IO[str] | None = None
        if not self._process_group.leads:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / LOG
        # Steps after the checkpoint are done again.
        write_text(path, read_log(path, self.position.log))
        self._log = path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.close()

    @property
    def since_checkpoint(self) -> float:
        """Seconds since the last checkpoint or the start."""
        return perf_counter() - self._saved

    def add(self, epoch: int, batch: Batch, loss: float, rate: float) -> None:
        """Log one more step."""
        seconds = self._resumed.seconds + perf_counter() - self._start
        pairs = len(batch.queries)
        line = {
            "step": self.position.step + 1,
            "epoch": epoch + 1,
            "sources": batch.sources,
            "loss": loss,
            "learning_rate": rate,
            "pairs_per_second": round(pairs / max(seconds - self.position.seconds, 1e-9), 2),
            "seconds": round(seconds, 3),
        }
        losses = [*self.position.losses, *[0.0] * (epoch + 1 - len(self.position.losses))]
        losses[epoch] += loss
        self.position = replace(
            self.position,
            step=self.position.step + 1,
            pairs=self.position.pairs + pairs,
            seconds=seconds,
            losses=tuple(losses),
        )
        self._loss = loss
        if self._log is not None:
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()

    def report(self, total: int) -> dict[str, Any]:
        """What the progress callback is told; speed and time left are means since this start of the run."""
        seconds = perf_counter() - self._start
        return {
            "step": self.position.step,
            "total": total,
            "loss": self._loss,
            "pairs_per_second": (self.position.pairs - self._resumed.pairs) / seconds,
            "seconds_left": (total - self.position.step) * seconds / (self.position.step - self._resumed.step),
        }

    def end_epoch(self, epoch: int, *, last: bool) -> None:
        """Keep the weights as they are after an epoch (0, 1, ...), and write a checkpoint unless the run is over."""
        if self._log is not None:
            path = epoch_path(self._folder, epoch)
            save_weights(path, plain_state(self._state[1]))
            self.position = replace(self.position, epochs={**self.position.epochs, path.name: file_record(path)})
        if not last:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write a checkpoint; the log reaches the disk before it."""
        if self._log is not None:
            os.fsync(self._log.fileno())
            self.position = replace(self.position, log=file_record(self._folder / LOG))
            save_checkpoint(self._folder, self.position, *self._state)
        self._saved = perf_counter()


def read_log(path: Path, record: Sequence[Any]) -> str:
    """The lines of a loss log that a checkpoint vouches for; none where they are not what was written."""
    if not record:
        return ""
    content = path.read_bytes()[: record[0]] if path.is_file() else b""
    if [len(content), hashlib.sha256(content).hexdigest()] != list(record):
        logger.warning("%s is damaged; it begins anew", path)
        return ""
    return content.decode("utf-8")


def write_finished(folder: Path, identity: str, result: TrainingResult, position: Position) -> None:
    """Write ``training.json``, which marks the run as complete."""
    values = {**asdict(result), "epochs": dict(position.epochs), "identity": identity}
    write_checked_json(folder / FINISHED, values)


def read_finished(folder: Path, identity: str) -> TrainingResult | None:
    """The result of a complete run, None where it is not complete, or what it left is damaged.

    Raises:
        StageError: the folder holds a complete run of another identity.
    """
    path = folder / FINISHED
    values = read_checked_json(path)
    if values is None:
        return None
    if values.pop("identity") != identity:
        raise StageError(
            f"{path}: the folder holds a finished run of other settings, data or weights; train in another one"
        )
    if (damaged := first_changed(folder, values["epochs"])) is not None:
        logger.warning("%s is missing or damaged, so it is trained again", folder / damaged)
        return None
    epochs = tuple(folder / name for name in values["epochs"])
    return TrainingResult(**{**values, "losses": tuple(values["losses"]), "epochs": epochs})
