"""The training loop.

AdamW, linear warm-up and decay, gradient clipping, mixed precision. Every step is a function of
the state before it and of (seed, step), so a killed run that is resumed from a checkpoint ends in
the same weights as one that was not killed (bit for bit on a CPU with the same number of threads).
Processes that torch.distributed has joined all call this and train one model; rank 0 writes the files.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ranksaga.config.training import Distilled, Labelled, Training
from ranksaga.encode.fingerprint import fingerprint
from ranksaga.encode.towers import has_two_towers, towers
from ranksaga.encode.weight_files import load_weights
from ranksaga.errors import StageError
from ranksaga.files import hash_json
from ranksaga.memory import keep_memory, return_memory
from ranksaga.profile import timed
from ranksaga.train.batches import Batch, Batches
from ranksaga.train.checkpoint import remove_checkpoints
from ranksaga.train.distill import DistillationBatches
from ranksaga.train.embed import Embedder
from ranksaga.train.lora import add_low_rank, merge_low_rank
from ranksaga.train.pairs import TrainingPairs
from ranksaga.train.process_group import ProcessGroup
from ranksaga.train.step import Step, StepResult
from ranksaga.train.teacher import Teacher
from ranksaga.train.training_state import TrainingResult, TrainingState, epoch_path, read_finished, write_finished

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Progress", "TrainingResult", "train"]

FORMAT = 1
THREADS = 4  # that make batches for a GPU
# Settings that decide what is trained on or what is done with the weights, not how they are trained.
ELSEWHERE = {"splits", "seeds", "cross_fitted", "merge_weights", "documents", "tolerance", "standard_errors"}


class Progress(Protocol):
    """Is told of every optimizer step."""

    def __call__(self, *, step: int, total: int, loss: float, pairs_per_second: float, seconds_left: float) -> None:
        """``step`` of ``total`` are done; the loss is that of the last step."""
        ...


def train(
    model: SentenceTransformer,
    sources: Sequence[TrainingPairs] | Sequence[Teacher],
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
    """Fine-tune ``model`` in place; it ends with the weights of the last epoch, in evaluation mode.

    ``folder`` gets ``epoch-1.safetensors`` ..., ``loss.jsonl`` (one line a step) and, when done,
    ``training.json``. Called again with the same arguments, an unfinished run goes on from
    its last checkpoint and a finished one is only read.

    Args:
        model: the base model in float32, on the device to train on.
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
        checkpoint_seconds: time between checkpoints; each epoch but the last ends with one too.

    Raises:
        StageError: nothing to train on, a loss that is not finite, or a folder with another run.
    """
    if settings.trains != "shared" and not has_two_towers(model):
        raise StageError(f"towers: {settings.trains} trains a model with two towers, and this one has one; split it")
    batches = _plan(sources, settings, seed)
    full = batches.per_epoch * settings.epochs
    total = min(full, settings.max_steps or full)
    prompts = ("", "") if isinstance(settings, Labelled) and not settings.prompts else (query_prompt, document_prompt)
    length = min(settings.max_length or max_length, max_length)
    identity = hash_json(
        {
            "format": FORMAT,
            "settings": settings.model_dump(mode="json", exclude=ELSEWHERE, exclude_none=True),
            "trains": settings.trains,
            "sources": [[source.name, source.fingerprint] for source in sources],
            "encoder": [*prompts, length, precision],
            "seed": seed,
            "weights": _weights_hash(model),
        }
    )
    world = ProcessGroup()
    if (finished := world.on_rank_zero(lambda: read_finished(folder, identity))) is not None:
        model.load_state_dict(world.on_rank_zero(lambda: load_weights(finished.epochs[-1])))
        return finished
    if model.device.type == "cpu":
        keep_memory()
    embedder = Embedder(model, prompts, max_length=length, precision=precision, ranks=world.size)
    with _training_mode(model, settings, seed), ExitStack() as stack:
        step = Step(model, embedder, settings, total, seed, world)
        state = stack.enter_context(TrainingState(folder, identity, model, step.optimizer, step.scaler, world))
        delay = 1 if model.device.type == "cuda" else 0  # steps whose loss is not read yet: the GPU is not waited for
        unread: deque[tuple[int, Batch, StepResult]] = deque()

        def read(left: int) -> None:
            """Log all steps but the last ``left``."""
            while len(unread) > left:
                epoch, batch, result = unread.popleft()
                state.add(epoch, batch, result.loss(), result.rate)
                if progress is not None:
                    progress(**state.report(total))

        for number, batch in _numbered(batches, state.position.step, total, ahead=bool(delay)):
            epoch, place = divmod(number, batches.per_epoch)
            unread.append((epoch, batch, step(number, batch)))
            ends = place + 1 == batches.per_epoch or number + 1 == total
            due = ends or state.since_checkpoint >= checkpoint_seconds
            read(0 if due else delay)  # nothing is kept of weights whose loss was not finite
            if ends:
                state.end_epoch(epoch, last=number + 1 == total)
            elif due:
                state.checkpoint()
    return_memory()
    steps = [min(batches.per_epoch, total - start) for start in range(0, total, batches.per_epoch)]

    def finish() -> TrainingResult:
        result = TrainingResult(
            epochs=tuple(epoch_path(folder, epoch) for epoch in range(len(steps))),
            losses=tuple(loss / count for loss, count in zip(state.position.losses, steps, strict=True)),
            steps=total,
            pairs=state.position.pairs,
            seconds=state.position.seconds,
            capped=total < full,
        )
        write_finished(folder, identity, result, state.position)
        remove_checkpoints(folder)
        return result

    return world.on_rank_zero(finish)


def _plan(
    sources: Sequence[TrainingPairs] | Sequence[Teacher], settings: Training, seed: int
) -> Batches | DistillationBatches:
    """Batches of examples, or of what teachers say."""
    if isinstance(settings, Distilled):
        return DistillationBatches([one for one in sources if isinstance(one, Teacher)], settings, seed)
    if isinstance(settings, Labelled):
        return Batches([one for one in sources if not isinstance(one, Teacher)], settings, seed)
    raise TypeError(f"expected settings of a method, found {type(settings).__name__}")


def _numbered(
    batches: Batches | DistillationBatches, start: int, stop: int, *, ahead: bool
) -> Iterator[tuple[int, Batch]]:
    """Steps and their batches. ``ahead``: made in threads of their own, some steps before a GPU asks for them.

    On a CPU these would take the cores from training.
    """

    def batch(number: int) -> Batch:
        return batches.get(*divmod(number, batches.per_epoch))

    if not ahead:
        for number in range(start, stop):
            with timed("batches"):
                made = batch(number)
            yield number, made
        return
    count = max(1, min(THREADS, (os.cpu_count() or 1) - 1))
    threads = ThreadPoolExecutor(count)
    try:
        coming = deque(threads.submit(batch, number) for number in range(start, min(stop, start + count)))
        for number in range(start, stop):
            if number + count < stop:
                coming.append(threads.submit(batch, number + count))
            with timed("batches"):
                made = coming.popleft().result()
            yield number, made
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _weights_hash(model: torch.nn.Module) -> str:
    state = sorted(model.state_dict().items())
    digest = hashlib.sha256("".join(name for name, _ in state).encode())
    digest.update(fingerprint(tensor for _, tensor in state))
    return digest.hexdigest()


@contextmanager
def _training_mode(model: SentenceTransformer, settings: Training, seed: int) -> Iterator[None]:
    """Dropout on or off, embeddings frozen or not, low-rank updates or all weights.

    The model ends in evaluation mode with all of its weights trainable, and the caller's random state as it was.

    Dropout off is evaluation mode: it is all that the two modes differ in for a transformer, and
    it keeps attention on its fast path (on a CPU, dropout inside attention takes 5 times as long).
    """
    import torch

    on_gpu = model.device.type == "cuda"
    with torch.random.fork_rng(devices=[model.device] if on_gpu else []), torch.enable_grad():
        model.train(settings.dropout)
        frozen: list[torch.nn.Parameter] = []
        query, document = towers(model)
        if settings.freeze_embeddings:
            frozen += [one.transformers_model.get_input_embeddings().weight for one in {query, document}]
        if settings.trains != "shared":
            frozen += (document if settings.trains == "query" else query).parameters()
        if settings.lora is not None:
            both = tuple(dict.fromkeys((query, document)))
            trained = {"shared": both, "query": (query,), "document": (document,)}[settings.trains]
            add_low_rank(trained, settings.lora, seed)
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            merge_low_rank(model)
            model.eval()
            model.requires_grad_(True)
