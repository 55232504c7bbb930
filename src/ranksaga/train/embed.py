"""Texts to vectors with gradients.

Unlike the encoder, which is for scoring, this keeps the graph. Both read a text the same way:
prompt + text, one truncation, the transformer in the run's precision, pooling in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.attention import without_cudnn_attention
from ranksaga.encode.batch_layout import Packed
from ranksaga.encode.batching import evenly
from ranksaga.encode.device_copies import sent
from ranksaga.encode.flops import ForwardFlops
from ranksaga.encode.memory_budget import free_memory, kept_bytes
from ranksaga.encode.text_input import text_input_of
from ranksaga.encode.towers import DOCUMENT, QUERY, arguments, towers
from ranksaga.errors import StageError
from ranksaga.train.fused_training import FusedTraining, fuse_training

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Embedder", "MicroBatch", "of_rank"]

# Padded tokens that go through the model together. Texts are sorted by length, so on a CPU, where padding costs
# time, small passes are the faster ones (32 functions of 33 to 256 tokens: 3.3 s instead of
# 5.8 s on one core); a GPU takes its share of a batch in a few passes of like lengths, as large as its memory allows.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 131072}
# The fused pass computes no padding, and the fewer passes, the fewer times gradients of the weights are summed.
FUSED_BUDGET = 8192
# Of each weight that learns: gradient and two moments in float32, a copy in half precision, and room to update them.
WEIGHT_BYTES = 20
SLACK = 1.1  # so that a batch for N ranks is cut into N passes, not into N and a rest


@dataclass(frozen=True)
class MicroBatch:
    """Texts that go through a tower (0: queries, 1: documents) together.

    Attributes:
        tower: which one.
        rows: their places in the batch.
        tokens: their token ids.
        load: tokens that are computed, padding included.
    """

    tower: int
    rows: tuple[int, ...]
    tokens: tuple[NDArray[np.int32], ...]
    load: int

    def halves(self) -> tuple[MicroBatch, MicroBatch]:
        """The shorter texts and the longer ones, padded; of a pass with two texts or more."""
        middle = len(self.rows) // 2
        first, second = (
            MicroBatch(
                self.tower, self.rows[part], self.tokens[part], len(self.rows[part]) * max(map(len, self.tokens[part]))
            )
            for part in (slice(middle), slice(middle, None))
        )
        return first, second


def of_rank(passes: Sequence[MicroBatch], rank: int, ranks: int) -> list[tuple[int, MicroBatch]]:
    """A rank's passes with their places in the batch: dealt so that every rank has about as many tokens."""
    loads = [0] * ranks
    mine = []
    for place in sorted(range(len(passes)), key=lambda place: -passes[place].load):
        taker = loads.index(min(loads))
        loads[taker] += passes[place].load
        if taker == rank:
            mine.append(place)
    return [(place, passes[place]) for place in sorted(mine)]


class Embedder:
    """Vectors of queries and documents, float32 on the model's device, differentiable.

    Every text is tokenised once in the life of the object.

    Args:
        model: a sentence-transformers model of text, with one tower or two.
        prompts: put before queries and before documents.
        max_length: tokens a text, special ones included.
        precision: fp32, bf16 or fp16.
        ranks: processes that share a batch.

    Raises:
        StageError: fp16 on a device other than CUDA.
    """

    def __init__(
        self, model: SentenceTransformer, prompts: tuple[str, str], *, max_length: int, precision: str, ranks: int = 1
    ) -> None:
        import torch

        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        if precision not in kinds:
            raise StageError(f"precision {precision!r} is none of {', '.join(kinds)}; resolve 'auto' before training")
        if precision == "fp16" and model.device.type != "cuda":
            raise StageError(f"fp16 training needs a CUDA device, found {model.device}; use bf16 or fp32")
        self.precision = precision
        self._kind = kinds[precision]
        self._device = model.device
        self._towers = towers(model)
        self._text_inputs = tuple(
            text_input_of(model, tower, task, prompt, max_length)
            for tower, task, prompt in zip(self._towers, (QUERY, DOCUMENT), prompts, strict=True)
        )
        # Texts of both kinds go through one model together unless it is told which they are.
        query_input, document_input = self._text_inputs
        self._together = self._towers[0] is self._towers[1] and query_input.identity == document_input.identity
        self._ranks = ranks
        self.budget = TOKEN_BUDGET["cuda" if model.device.type == "cuda" else "cpu"]
        self._normalise = model.similarity_fn_name != "dot"
        query_tokens: dict[str, NDArray[np.int32]] = {}
        alike = self._together and prompts[0] == prompts[1]
        self._tokens = (query_tokens, query_tokens if alike else {})
        fusible = precision == "bf16" and model.device.type == "cpu"
        query, document = (tower[0] for tower in self._towers)
        self._flops = (ForwardFlops(query), ForwardFlops(document))
        fused = [fuse_training(list(tower)) if fusible else None for tower in dict.fromkeys(self._towers)]
        self._fused = (fused[0], fused[-1])

    @property
    def unit_length(self) -> bool:
        """Whether the vectors have length 1: a scale of 20 is made for cosines."""
        tower = self._towers[0]
        names = [type(module).__name__ for module in tower if type(module).__name__ != "Dropout"]
        return self._normalise or (names[-1] == "Normalize" and tower.truncate_dim is None)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._towers[0].get_embedding_dimension() or 0)

    def passes(self, queries: Sequence[str], documents: Sequence[str]) -> list[MicroBatch]:
        """The texts of a batch (queries first) by tower, shortest first, cut into passes."""
        tokens = [*self._tokenise(0, queries), *self._tokenise(1, documents)]
        if self._together:
            return self._cut(0, range(len(tokens)), tokens)
        return [
            *self._cut(0, range(len(queries)), tokens),
            *self._cut(1, range(len(queries), len(tokens)), tokens),
        ]

    def _cut(self, tower: int, rows: Sequence[int], tokens: Sequence[NDArray[np.int32]]) -> list[MicroBatch]:
        order = sorted(rows, key=lambda row: len(tokens[row]))
        packs = self._fast(tower) is not None
        on_gpu = self._device.type == "cuda"
        budget = FUSED_BUDGET if packs else self.budget
        if self._ranks > 1 and (packs or on_gpu):  # every rank is to have some
            budget = min(budget, math.ceil(SLACK * sum(len(tokens[row]) for row in rows) / self._ranks))
        if on_gpu:
            order.reverse()
            cuts = evenly([len(tokens[row]) for row in order], budget)
            parts = [order[start:stop] for start, stop in reversed(cuts)]
            return [_pass(tower, part[::-1], tokens) for part in parts]
        cut: list[tuple[list[int], int]] = []
        for row in order:  # the longest so far
            taken, load = cut[-1] if cut else ([], 0)
            load = load + len(tokens[row]) if packs else (len(taken) + 1) * len(tokens[row])
            if taken and load <= budget:
                cut[-1] = [*taken, row], load
            else:
                cut.append(([row], len(tokens[row])))
        return [MicroBatch(tower, tuple(taken), tuple(tokens[row] for row in taken), load) for taken, load in cut]

    def memory_budget(self) -> int:
        """Padded tokens of a pass with its graph that the GPU's memory holds; on a CPU the budget as it is.

        Measured on the model, in texts of the longest length; what weights will need in training is taken off.
        """
        import torch

        if self._device.type != "cuda":
            return self.budget
        weights = {id(one): one for tower in self._towers for one in tower.parameters()}.values()
        longest = max(text_input.max_length for text_input in self._text_inputs)
        tokens = np.zeros(longest, dtype=np.int32)

        def embed(tower: int, count: int) -> torch.Tensor:
            return self.forward(MicroBatch(tower, (0,) * count, (tokens,) * count, count * longest))

        try:
            kept = max(kept_bytes(partial(embed, tower), weights) for tower in range(len(set(self._towers))))
        except torch.OutOfMemoryError:  # two texts of the longest length are too much: one at a time
            return longest
        free = free_memory(self._device) - WEIGHT_BYTES * sum(one.numel() for one in weights if one.requires_grad)
        return int(min(max(free / max(kept, 1.0), 1.0) * longest, self.budget))

    def _fast(self, tower: int) -> FusedTraining | None:
        """The fused pass where it does the work. It knows no dropout, for which a module is put in training mode."""
        return None if self._towers[tower][0].training else self._fused[tower]

    def flops(self, texts: MicroBatch) -> float:
        """Operations of the matrix products of one pass forward, padding not counted; backward takes twice as many."""
        return self._flops[texts.tower]([len(row) for row in texts.tokens])

    def forward(self, texts: MicroBatch) -> torch.Tensor:
        """Vectors (n, d) of one pass."""
        import torch

        model, text_input = self._towers[texts.tower], self._text_inputs[texts.tower]
        transformer, *rest = model
        given, *more = arguments(model, text_input.task)
        fused = self._fast(texts.tower)
        if fused is not None:
            packed = Packed.of(texts.tokens)
            features = {**text_input.given, **packed.features(fused(packed))}
        else:
            features = {
                name: sent(value, self._device) if isinstance(value, torch.Tensor) else value
                for name, value in text_input.features(model, texts.tokens).items()
            }
            half = torch.autocast(self._device.type, self._kind, enabled=self.precision != "fp32")
            with half, without_cudnn_attention(self._device):
                features = transformer(features, **given)
            features["token_embeddings"] = features["token_embeddings"].float()
        for module, asked in zip(rest, more, strict=True):
            features = module(features, **asked)
        vectors: torch.Tensor = features["sentence_embedding"][:, : model.truncate_dim]
        return torch.nn.functional.normalize(vectors, dim=1) if self._normalise else vectors

    def _tokenise(self, tower: int, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        known = self._tokens[tower]
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            for text, row in zip(new, self._text_inputs[tower].rows(self._towers[tower], new), strict=True):
                known[text] = np.array(row, dtype=np.int32)
        return [known[text] for text in texts]


def _pass(tower: int, rows: Sequence[int], tokens: Sequence[NDArray[np.int32]]) -> MicroBatch:
    """Rows, shortest first, padded to the last one."""
    return MicroBatch(tower, tuple(rows), tuple(tokens[row] for row in rows), len(rows) * len(tokens[rows[-1]]))
