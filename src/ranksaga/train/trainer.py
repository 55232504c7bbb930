"""The training loop.

AdamW, linear warm-up and decay, gradient clipping, mixed precision. Every step is a function of
the state before it and of (seed, step), so a killed run that is resumed from a checkpoint ends in
the same weights as one that was not killed (bit for bit on a CPU with the same number of threads).

Several processes that torch.distributed has joined train one model: each embeds its share of a batch's
texts, and all see all vectors, so the loss is that of the whole batch however many they are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ranksaga.encode.towers import has_two_towers, towers
from ranksaga.errors import StageError
from ranksaga.files import hash_json
from ranksaga.recipe import Training
from ranksaga.train.batches import Bank, Batch, Batches
from ranksaga.train.checkpoint import remove_checkpoints
from ranksaga.train.distill import DistillationBatches
from ranksaga.train.embed import Embedder, Pass, deal
from ranksaga.train.journal import Journal, TrainingResult, epoch_path, read_finished, write_finished
from ranksaga.train.losses import cross_entropy
from ranksaga.train.merge import load_weights
from ranksaga.train.pairs import Source
from ranksaga.train.teacher import Teacher
from ranksaga.train.world import World

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Progress", "TrainingResult", "learning_rate", "train"]

FORMAT = 1
CLIP = 1.0
DROPOUT = 3  # stream of random draws, beside those of ``batches``
# Batches of more padded tokens are trained with gradient caching: a third more time, far less memory.
CACHE_ABOVE = {"cpu": 16384, "cuda": 131072}
# Settings that decide what is trained on or what is done with the weights, not how they are trained.
ELSEWHERE = {"splits", "search", "cross_fitted", "merge_weights", "document_weights", "tolerance"}


class Progress(Protocol):
    """Is told of every optimizer step."""

    def __call__(self, *, step: int, total: int, loss: float, pairs_per_second: float, seconds_left: float) -> None:
        """``step`` of ``total`` are done; the loss is that of the last step."""
        ...


def train(
    model: SentenceTransformer,
    sources: Sequence[Source] | Sequence[Teacher],
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
        checkpoint_seconds: time between checkpoints; each epoch ends with one too.

    Raises:
        StageError: nothing to train on, a loss that is not finite, or a folder with another run.
    """
    if settings.towers != "shared" and not has_two_towers(model):
        raise StageError(f"towers: {settings.towers} trains a model with two towers, and this one has one; split it")
    batches = _plan(sources, settings, seed)
    full = batches.per_epoch * settings.epochs
    total = min(full, settings.max_steps or full)
    prompts = (query_prompt, document_prompt) if settings.prompts else ("", "")
    length = min(settings.max_length or max_length, max_length)
    identity = hash_json(
        {
            "format": FORMAT,
            "settings": settings.model_dump(mode="json", exclude=ELSEWHERE),
            "sources": [[source.name, source.fingerprint] for source in sources],
            "encoder": [*prompts, length, precision],
            "seed": seed,
            "weights": _weights_hash(model),
        }
    )
    world = World()
    if (finished := world.led(lambda: read_finished(folder, identity))) is not None:
        model.load_state_dict(world.led(lambda: load_weights(finished.epochs[-1])))
        return finished
    embedder = Embedder(model, prompts, max_length=length, precision=precision, ranks=world.size)
    with _training_mode(model, settings), ExitStack() as stack:
        step = _Step(model, embedder, settings, total, seed, world)
        journal = stack.enter_context(Journal(folder, identity, model, step.optimizer, step.scaler, world))
        for number in range(journal.position.step, total):
            epoch, place = divmod(number, batches.per_epoch)
            batch = batches.get(epoch, place)
            loss, rate = step(number, batch)
            journal.add(epoch, batch, loss, rate)
            if progress is not None:
                progress(**journal.report(total))
            if place + 1 == batches.per_epoch or number + 1 == total:
                journal.end_epoch(epoch)
            elif journal.since_checkpoint >= checkpoint_seconds:
                journal.checkpoint()
    steps = [min(batches.per_epoch, total - start) for start in range(0, total, batches.per_epoch)]

    def finish() -> TrainingResult:
        result = TrainingResult(
            epochs=tuple(epoch_path(folder, epoch) for epoch in range(len(steps))),
            losses=tuple(loss / count for loss, count in zip(journal.position.losses, steps, strict=True)),
            steps=total,
            pairs=journal.position.pairs,
            seconds=journal.position.seconds,
            capped=total < full,
        )
        write_finished(folder, identity, result)
        remove_checkpoints(folder)
        return result

    return world.led(finish)


def _plan(
    sources: Sequence[Source] | Sequence[Teacher], settings: Training, seed: int
) -> Batches | DistillationBatches:
    """Batches of examples, or of what teachers say."""
    if settings.distillation is not None:
        return DistillationBatches([one for one in sources if isinstance(one, Teacher)], settings, seed)
    return Batches([one for one in sources if not isinstance(one, Teacher)], settings, seed)


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Rate of the step (0, 1, ...): rises linearly over ``warmup`` steps, then falls linearly to 0 after the last."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (total - step) / (total - warmup)


class _Step:
    """Model, loss, optimizer and loss scaler: one call is one optimizer step."""

    def __init__(
        self,
        model: SentenceTransformer,
        embedder: Embedder,
        settings: Training,
        total: int,
        seed: int,
        world: World,
    ) -> None:
        import torch

        self._world = world
        self._device = model.device
        self._embedder = embedder
        self._total = total
        self._seed = seed
        self._warmup = min(-(-total // 10) if settings.warmup_steps is None else settings.warmup_steps, total)
        # Dot products of vectors of any length are large as they are.
        self._scale = settings.scale if embedder.unit_length else 1.0
        query, document = towers(model)
        # Each tower is clipped by itself: its gradient is of its own size. A step may leave one without any.
        self._trained = [
            [parameter for parameter in tower.parameters() if parameter.requires_grad]
            for tower in ((query,) if query is document else (query, document))
        ]
        self._peak = settings.learning_rate
        peaks = (settings.learning_rate, settings.document_learning_rate or settings.learning_rate)
        # Vectors are biases and norms, which decay would only harm.
        groups = [
            {"params": [p for p in tower if (p.ndim > 1) == decays], "peak": peak, "weight_decay": decay}
            for tower, peak in zip(self._trained, peaks, strict=False)
            for decays, decay in ((True, settings.weight_decay), (False, 0.0))
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=embedder.precision == "fp16")

    def __call__(self, number: int, batch: Batch) -> tuple[float, float]:
        """Loss and learning rate of this step.

        Raises:
            StageError: the loss is not finite.
        """
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self._total, group["peak"], self._warmup)
        loss = self._backward(number, batch)
        self.scaler.unscale_(self.optimizer)
        for tower in self._trained:
            torch.nn.utils.clip_grad_norm_(tower, CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, self.optimizer.param_groups[0]["lr"]

    def _backward(self, number: int, batch: Batch) -> float:
        """Gradients of the batch's loss; the loss.

        The loss is taken of all vectors as values, and its gradient at this process's own ones is then carried on
        to the weights. Where those are many they are embedded a second time for that, pass by pass, so that the
        graph of one pass at a time is in memory (GradCache, Gao et al. 2021).
        """
        import torch

        passes = self._embedder.passes(batch.queries, batch.documents)
        mine = deal(passes, self._world.rank, self._world.size)
        kind = "cuda" if self._device.type == "cuda" else "cpu"
        cached = sum(part.padded for _, part in mine) > CACHE_ABOVE[kind]
        count = len(batch.queries) + len(batch.documents)
        vectors = torch.zeros(count, self._embedder.dimension, device=self._device)
        parts = []
        for place, part in mine:
            with torch.set_grad_enabled(not cached):
                parts.append(self._embed(number, place, part))
            vectors[list(part.rows)] = parts[-1].detach()
        self._world.sum(vectors)
        loss = self._loss(vectors.requires_grad_(), number, batch)
        torch.autograd.backward(self.scaler.scale(loss))
        assert vectors.grad is not None
        for (place, part), made in zip(mine, parts, strict=True):
            again = self._embed(number, place, part) if cached else made
            if again.requires_grad:
                torch.autograd.backward(again, vectors.grad[list(part.rows)])
        self._world.sum_gradients(parameter for tower in self._trained for parameter in tower)
        return float(loss.detach())

    def _embed(self, number: int, place: int, part: Pass) -> torch.Tensor:
        _seed_dropout(self._seed, number, place)
        return self._embedder.forward(part)

    def _loss(self, vectors: torch.Tensor, number: int, batch: Batch) -> torch.Tensor:
        import torch

        target, ignore = (torch.from_numpy(array).to(self._device) for array in (batch.target, batch.ignore))
        count = len(batch.queries)
        queries, documents = vectors[:count], vectors[count:]
        loss = vectors.new_zeros(())
        if len(documents):
            loss = loss + cross_entropy(queries, documents, target, ignore, self._scale)
        if batch.bank is not None:
            loss = loss + self._bank_loss(queries, documents, batch.bank)
        if not math.isfinite(value := float(loss.detach())):
            raise StageError(
                f"the loss became {value} at step {number + 1} of {self._total} "
                f"(batch from {', '.join(batch.sources)}); lower the learning rate (now {self._peak:g}) "
                "or train in fp32"
            )
        return loss

    def _bank_loss(self, queries: torch.Tensor, documents: torch.Tensor, bank: Bank) -> torch.Tensor:
        """Against the corpus as the base model encoded it, and what holds the batch's documents near that."""
        import torch

        kept, target, ignore = (
            torch.from_numpy(array).to(self._device) for array in (bank.documents, bank.target, bank.ignore)
        )
        loss = bank.weight * cross_entropy(queries, kept, target, ignore, self._scale)
        if not len(documents):
            return loss
        old = kept[torch.from_numpy(bank.live).to(self._device)]
        return loss + bank.anchor * (1.0 - (documents[: len(bank.live)] * old).sum(dim=1)).mean()


def _weights_hash(model: torch.nn.Module) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _seed_dropout(seed: int, step: int, index: int) -> None:
    """Make dropout a function of seed, step and pass: it can be drawn again when resumed or cached."""
    import torch

    state = np.random.SeedSequence([seed, DROPOUT, step, index]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state >> np.uint64(1)))


@contextmanager
def _training_mode(model: SentenceTransformer, settings: Training) -> Iterator[None]:
    """Dropout on or off, embeddings frozen or not; the model ends in evaluation mode with all of its weights
    trainable, and the caller's random state as it was.

    Dropout off is evaluation mode: it is all that the two modes differ in for a transformer, and
    it keeps attention on its fast path (on a CPU, dropout inside attention takes 5 times as long).
    """
    import torch

    on_gpu = model.device.type == "cuda"
    with torch.random.fork_rng(devices=[model.device] if on_gpu else []), torch.enable_grad():
        model.train(on_gpu if settings.dropout is None else settings.dropout)
        frozen: list[torch.nn.Parameter] = []
        query, document = towers(model)
        if settings.freeze_embeddings:
            frozen += [one.transformers_model.get_input_embeddings().weight for one in {query, document}]
        if settings.towers == "query":
            frozen += document.parameters()
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            model.eval()
            for parameter in frozen:
                parameter.requires_grad_(True)
