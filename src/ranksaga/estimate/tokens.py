"""How long texts are for a model, and what reading them computes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.cuts import evenly
from ranksaga.encode.encoder import Encoder
from ranksaga.encode.towers import towers

__all__ = ["Shape", "TokenCounter", "shape_of"]


@dataclass(frozen=True)
class Shape:
    """A transformer's size: ``parameters``, and those of them beside the embeddings, which a token only looks up."""

    parameters: int
    weights: int
    layers: int
    hidden: int
    width: int

    def forward(self, lengths: NDArray[np.int32], budget: int) -> float:
        """FLOP of one forward pass over texts of these lengths, cut and padded into batches of ``budget`` tokens.

        A multiplication with every weight, and attention of every token to every token: two products of
        ``length x hidden`` a token and layer.
        """
        falling = np.sort(lengths)[::-1].tolist()
        return sum((stop - start) * self._of_text(falling[start]) for start, stop in evenly(falling, budget))

    def _of_text(self, length: int) -> float:
        return 2.0 * length * self.weights + 4.0 * length * length * self.hidden * self.layers


def shape_of(encoder: Encoder) -> Shape:
    """The size of the tower that reads queries."""
    model = towers(encoder.model)[0]
    transformer = model.transformers_model
    weights = sum(p.numel() for name, p in transformer.named_parameters() if "embeddings" not in name)
    config = transformer.config
    width = model.get_embedding_dimension() or config.hidden_size
    parameters = sum(p.numel() for p in transformer.parameters())
    return Shape(parameters, weights, int(config.num_hidden_layers), int(config.hidden_size), int(width))


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
        new = [text for text in plain if text not in self._known]
        began = time.perf_counter()
        for start in range(0, len(new), 4096):
            chunk = new[start : start + 4096]
            encoded = towers(self.encoder.model)[0].tokenizer(
                chunk, truncation=True, max_length=self.encoder.spec.max_length, return_attention_mask=False
            )
            for text, row in zip(chunk, encoded["input_ids"], strict=True):
                self._known[text] = len(row)
                self.tokens += len(row)
        self.seconds += time.perf_counter() - began
        return np.array([self._known[text] for text in plain], dtype=np.int32)
