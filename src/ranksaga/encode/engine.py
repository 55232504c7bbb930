"""The computing part of an encoder: rows of tokens in, vectors out, in this process or where a back end has workers.

An encoder cuts its texts into batches; what computes a batch is decided here. The cut does not depend on
who computes, so the vectors are the same on one worker and on many.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.models import on_cpu, revision_of
from ranksaga.files import hash_json

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Engine", "Here", "Tokens", "Workers"]

Tokens = Sequence[Sequence[int]]  # a batch: the token ids of each text


class Engine:
    """A model in the precision of its encoder. It travels to other processes by pickle, weights included.

    The transformer runs in ``precision``; pooling and normalisation always run in float32, which costs
    nothing and keeps scores exact.
    """

    def __init__(self, model: SentenceTransformer, precision: str, similarity: str) -> None:
        self.model = model
        self._precision = precision
        self._similarity = similarity
        self._fast: SentenceTransformer | None = model if precision == "fp32" else None

    @cached_property
    def revision(self) -> str:
        """Identity of the weights."""
        return revision_of(self.model)

    @cached_property
    def identity(self) -> str:
        """Hash of all that changes a vector but the tokens: a worker that has this engine need not be sent it."""
        return hash_json([self.revision, self._precision, self._similarity])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension() or 0)

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Vectors (n, d) of one batch."""
        import torch

        model = self._ready()
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self._forward(model, tokens).cpu().numpy()
        return vectors

    def to(self, device: str) -> Engine:
        """This engine with its model moved to a device, as torch names it."""
        self._ready().to(device)
        return self

    def _forward(self, model: SentenceTransformer, tokens: Tokens) -> torch.Tensor:
        import torch

        longest = max(map(len, tokens))
        pad = model.tokenizer.pad_token_id or 0
        ids = torch.full((len(tokens), longest), pad, dtype=torch.long)
        mask = torch.zeros((len(tokens), longest), dtype=torch.long)
        left = model.tokenizer.padding_side == "left"
        for row, values in enumerate(tokens):
            place = slice(longest - len(values), None) if left else slice(0, len(values))
            ids[row, place] = torch.tensor(values)
            mask[row, place] = 1
        features: dict[str, Any] = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
        for position, module in enumerate(model):
            features = module(features)
            if position == 0:
                features["token_embeddings"] = features["token_embeddings"].float()
        vectors: torch.Tensor = features["sentence_embedding"].float()
        return torch.nn.functional.normalize(vectors, dim=1) if self._similarity == "cosine" else vectors

    def _ready(self) -> SentenceTransformer:
        """The model with its transformer in the encoder's precision, made once, in evaluation mode."""
        if self._fast is None:
            import torch

            self._fast = copy.deepcopy(self.model)
            self._fast[0].to(torch.bfloat16 if self._precision == "bf16" else torch.float16)
        return self._fast.eval()

    def __getstate__(self) -> dict[str, Any]:
        """What travels: one copy of the weights, in the precision they are used in, on the CPU."""
        fast = on_cpu(self._ready())
        return {"model": fast, "_fast": fast, "_precision": self._precision, "_similarity": self._similarity}


class Workers(Protocol):
    """Who computes batches."""

    @property
    def device(self) -> str | None:
        """The kind of device that computes (cpu, cuda); none: that of the engine's model."""

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Place and vectors (n, d) of every batch, in any order."""
        ...


class Here:
    """This process."""

    device: str | None = None

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Batch by batch."""
        return ((place, engine(tokens)) for place, tokens in enumerate(batches))
