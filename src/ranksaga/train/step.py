"""One optimizer step: a batch's vectors, their loss, and what follows for the weights.

Several processes share the vectors of a batch and each sees all of them, so the loss is that of the whole
batch however many they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.training import Training
from ranksaga.encode.device_copies import fetched, sent
from ranksaga.encode.towers import towers
from ranksaga.errors import StageError, out_of_memory
from ranksaga.profile import timed
from ranksaga.train.batches import Batch
from ranksaga.train.embed import Embedder, MicroBatch, of_rank
from ranksaga.train.losses import BatchLoss
from ranksaga.train.process_group import ProcessGroup

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    _Made = tuple[int, MicroBatch, torch.Tensor | None]

T = TypeVar("T")

__all__ = ["Step", "StepResult", "learning_rate"]

CLIP = 1.0
# Of labelled pairs, as of sentence-transformers' MultipleNegativesRankingLoss. A teacher brings its own.
DEFAULT_SCALE = 20.0
DROPOUT = 3  # stream of random draws, beside those of ``batches``
# Batches of more padded tokens are trained with gradient caching: a third more time, far less memory. On a GPU what
# its memory holds decides, up to this.
CACHE_ABOVE = {"cpu": 16384, "cuda": 131072}


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Rate of the step (0, 1, ...): rises linearly over ``warmup`` steps, then falls linearly to 0 after the last."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (total - step) / (total - warmup)


@dataclass(frozen=True)
class StepResult:
    """A step that was taken: its learning rate, and its loss once the device has computed it."""

    rate: float
    _read: Callable[[], NDArray[np.float32]]
    _problem: Callable[[float], StageError]

    def loss(self) -> float:
        """The loss, for which a GPU is waited for.

        Raises:
            StageError: it is not finite.
        """
        value = float(self._read())
        if not math.isfinite(value):
            raise self._problem(value)
        return value


class Step:
    """Model, loss, optimizer and loss scaler: one call is one optimizer step.

    A GPU is not waited for, unless its memory runs out: then passes are halved, which gradient caching makes exact
    (but for dropout's draws in that one step), and stay so.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        embedder: Embedder,
        settings: Training,
        total: int,
        seed: int,
        world: ProcessGroup,
    ) -> None:
        import torch

        self._process_group = world
        self._device = model.device
        self._embedder = embedder
        self._total = total
        self._seed = seed
        self._drops = model.training
        self._warmup = min(-(-total // 10) if settings.warmup_steps is None else settings.warmup_steps, total)
        # Dot products of vectors of any length are large as they are.
        self._loss = BatchLoss(DEFAULT_SCALE if embedder.unit_length else 1.0, model.device)
        query, document = towers(model)
        # Each tower is clipped by itself: its gradient is of its own size. A step may leave one without any.
        # What towers share (a layer behind a Router, say) is the first one's.
        of_query = set(query.parameters())
        others = [] if document is query else [[one for one in document.parameters() if one not in of_query]]
        self._trained = [[one for one in tower if one.requires_grad] for tower in (query.parameters(), *others)]
        self._peak = settings.learning_rate
        # Vectors are biases and norms, which decay would only harm.
        groups = [
            {"params": [p for p in tower if (p.ndim > 1) == decays], "weight_decay": decay}
            for tower in self._trained
            for decays, decay in ((True, settings.weight_decay), (False, 0.0))
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=embedder.precision == "fp16")
        on_gpu = self._device.type == "cuda"
        if on_gpu:  # all ranks cut a batch alike
            embedder.budget = world.least(embedder.memory_budget())
        self._keeps = embedder.budget if on_gpu else CACHE_ABOVE["cpu"]  # tokens whose graphs are kept at once
        self._fits = math.inf  # tokens of a pass that memory holds, as far as is known

    def __call__(self, number: int, batch: Batch) -> StepResult:
        """Take this step.

        Raises:
            StageError: the loss is not finite (where weights lie on a CPU; else ``StepResult.loss`` says so), or memory
                does not hold a single text, or what the optimizer keeps.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self._total, self._peak, self._warmup)
        rate = self.optimizer.param_groups[0]["lr"]

        def problem(value: float) -> StageError:
            return StageError(
                f"the loss became {value} at step {number + 1} of {self._total} "
                f"(batch from {', '.join(batch.sources)}); lower the learning rate (now {self._peak:g}) "
                "or train in fp32"
            )

        try:
            result = StepResult(rate, fetched(self._backward(number, batch)), problem)
            if self._device.type != "cuda":
                result.loss()
            with timed("optimizer"):
                self._update()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise StageError(
                f"no memory on {self._device} for the optimizer's state; train fewer weights (lora, "
                "freeze_embeddings) or use a larger card"
            ) from None
        return result

    def _update(self) -> None:
        import torch

        self.scaler.unscale_(self.optimizer)
        for tower in self._trained:
            torch.nn.utils.clip_grad_norm_(tower, CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # The fused optimizer changes weights without saying so, and packed weights must hear of it.
        torch.autograd.graph.increment_version(chain.from_iterable(self._trained))
        self.optimizer.zero_grad(set_to_none=True)

    def _backward(self, number: int, batch: Batch) -> torch.Tensor:
        """Gradients of the batch's loss; the loss, a tensor without a dimension.

        The loss is taken of all vectors as values, and its gradient at this process's own ones is then carried on
        to the weights. Where those are many they are embedded a second time for that, pass by pass, so that the
        graph of one pass at a time is in memory (GradCache, Gao et al. 2021).
        """
        import torch

        with timed("tokenise"):
            passes = self._embedder.passes(batch.queries, batch.documents)
        mine = of_rank(passes, self._process_group.rank, self._process_group.size)
        count = len(batch.queries) + len(batch.documents)
        vectors = torch.zeros(count, self._embedder.dimension, device=self._device)
        parts = self._until_it_fits(mine, lambda: self._forward(number, mine, vectors))
        self._process_group.sum(vectors)
        with timed("loss"):
            loss = self._loss(vectors.requires_grad_(), batch)
            torch.autograd.backward(self.scaler.scale(loss))
        gradient = vectors.grad
        assert gradient is not None

        def carry_on() -> None:
            nonlocal parts
            made, parts = parts, []  # after a failure nothing of them is left: all is embedded again
            self._carry_on(number, made or [(place, part, None) for place, part in self._fitting(mine)], gradient)

        self._until_it_fits(mine, carry_on)
        self._process_group.sum_gradients(parameter for tower in self._trained for parameter in tower)
        return loss.detach()

    def _forward(self, number: int, mine: Sequence[tuple[int, MicroBatch]], vectors: torch.Tensor) -> list[_Made]:
        """Put the vectors of these passes into their rows; what was made, with its graph where all graphs fit."""
        import torch

        fitting = self._fitting(mine)
        cached = sum(part.load for _, part in fitting) > self._keeps
        made: list[_Made] = []
        for place, part in fitting:
            with torch.set_grad_enabled(not cached), timed("forward", self._embedder.flops(part)):
                embedded = self._embed(number, place, part)
            vectors[self._rows(part)] = embedded.detach()
            made.append((place, part, None if cached else embedded))
        return made

    def _carry_on(self, number: int, made: Sequence[_Made], gradient: torch.Tensor) -> None:
        """From the gradient at the vectors to those of the weights, pass by pass."""
        import torch

        for place, part, embedded in made:
            if embedded is None:
                with timed("forward again"):
                    embedded = self._embed(number, place, part)
            if not embedded.requires_grad:
                continue
            with timed("backward", 2.0 * self._embedder.flops(part)):
                torch.autograd.backward(embedded, gradient[self._rows(part)])

    def _until_it_fits(self, mine: Sequence[tuple[int, MicroBatch]], work: Callable[[], T]) -> T:
        """Do it; where memory runs out, from the start, first without keeping graphs, then with smaller passes."""
        import torch

        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                # The error holds what was computed: it goes on when that is gone.
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self._take_less([part for _, part in self._fitting(mine)])

    def _take_less(self, failed: Sequence[MicroBatch]) -> None:
        """Remember that these passes were too large.

        Raises:
            StageError: none of them has more than one text.
        """
        several = [part.load for part in failed if len(part.rows) > 1]
        if self._keeps > 0:
            self._keeps = 0
        elif several:
            self._fits = max(several) / 2
        else:
            longest = max(part.load for part in failed)
            raise StageError(
                f"no memory on {self._device} to train on a text of {longest} tokens; set a smaller max_length"
            )

    def _fitting(self, mine: Sequence[tuple[int, MicroBatch]]) -> list[tuple[int, MicroBatch]]:
        """The passes, those too large for the memory in halves; each keeps the place of its whole."""
        fitting = []
        todo = list(reversed(mine))
        while todo:
            place, part = todo.pop()
            if part.load > self._fits and len(part.rows) > 1:
                first, second = part.halves()
                todo += [(place, second), (place, first)]
            else:
                fitting.append((place, part))
        return fitting

    def _rows(self, part: MicroBatch) -> torch.Tensor:
        return sent(np.array(part.rows, dtype=np.int64), self._device)

    def _embed(self, number: int, place: int, part: MicroBatch) -> torch.Tensor:
        if self._drops:
            _seed_dropout(self._seed, number, place)
        return self._embedder.forward(part)


def _seed_dropout(seed: int, step: int, index: int) -> None:
    """Make dropout a function of seed, step and pass: it can be drawn again when resumed or cached."""
    import torch

    state = np.random.SeedSequence([seed, DROPOUT, step, index]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state >> np.uint64(1)))
