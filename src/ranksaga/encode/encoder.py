"""Encoder: model + prompts + max length + precision. Texts in, unit vectors out.

Texts are tokenised once, sorted by length and batched by a budget of tokens, so that
almost no padding is computed. A batch holds texts that are padded to one length, which is
each text's own: a vector is a function of its text, whatever else is encoded or cached.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.cache import VectorCache
from ranksaga.encode.engine import Engine, Here, Workers
from ranksaga.encode.layout import padded_length
from ranksaga.encode.models import load_model, locate, revision_of
from ranksaga.encode.precision import choose_precision
from ranksaga.encode.prompts import Prompts, find_prompts, name_hints
from ranksaga.encode.towers import towers
from ranksaga.files import hash_json
from ranksaga.profile import timed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

T = TypeVar("T")

__all__ = ["Encoder", "EncoderSpec", "ahead", "load_encoder"]

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it when the same text gets another vector, be it in its last bit

# Padded tokens per batch. On CPU larger batches fall out of the cache; a GPU wants to be filled.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 131072}
TOKENIZE_CHUNK = 4096
# Texts between two writes to the cache: what a killed process computes again at most. On a GPU those of the next
# write are tokenised meanwhile.
CACHE_CHUNK = {"cpu": 2048, "cuda": 8192}


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
    on disk, and none is computed twice, whichever run asks for it. ``workers`` compute the vectors.
    """

    def __init__(
        self, model: SentenceTransformer, spec: EncoderSpec, *, cached: bool = False, workers: Workers | None = None
    ) -> None:
        self.model = model
        self.spec = spec
        self._cached = cached
        self._workers = workers = workers or Here()
        query, document = towers(model)
        engine = Engine(query, spec.precision, spec.similarity)
        self._query = self._document = Tower(engine, spec, spec.prompts.query, cached, workers)
        if document is not query:
            engine = Engine(document, spec.precision, spec.similarity)
        if document is not query or spec.prompts.document != spec.prompts.query:
            self._document = Tower(engine, spec, spec.prompts.document, cached, workers)

    @property
    def device(self) -> str:
        """Where the model lies, as torch names it."""
        return str(self.model.device)

    @property
    def on_gpu(self) -> bool:
        """Whether vectors are computed on a GPU, so that this process's cores are free meanwhile."""
        return self._document.on_gpu

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
        return Encoder(model, spec, cached=self._cached, workers=self._workers)


class Tower:
    """What queries go through, or documents: one model, one prompt."""

    def __init__(self, engine: Engine, spec: EncoderSpec, prompt: str, cached: bool, workers: Workers) -> None:
        self._engine = engine
        self._spec = spec
        self._prompt = prompt
        self._cached = cached
        self._workers = workers

    @cached_property
    def identity(self) -> str:
        """16 hex digits of all that changes a vector but the text."""
        spec = self._spec
        return hash_json(
            [FORMAT, self._engine.revision, self._prompt, spec.max_length, spec.precision, spec.similarity]
        )

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
        label = f"{self._spec.model} {self._spec.precision} {self._prompt!r}".strip()
        cache = VectorCache(self.identity, label, dimension=self._engine.dimension)
        rows = cache.find(texts)
        known, missing = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        found = cache.read(rows[known]) if len(known) else None
        if progress is not None and len(known):
            progress(len(known))
        # Long texts first, as within a batch: the time that is left is then never underestimated.
        missing = missing[np.argsort([-len(texts[row]) for row in missing], kind="stable")]
        size = CACHE_CHUNK[self._kind]
        new = []
        chunks = ([texts[row] for row in missing[start : start + size]] for start in range(0, len(missing), size))
        read = ((chunk, self._read(chunk)) for chunk in chunks)
        for chunk, tokens in ahead(read) if self.on_gpu else read:
            new.append(self._embed(tokens, progress))
            cache.add(chunk, new[-1])
        parts = [part for part in (found, *new) if part is not None]
        if not parts:
            return self._compute([], None)
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        vectors[np.concatenate([known, missing])] = np.concatenate(parts)
        return vectors

    def _compute(self, texts: Sequence[str], progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        return self._embed(self._read(texts), progress)

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with its prompt."""
        plain = [f"{self._prompt}{text}" for text in texts]
        return [
            row
            for start in range(0, len(plain), TOKENIZE_CHUNK)
            for row in self._tokenize(plain[start : start + TOKENIZE_CHUNK])
        ]

    def _embed(self, tokens: Sequence[list[int]], progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]), reverse=True)
        tokenizer = self._engine.model.tokenizer
        cuts = _alike([padded_length(len(tokens[row]), tokenizer) for row in order], TOKEN_BUDGET[self._kind])
        batches = [[tokens[row] for row in order[start:stop]] for start, stop in cuts]
        vectors: NDArray[np.float32] | None = None
        for place, output in self._workers.vectors(self._engine, batches):
            if vectors is None:
                vectors = np.empty((len(tokens), output.shape[1]), dtype=np.float32)
            vectors[order[slice(*cuts[place])]] = output
            if progress is not None:
                progress(len(output))
        return np.empty((0, self._engine.dimension), dtype=np.float32) if vectors is None else vectors

    @property
    def on_gpu(self) -> bool:
        """As of an encoder."""
        return self._kind == "cuda"

    @property
    def _kind(self) -> str:
        """The kind of device that computes, as the budgets name it."""
        return "cpu" if (self._workers.device or self._engine.model.device.type) == "cpu" else "cuda"

    @timed("tokenise")
    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        encoded = self._engine.model.tokenizer(
            texts, truncation=True, max_length=self._spec.max_length, padding=False, return_attention_mask=False
        )
        return list(encoded["input_ids"])


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
    workers: Workers | None = None,
) -> Encoder:
    """Load a model and settle its prompts, length and precision.

    ``cached`` keeps its vectors on disk; ``workers`` compute them, by default this process.

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
    return Encoder(model, spec, cached=cached, workers=workers)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before it is used.

    For work that waits for a GPU. On a CPU both would share the cores, and OpenMP's threads, being more than the cores
    then, no longer wait for each other awake, which costs encoding 3% (docs/log.md).
    """
    with ThreadPoolExecutor(1) as thread:
        context = copy_context()  # the thread's log is that of this one's stage

        def make() -> T | None:
            return context.run(lambda: next(items, None))

        following = thread.submit(make)
        while (item := following.result()) is not None:
            following = thread.submit(make)
            yield item


def _alike(lengths: list[int], budget: int) -> list[tuple[int, int]]:
    """Cut rows sorted by falling padded length into batches, (start, stop), of one length each."""
    cuts: list[tuple[int, int]] = []
    for length, rows in groupby(lengths):
        start = cuts[-1][1] if cuts else 0
        cuts += [(start + first, start + last) for first, last in _batches([length for _ in rows], budget)]
    return cuts


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
