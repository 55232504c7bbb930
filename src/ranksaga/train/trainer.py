"""The training loop.

AdamW, linear warm-up and decay, gradient clipping, mixed precision. Every step is a function of
the state before it and of (seed, step), so a killed run that is resumed from a checkpoint ends in
the same weights as one that was not killed (bit for bit on a CPU with the same number of threads).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from ranksaga.errors import StageError
from ranksaga.files import hash_json, read_json, write_json, write_text
from ranksaga.recipe import Training
from ranksaga.train.batches import Batch, Batches
from ranksaga.train.checkpoint import Position, remove_checkpoints, restore_latest, save_checkpoint
from ranksaga.train.embed import Embedder
from ranksaga.train.losses import cross_entropy
from ranksaga.train.merge import load_weights, save_weights
from ranksaga.train.pairs import Source

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Progress", "TrainingResult", "learning_rate", "train"]

logger = logging.getLogger(__name__)

FORMAT = 1
CLIP = 1.0
DROPOUT_STREAM = 3
# Settings that decide what is done with the trained weights, not what they are.
NOT_TRAINING = {"splits", "merge_weights", "tolerance"}


class Progress(Protocol):
    """Is told of every optimizer step."""

    def __call__(self, *, step: int, total: int, loss: float, pairs_per_second: float, seconds_left: float) -> None:
        """``step`` of ``total`` are done; the loss is that of the last step."""
        ...


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


def train(
    model: SentenceTransformer,
    sources: Sequence[Source],
    settings: Training,
    *,
    query_prompt: str,
    document_prompt: str,
    max_length: int,
    precision: str,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
    checkpoint_seconds: float = 300.0,
) -> TrainingResult:
    """Fine-tune ``model`` in place; it ends with the weights of the last epoch.

    ``folder`` gets ``epoch-1.safetensors`` ..., ``loss.jsonl`` (one line a step) and, when done,
    ``training.json``. Called again with the same arguments, an unfinished run goes on from
    its last checkpoint and a finished one is only read.

    Args:
        model: in float32, on the device to train on.
        sources: what to train on.
        settings: how.
        query_prompt: put before queries, unless the settings train without prompts.
        document_prompt: put before documents, likewise.
        max_length: the encoder's limit in tokens; the settings may lower it.
        precision: fp32, bf16 or fp16 (CUDA only) for the transformer's forward and backward pass;
            weights, pooling, loss and optimizer are always float32.
        seed: of batches and dropout.
        folder: for the results of this run alone.
        progress: told of every step.
        checkpoint_seconds: time between checkpoints; each epoch ends with one too.

    Raises:
        StageError: nothing to train on, a loss that is not finite, or a folder with another run.
    """
    batches = Batches(sources, settings, seed)
    full = batches.per_epoch * settings.epochs
    total = min(full, settings.max_steps or full)
    identity = hash_json(
        {
            "format": FORMAT,
            "settings": settings.model_dump(mode="json", exclude=NOT_TRAINING),
            "sources": [[source.name, source.fingerprint] for source in sources],
            "encoder": [query_prompt, document_prompt, max_length, precision],
            "seed": seed,
            "weights": _weights_hash(model),
        }
    )
    finished = _finished(folder, identity)
    if finished is not None:
        model.load_state_dict(load_weights(finished.epochs[-1]))
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    use_prompts = settings.prompts
    embedder = Embedder(
        model,
        (query_prompt if use_prompts else "", document_prompt if use_prompts else ""),
        max_length=min(settings.max_length or max_length, max_length),
        precision=precision,
    )
    stepper = _Stepper(model, embedder, settings, total)
    with _training_mode(model, settings.dropout), _Run(folder, identity, stepper) as run:
        for step in range(run.position.step, total):
            epoch, place = divmod(step, batches.per_epoch)
            _seed_dropout(seed, step)
            run.advance(epoch, batches.get(epoch, place))
            if progress is not None:
                progress(**run.report(total))
            if place + 1 == batches.per_epoch or step + 1 == total:
                save_weights(_epoch_path(folder, epoch), model.state_dict())
                run.checkpoint()
            elif run.since_checkpoint >= checkpoint_seconds:
                run.checkpoint()
        position = run.position
    epochs = -(-total // batches.per_epoch)
    result = TrainingResult(
        epochs=tuple(_epoch_path(folder, epoch) for epoch in range(epochs)),
        losses=_epoch_losses(folder, epochs),
        steps=total,
        pairs=position.examples,
        seconds=position.seconds,
        capped=total < full,
    )
    _write_finished(folder, identity, result)
    remove_checkpoints(folder)
    return result


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Rate of the step (0, 1, ...): rises linearly over ``warmup`` steps, then falls linearly to 0 after the last."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (total - step) / (total - warmup)


class _Stepper:
    """Model, loss, optimizer and loss scaler: one call is one optimizer step."""

    def __init__(self, model: SentenceTransformer, embedder: Embedder, settings: Training, total: int) -> None:
        import torch

        self.model = model
        self._embedder = embedder
        self._settings = settings
        self._total = total
        wanted = math.ceil(total / 10) if settings.warmup_steps is None else settings.warmup_steps
        self._warmup = min(wanted, total)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Vectors are biases and norms: pulling those to 0 does harm and no good.
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=embedder.precision == "fp16")
        self._trained = trained

    def __call__(self, step: int, batch: Batch) -> tuple[float, float]:
        """Loss and learning rate of this step.

        Raises:
            StageError: the loss is not finite.
        """
        import torch

        rate = learning_rate(step, self._total, self._settings.learning_rate, self._warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        device = self.model.device
        queries, documents = self._embedder(batch.queries, batch.documents)
        target, ignore = (torch.from_numpy(array).to(device) for array in (batch.target, batch.ignore))
        loss = cross_entropy(queries, documents, target, ignore, self._settings.scale)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise StageError(
                f"the loss became {value} at step {step + 1} of {self._total} (batch from {', '.join(batch.sources)}); "
                f"lower the learning rate (now {self._settings.learning_rate:g}) or train in fp32"
            )
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self._trained, CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return value, rate


class _Run:
    """Where a run stands: its position, its loss log and its checkpoints."""

    def __init__(self, folder: Path, identity: str, stepper: _Stepper) -> None:
        self._folder = folder
        self._stepper = stepper
        self._state = (identity, stepper.model, stepper.optimizer, stepper.scaler)
        self.position = restore_latest(folder, *self._state)
        if self.position.step:
            logger.info("resuming after step %d", self.position.step)
        self._start = self._saved = perf_counter()
        self._before = self.position
        self._loss = math.nan

    def __enter__(self) -> _Run:
        path = self._folder / LOG
        kept = [line for line in _log(path) if line["step"] <= self.position.step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._log: IO[str] = path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    @property
    def since_checkpoint(self) -> float:
        """Seconds since the last checkpoint or the start."""
        return perf_counter() - self._saved

    def advance(self, epoch: int, batch: Batch) -> None:
        """One step, logged."""
        self._loss, rate = self._stepper(self.position.step, batch)
        seconds = self._before.seconds + perf_counter() - self._start
        speed = len(batch.queries) / max(seconds - self.position.seconds, 1e-9)
        self.position = Position(self.position.step + 1, self.position.examples + len(batch.queries), seconds)
        line = {
            "step": self.position.step,
            "epoch": epoch + 1,
            "source": ", ".join(batch.sources),
            "loss": self._loss,
            "learning_rate": rate,
            "pairs_per_second": round(speed, 2),
            "seconds": round(seconds, 3),
        }
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    def report(self, total: int) -> dict[str, Any]:
        """What :class:`Progress` is told; speeds are means since this start of the run."""
        steps = self.position.step - self._before.step
        seconds = perf_counter() - self._start
        return {
            "step": self.position.step,
            "total": total,
            "loss": self._loss,
            "pairs_per_second": (self.position.examples - self._before.examples) / seconds,
            "seconds_left": (total - self.position.step) * seconds / steps,
        }

    def checkpoint(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(self._folder, self.position, *self._state)
        self._saved = perf_counter()


LOG = "loss.jsonl"
FINISHED = "training.json"


def _epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch + 1}.safetensors"


def _log(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of the loss log up to the first torn one."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _epoch_losses(folder: Path, epochs: int) -> tuple[float, ...]:
    losses: list[list[float]] = [[] for _ in range(epochs)]
    for line in _log(folder / LOG):
        losses[line["epoch"] - 1].append(line["loss"])
    return tuple(float(np.mean(of_epoch)) for of_epoch in losses)


def _write_finished(folder: Path, identity: str, result: TrainingResult) -> None:
    names = [path.name for path in result.epochs]
    write_json(folder / FINISHED, {**asdict(result), "epochs": names, "identity": identity})


def _finished(folder: Path, identity: str) -> TrainingResult | None:
    """The result of a run that is complete.

    Raises:
        StageError: it is of other settings.
    """
    path = folder / FINISHED
    if not path.exists():
        return None
    values = read_json(path)
    if values.pop("identity") != identity:
        raise StageError(
            f"{path}: the folder holds a finished run of other settings, data or weights; train in another one"
        )
    values["epochs"] = tuple(folder / name for name in values["epochs"])
    values["losses"] = tuple(values["losses"])
    return TrainingResult(**values)


def _weights_hash(model: torch.nn.Module) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _seed_dropout(seed: int, step: int) -> None:
    """Make dropout a function of (seed, step), so that a resumed run draws what it would have drawn."""
    import torch

    torch.manual_seed(int(np.random.SeedSequence([seed, DROPOUT_STREAM, step]).generate_state(1, np.uint64)[0] >> 1))


@contextmanager
def _training_mode(model: SentenceTransformer, dropout: bool | None) -> Iterator[None]:
    """Dropout on or off, the caller's random state left alone.

    Dropout off is evaluation mode: it is all that the two modes differ in for a transformer, and
    it keeps attention on its fast path (on a CPU, dropout inside attention takes 5 times as long).
    """
    import torch

    on_gpu = model.device.type == "cuda"
    before = model.training
    with torch.random.fork_rng(devices=[model.device] if on_gpu else []), torch.enable_grad():
        model.train(on_gpu if dropout is None else dropout)
        try:
            yield
        finally:
            model.train(before)
