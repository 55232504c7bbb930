"""Texts of one task to vectors, through the cache and by whoever computes.

Texts are tokenised once, sorted by length and batched by a budget of tokens, so that
almost no padding is computed. A batch holds texts that are padded to one length, which is
each text's own: a vector is a function of its text, whatever else is encoded or cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.batching import alike, by_budget, evenly
from ranksaga.encode.cache import VectorCache
from ranksaga.encode.engine import Engine, Workers
from ranksaga.encode.identity import software
from ranksaga.encode.text_input import TextInput
from ranksaga.files import hash_json
from ranksaga.profile import timed

if TYPE_CHECKING:
    from ranksaga.encode.encoder import EncoderSpec

T = TypeVar("T")

__all__ = ["FORMAT", "TOKEN_BUDGET", "TaskEncoder", "prefetch"]

FORMAT = 2  # raise it when the same text gets another vector, be it in its last bit

# Padded tokens per batch. On CPU larger batches fall out of the cache; a GPU wants to be filled, and where its memory
# holds fewer, an engine halves the batch.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 131072}
TOKENIZE_CHUNK = 4096
# Texts between two writes to the cache: what a killed process computes again at most. On a GPU those of the next
# write are tokenised meanwhile.
CACHE_CHUNK = {"cpu": 2048, "cuda": 8192}


class TaskEncoder:
    """Encodes queries, or documents: one model, one prompt.

    Args:
        engine: computes batches.
        text_input: how texts are read.
        spec: of the encoder.
        cached: keep every vector on disk.
        workers: who runs the engine.
    """

    def __init__(
        self, engine: Engine, text_input: TextInput, spec: EncoderSpec, cached: bool, workers: Workers
    ) -> None:
        self.text_input = text_input
        self._engine = engine
        self._spec = spec
        self._cached = cached
        self._workers = workers

    @cached_property
    def identity(self) -> str:
        """16 hex digits of all that changes a vector but the text."""
        spec, text_input = self._spec, self.text_input
        known = [
            FORMAT,
            self._engine.revision,
            text_input.prompt,
            text_input.max_length,
            spec.precision,
            spec.similarity,
        ]
        return hash_json([*known, *self._engine.settings, software()])

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Vectors (n, d) float32."""
        # Equal texts have equal vectors: encode each once.
        unique = list(dict.fromkeys(texts))
        vectors = (self._through_cache if self._cached else self._compute)(unique, progress)
        if len(unique) == len(texts):
            return vectors
        place = {text: row for row, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]

    @cached_property
    def _cache(self) -> VectorCache:
        """Open as long as this encoder: a corpus that is encoded block by block reads each key once."""
        label = f"{self._spec.model} {self._spec.precision} {self.text_input.prompt!r}".strip()
        return VectorCache(self.identity, label, dimension=self._engine.dimension)

    def _through_cache(self, texts: list[str], progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        is_known, known_vectors = self._cache.lookup(texts)
        known, missing = np.flatnonzero(is_known), np.flatnonzero(~is_known)
        if progress is not None and len(known):
            progress(len(known))
        # Long texts first, as within a batch: the time that is left is then never underestimated.
        missing = missing[np.argsort([-len(texts[row]) for row in missing], kind="stable")]
        size = CACHE_CHUNK[self._kind]
        parts = [known_vectors] if len(known) else []
        chunks = ([texts[row] for row in missing[start : start + size]] for start in range(0, len(missing), size))
        read = ((chunk, self._read(chunk)) for chunk in chunks)
        for chunk, tokens in prefetch(read) if self.on_gpu else read:
            parts.append(self._embed(tokens, progress))
            self._cache.add(chunk, parts[-1])
        if not parts:
            return self._compute([], None)
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        vectors[np.concatenate([known, missing])] = np.concatenate(parts)
        return vectors

    def together(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, d) of texts that share one batch, however different their lengths."""
        return self._engine(self._read(texts))

    def _compute(self, texts: Sequence[str], progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        return self._embed(self._read(texts), progress)

    def _read(self, texts: Sequence[str]) -> list[Any]:
        """What travels of each text: token ids with its prompt, for most models."""
        return [
            row
            for start in range(0, len(texts), TOKENIZE_CHUNK)
            for row in self._tokenize(texts[start : start + TOKENIZE_CHUNK])
        ]

    def _embed(self, tokens: Sequence[Any], progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]), reverse=True)
        lengths = [len(tokens[row]) for row in order]
        if self.on_gpu or self.text_input.form == "texts":
            cuts = (evenly if self.on_gpu else by_budget)(lengths, TOKEN_BUDGET[self._kind])
        else:
            cuts = alike([self._engine.padded_length(length) for length in lengths], TOKEN_BUDGET[self._kind])
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
        """Whether vectors are computed on a GPU."""
        return self._kind == "cuda"

    @property
    def _kind(self) -> str:
        """The kind of device that computes, as the budgets name it."""
        return "cpu" if (self._workers.device or self._engine.model.device.type) == "cpu" else "cuda"

    @timed("tokenise")
    def _tokenize(self, texts: Sequence[str]) -> list[Any]:
        return self.text_input.rows(self._engine.model, texts)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before it is used.

    For work that waits for a GPU. On a CPU both would share the cores, and OpenMP's threads, being more than the cores
    then, no longer wait for each other awake, which costs encoding 3% (docs/log/).
    """
    with ThreadPoolExecutor(1) as thread:
        context = copy_context()  # the thread's log is that of this one's stage

        def make() -> T | None:
            return context.run(lambda: next(items, None))

        following = thread.submit(make)
        while (item := following.result()) is not None:
            following = thread.submit(make)
            yield item
