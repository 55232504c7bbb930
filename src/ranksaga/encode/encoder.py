"""Encoder: model + prompts + max length + precision. Texts in, unit vectors out.

Texts are tokenised once, sorted by length and batched by a budget of tokens, so that
almost no padding is computed. The transformer runs in the encoder's precision; pooling
and normalisation always run in float32, which costs nothing and keeps scores exact.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.cache import VectorCache
from ranksaga.encode.fused import FusedTransformer, fuse
from ranksaga.encode.models import load_model, locate, revision_of
from ranksaga.encode.precision import choose_precision
from ranksaga.encode.prompts import Prompts, find_prompts, name_hints
from ranksaga.encode.towers import towers
from ranksaga.files import hash_json

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Encoder", "EncoderSpec", "load_encoder"]

logger = logging.getLogger(__name__)

FORMAT = 1

# Padded tokens per batch. On CPU larger batches fall out of the cache; a GPU wants to be filled.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 131072}
TOKENIZE_CHUNK = 4096
# Texts between two writes to the cache: what a killed process computes again at most.
CACHE_CHUNK = 2048


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that changes a vector. Its hash is the encoder's identity."""

    model: str
    revision: str
    prompts: Prompts
    max_length: int
    precision: str
    similarity: str

    @property
    def identity(self) -> str:
        """16 hex digits; the model's name and the prompts' source do not enter."""
        values = asdict(self)
        del values["model"], values["prompts"]["source"]
        return hash_json({**values, "format": FORMAT})


class Encoder:
    """Encodes queries and documents with one model, or with its two towers.

    ``model`` stays in float32: it is what training starts from and what is saved. A copy of its
    transformers in the encoder's precision does the encoding. With ``cached`` every vector is kept
    on disk, and none is computed twice, whichever run asks for it.
    """

    def __init__(self, model: SentenceTransformer, spec: EncoderSpec, *, cached: bool = False) -> None:
        self.model = model
        self.spec = spec
        self._cached = cached
        query, document = towers(model)
        self._query = Tower(query, spec, spec.prompts.query, cached)
        shared = document is query and spec.prompts.query == spec.prompts.document
        self._document = self._query if shared else Tower(document, spec, spec.prompts.document, cached)
        if document is query and not shared:
            self._document.share_copy_of(self._query)

    @property
    def device(self) -> str:
        """Where the model lies, as torch names it."""
        return str(self.model.device)

    @property
    def document_identity(self) -> str:
        """Hash of all that changes a document's vector: equal where an index that stands stays valid."""
        return self._document.identity

    def encode_queries(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Vectors (n, d) float32 of queries, each with the query prompt before it."""
        return self._query.encode(texts, progress)

    def encode_documents(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Vectors (n, d) float32 of documents, each with the document prompt before it."""
        return self._document.encode(texts, progress)

    def with_model(self, model: SentenceTransformer) -> Encoder:
        """The same settings around other weights."""
        spec = EncoderSpec(**{**self.spec.__dict__, "revision": revision_of(model)})
        return Encoder(model, spec, cached=self._cached)


class Tower:
    """What queries go through, or documents: one model, one prompt."""

    def __init__(self, model: SentenceTransformer, spec: EncoderSpec, prompt: str, cached: bool) -> None:
        self._model = model
        self._spec = spec
        self._prompt = prompt
        self._cached = cached
        self._copies: list[FusedTransformer | torch.nn.Module] = []

    @cached_property
    def identity(self) -> str:
        """16 hex digits of all that changes a vector but the text."""
        spec = self._spec
        return hash_json(
            [FORMAT, revision_of(self._model), self._prompt, spec.max_length, spec.precision, spec.similarity]
        )

    def share_copy_of(self, other: Tower) -> None:
        """Use the other's copy in the encoder's precision, where both have the same model."""
        self._copies = other._copies

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Vectors (n, d) float32."""
        # Equal texts have equal vectors: encode each once.
        unique = list(dict.fromkeys(texts))
        vectors = (self._through_cache if self._cached else self._compute)(unique, progress)
        if len(unique) == len(texts):
            return vectors
        place = {text: row for row, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]

    def _through_cache(self, texts: list[str], progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        cache = VectorCache(self.identity, f"{self._spec.model} {self._spec.precision} {self._prompt!r}".strip())
        rows = cache.find(texts)
        known, missing = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        found = cache.read(rows[known]) if len(known) else None
        if progress is not None and len(known):
            progress(len(known))
        # Long texts first, as within a batch: the time that is left is then never underestimated.
        missing = missing[np.argsort([-len(texts[row]) for row in missing], kind="stable")]
        new = []
        for start in range(0, len(missing), CACHE_CHUNK):
            chunk = [texts[row] for row in missing[start : start + CACHE_CHUNK]]
            new.append(self._compute(chunk, progress))
            cache.add(chunk, new[-1])
        parts = [part for part in (found, *new) if part is not None]
        if not parts:
            return self._compute([], None)
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        vectors[np.concatenate([known, missing])] = np.concatenate(parts)
        return vectors

    def _compute(self, texts: Sequence[str], progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        import torch

        self._model.eval()
        transformer = self._ready()
        plain = [f"{self._prompt}{text}" for text in texts]
        tokens = [
            row
            for start in range(0, len(plain), TOKENIZE_CHUNK)
            for row in self._tokenize(plain[start : start + TOKENIZE_CHUNK])
        ]
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]), reverse=True)
        budget = TOKEN_BUDGET["cpu" if self._model.device.type == "cpu" else "cuda"]
        vectors: NDArray[np.float32] | None = None
        done = 0
        with torch.inference_mode():
            for batch in _batches([len(tokens[row]) for row in order], budget):
                rows = order[batch[0] : batch[1]]
                output = self._forward(transformer, [tokens[row] for row in rows]).cpu().numpy()
                if vectors is None:
                    vectors = np.empty((len(texts), output.shape[1]), dtype=np.float32)
                vectors[rows] = output
                done += len(rows)
                if progress is not None:
                    progress(len(rows))
        if vectors is None:
            return np.empty((0, int(self._model.get_embedding_dimension() or 0)), dtype=np.float32)
        return vectors

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        encoded = self._model.tokenizer(
            texts, truncation=True, max_length=self._spec.max_length, padding=False, return_attention_mask=False
        )
        return list(encoded["input_ids"])

    def _forward(self, transformer: FusedTransformer | torch.nn.Module, tokens: list[list[int]]) -> torch.Tensor:
        """Sentence vectors (n, d) of one batch of token rows."""
        import torch

        longest = max(map(len, tokens))
        pad = self._model.tokenizer.pad_token_id or 0
        ids = torch.full((len(tokens), longest), pad, dtype=torch.long)
        mask = torch.zeros((len(tokens), longest), dtype=torch.long)
        left = self._model.tokenizer.padding_side == "left"
        for row, values in enumerate(tokens):
            place = slice(longest - len(values), None) if left else slice(0, len(values))
            ids[row, place] = torch.tensor(values)
            mask[row, place] = 1
        features: dict[str, Any] = {
            "input_ids": ids.to(self._model.device),
            "attention_mask": mask.to(self._model.device),
        }
        if isinstance(transformer, FusedTransformer):
            features["token_embeddings"] = transformer(ids, mask)
        else:
            features = transformer(features)
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in list(self._model)[1:]:
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"].float()
        return torch.nn.functional.normalize(vectors, dim=1) if self._spec.similarity == "cosine" else vectors

    def _ready(self) -> FusedTransformer | torch.nn.Module:
        """The transformer in the encoder's precision, made once."""
        first: torch.nn.Module = self._model[0]
        if self._spec.precision == "fp32":
            return first
        if not self._copies:
            import torch

            fusible = (
                self._spec.precision == "bf16"
                and self._model.device.type == "cpu"
                and self._model.tokenizer.padding_side == "right"
            )
            fused = fuse(first) if fusible else None
            kind = torch.bfloat16 if self._spec.precision == "bf16" else torch.float16
            self._copies.append(fused or copy.deepcopy(first).to(kind))
        return self._copies[0]


def load_encoder(
    name: str,
    *,
    precision: str = "auto",
    max_length: int | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    cached: bool = False,
) -> Encoder:
    """Load a model and settle its prompts, length and precision; ``cached`` keeps its vectors on disk.

    Raises:
        ModelError: see :func:`ranksaga.encode.models.load_model`.
    """
    from pathlib import Path

    model = load_model(name, device=device, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    where = Path(locate(name))
    hints = name_hints(name, where if where.is_dir() else None)
    prompts = find_prompts(dict(model.prompts), hints, query_prompt, document_prompt)
    own_limit = model.max_seq_length or 512
    spec = EncoderSpec(
        model=name,
        revision=revision_of(model),
        prompts=prompts,
        max_length=min(max_length, own_limit) if max_length else own_limit,
        precision=choose_precision(precision, str(model.device)),
        similarity="dot" if model.similarity_fn_name == "dot" else "cosine",
    )
    logger.info("%s: %s", name, spec)
    return Encoder(model, spec, cached=cached)


def _batches(lengths: list[int], budget: int) -> list[tuple[int, int]]:
    """Cut rows sorted by falling length into (start, stop) with at most ``budget`` padded tokens each."""
    cuts: list[tuple[int, int]] = []
    start = 0
    for row in range(len(lengths) + 1):
        if row == len(lengths) or (row > start and lengths[start] * (row - start + 1) > budget):
            if row > start:
                cuts.append((start, row))
            start = row
    return cuts
