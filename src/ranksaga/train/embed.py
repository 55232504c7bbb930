"""Texts to vectors with gradients.

Unlike the encoder, which is for scoring, this keeps the graph. Both read a text the same way:
prompt + text, one truncation, the transformer in the run's precision, pooling in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.errors import StageError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Embedder"]

# Padded tokens per forward pass. Texts are sorted by length, so on a CPU, where padding costs
# time, small passes are the faster ones; a GPU takes a whole batch at once.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 131072}


class Embedder:
    """Vectors of queries and documents, (n, d) float32 on the model's device, differentiable.

    Every text is tokenised once in the life of the object.

    Args:
        model: a sentence-transformers model of text.
        prompts: put before queries and before documents.
        max_length: tokens a text, special ones included.
        precision: fp32, bf16 or fp16.

    Raises:
        StageError: fp16 on a device other than CUDA.
    """

    def __init__(
        self, model: SentenceTransformer, prompts: tuple[str, str], *, max_length: int, precision: str
    ) -> None:
        import torch

        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        if precision not in kinds:
            raise StageError(f"precision {precision!r} is not one of {', '.join(kinds)}; resolve 'auto' before training")
        if precision == "fp16" and model.device.type != "cuda":
            raise StageError(f"fp16 training needs a CUDA device, found {model.device}; use bf16 or fp32")
        self.precision = precision
        self._kind = kinds[precision]
        self._model = model
        self._prompts = prompts
        self._max_length = max_length
        self._unit_length = model.similarity_fn_name != "dot"
        self._tokens: dict[str, NDArray[np.int32]] = {}

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of queries (b, d) and documents (n, d)."""
        import torch

        texts = [self._prompts[0] + text for text in queries] + [self._prompts[1] + text for text in documents]
        tokens = self._tokenise(texts)
        order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        budget = TOKEN_BUDGET["cuda" if self._model.device.type == "cuda" else "cpu"]
        parts = [
            self._forward([tokens[row] for row in order[start:stop]])
            for start, stop in _cuts([len(tokens[row]) for row in order], budget)
        ]
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        vectors = torch.cat(parts)[back.to(self._model.device)]
        return vectors[: len(queries)], vectors[len(queries) :]

    def _tokenise(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        new = list(dict.fromkeys(text for text in texts if text not in self._tokens))
        if new:
            encoded = self._model.tokenizer(
                new, truncation=True, max_length=self._max_length, padding=False, return_attention_mask=False
            )
            for text, row in zip(new, encoded["input_ids"], strict=True):
                self._tokens[text] = np.array(row, dtype=np.int32)
        return [self._tokens[text] for text in texts]

    def _forward(self, tokens: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        import torch

        device = self._model.device
        longest = max(map(len, tokens))
        pad = self._model.tokenizer.pad_token_id or 0
        ids = np.full((len(tokens), longest), pad, dtype=np.int64)
        mask = np.zeros((len(tokens), longest), dtype=np.int64)
        left = self._model.tokenizer.padding_side == "left"
        for row, values in enumerate(tokens):
            place = slice(longest - len(values), None) if left else slice(0, len(values))
            ids[row, place] = values
            mask[row, place] = 1
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(device),
            "attention_mask": torch.from_numpy(mask).to(device),
        }
        transformer, *rest = self._model
        with torch.autocast(device.type, self._kind, enabled=self.precision != "fp32"):
            features = transformer(features)
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in rest:
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"]
        return torch.nn.functional.normalize(vectors, dim=1) if self._unit_length else vectors


def _cuts(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Cut rows sorted by rising length into (start, stop) with at most ``budget`` padded tokens each, if they can."""
    cuts: list[tuple[int, int]] = []
    start = 0
    for row, length in enumerate(lengths):
        if row > start and length * (row - start + 1) > budget:
            cuts.append((start, row))
            start = row
    return [*cuts, (start, len(lengths))]
