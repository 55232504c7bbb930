"""One optimizer step: a batch's vectors, their loss, and what follows for the weights.

Several processes share the vectors of a batch and each sees all of them, so the loss is that of the whole
batch however many they are.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ranksaga.encode.towers import towers
from ranksaga.errors import StageError
from ranksaga.profile import timed
from ranksaga.recipe import Training
from ranksaga.train.batches import Bank, Batch
from ranksaga.train.embed import Embedder, Pass, deal
from ranksaga.train.losses import cross_entropy
from ranksaga.train.world import World

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Step", "learning_rate"]

CLIP = 1.0
# Of labelled pairs, as of sentence-transformers' MultipleNegativesRankingLoss. A teacher brings its own.
DEFAULT_SCALE = 20.0
DROPOUT = 3  # stream of random draws, beside those of ``batches``
# Batches of more padded tokens are trained with gradient caching: a third more time, far less memory.
CACHE_ABOVE = {"cpu": 16384, "cuda": 131072}


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Rate of the step (0, 1, ...): rises linearly over ``warmup`` steps, then falls linearly to 0 after the last."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (total - step) / (total - warmup)


class Step:
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
        self._scale = (settings.scale or DEFAULT_SCALE) if embedder.unit_length else 1.0
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

    def __call__(self, number: int, batch: Batch) -> tuple[float, float]:
        """Loss and learning rate of this step.

        Raises:
            StageError: the loss is not finite.
        """

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self._total, self._peak, self._warmup)
        loss = self._backward(number, batch)
        with timed("optimizer"):
            self._update()
        return loss, self.optimizer.param_groups[0]["lr"]

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

    def _backward(self, number: int, batch: Batch) -> float:
        """Gradients of the batch's loss; the loss.

        The loss is taken of all vectors as values, and its gradient at this process's own ones is then carried on
        to the weights. Where those are many they are embedded a second time for that, pass by pass, so that the
        graph of one pass at a time is in memory (GradCache, Gao et al. 2021).
        """
        import torch

        with timed("tokenise"):
            passes = self._embedder.passes(batch.queries, batch.documents)
        mine = deal(passes, self._world.rank, self._world.size)
        kind = "cuda" if self._device.type == "cuda" else "cpu"
        cached = sum(part.load for _, part in mine) > CACHE_ABOVE[kind]
        count = len(batch.queries) + len(batch.documents)
        vectors = torch.zeros(count, self._embedder.dimension, device=self._device)
        parts = []
        for place, part in mine:
            with torch.set_grad_enabled(not cached), timed("forward", self._embedder.flops(part)):
                parts.append(self._embed(number, place, part))
            vectors[list(part.rows)] = parts[-1].detach()
        self._world.sum(vectors)
        with timed("loss"):
            loss = self._loss(vectors.requires_grad_(), number, batch)
            torch.autograd.backward(self.scaler.scale(loss))
        assert vectors.grad is not None
        for (place, part), made in zip(mine, parts, strict=True):
            with timed("forward again" if cached else "forward"):
                again = self._embed(number, place, part) if cached else made
            if not again.requires_grad:
                continue
            with timed("backward", 2.0 * self._embedder.flops(part)):
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
        scale = self._scale if batch.scale is None else batch.scale
        if len(documents):
            loss = loss + cross_entropy(queries, documents, target, ignore, scale)
        if batch.bank is not None:
            loss = loss + self._bank_loss(queries, documents, batch.bank, scale)
        if not math.isfinite(value := float(loss.detach())):
            raise StageError(
                f"the loss became {value} at step {number + 1} of {self._total} "
                f"(batch from {', '.join(batch.sources)}); lower the learning rate (now {self._peak:g}) "
                "or train in fp32"
            )
        return loss

    def _bank_loss(self, queries: torch.Tensor, documents: torch.Tensor, bank: Bank, scale: float) -> torch.Tensor:
        """Against the corpus as the base model encoded it, and what holds the batch's documents near that."""
        import torch

        kept, target, ignore = (
            torch.from_numpy(array).to(self._device) for array in (bank.documents, bank.target, bank.ignore)
        )
        loss = bank.weight * cross_entropy(queries, kept, target, ignore, scale)
        if not len(documents):
            return loss
        old = kept[torch.from_numpy(bank.live).to(self._device)]
        near = torch.nn.functional.cosine_similarity(documents[: len(bank.live)], old, dim=1)
        return loss + bank.anchor * (1.0 - near).mean()


def _seed_dropout(seed: int, step: int, index: int) -> None:
    """Make dropout a function of seed, step and pass: it can be drawn again when resumed or cached."""
    import torch

    state = np.random.SeedSequence([seed, DROPOUT, step, index]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state >> np.uint64(1)))
