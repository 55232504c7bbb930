"""How long texts are for a model, and what reading them computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.batching import evenly
from ranksaga.encode.encoder import Encoder
from ranksaga.encode.flops import ForwardFlops
from ranksaga.encode.text_input import tokenised
from ranksaga.encode.towers import towers

__all__ = ["Shape", "TokenCounter", "shape_of"]


@dataclass(frozen=True)
class Shape:
    """A transformer's size: its ``parameters``, the ``width`` of its vectors, and the ``flops`` of reading texts."""

    parameters: int
    width: int
    flops: Callable[[Sequence[int]], float]

    def forward(self, lengths: NDArray[np.int32], budget: int) -> float:
        """FLOP of one forward pass over texts of these lengths, cut and padded into batches of ``budget`` tokens."""
        falling = np.sort(lengths)[::-1].tolist()
        return sum((stop - start) * self.flops(falling[start : start + 1]) for start, stop in evenly(falling, budget))


def shape_of(encoder: Encoder) -> Shape:
    """The size of the tower that reads queries."""
    model = towers(encoder.model)[0]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Shape(parameters, int(model.get_embedding_dimension() or 1), ForwardFlops(model[0]))


@dataclass
class TokenCounter:
    """Lengths of texts in tokens, prompt included, cut where the encoder cuts; no text is read twice.

    ``seconds`` and ``tokens`` say how fast the tokenizer is here.
    """

    encoder: Encoder
    seconds: float = 0.0
    tokens: int = 0
    _known: dict[str, int] = field(default_factory=dict)

    def queries(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Lengths of the distinct texts, as queries."""
        return self._lengths(self.encoder.spec.prompts.query, texts)

    def documents(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Lengths of the distinct texts, as documents."""
        return self._lengths(self.encoder.spec.prompts.document, texts)

    def _lengths(self, prompt: str, texts: Sequence[str]) -> NDArray[np.int32]:
        plain = [f"{prompt}{text}" for text in dict.fromkeys(texts)]
        tower, limit = towers(self.encoder.model)[0], self.encoder.spec.max_length
        new = [text for text in plain if text not in self._known]
        began = time.perf_counter()
        for start in range(0, len(new), 4096):
            chunk = new[start : start + 4096]
            for text, row in zip(chunk, tokenised(tower, chunk, "", limit), strict=True):
                self._known[text] = len(row)
                self.tokens += len(row)
        self.seconds += time.perf_counter() - began
        return np.array([self._known[text] for text in plain], dtype=np.int32)
