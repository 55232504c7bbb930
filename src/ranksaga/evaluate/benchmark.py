"""Benchmark: an encoder over a dataset, to vectors and rankings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset
from ranksaga.data.self_hits import self_hits
from ranksaga.encode.task_encoder import prefetch
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.retrieve.search import search

__all__ = ["TextEncoder", "Vectors", "benchmark", "encode_dataset", "rank"]

# Documents that are encoded before they are searched: their vectors are all that is in memory of the corpus's.
BLOCK = 16384


class TextEncoder(Protocol):
    """What a benchmark asks of an encoder: unit vectors (n, d) float32 of n texts, or raw ones for dot products."""

    @property
    def on_gpu(self) -> bool:
        """Whether this process's cores are free while vectors are computed."""

    def encode_queries(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Vectors of queries; ``progress`` is told how many texts were encoded."""

    def encode_documents(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Vectors of documents."""


@dataclass(frozen=True)
class Vectors:
    """An encoded dataset. ``documents`` (n, d) float32 by corpus row; ``queries`` (m, d) for ``query_rows`` (m,)."""

    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    query_rows: NDArray[np.int32]

    def of_queries(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Vectors of the given query rows, all of which must have been encoded."""
        places = np.searchsorted(self.query_rows, rows)
        if len(rows) and not np.array_equal(self.query_rows[np.minimum(places, len(self.query_rows) - 1)], rows):
            raise KeyError("queries that were not encoded")
        return self.queries[places]


def benchmark(
    encoder: TextEncoder,
    dataset: Dataset,
    query_rows: NDArray[np.int32],
    depth: int,
    progress: Callable[[int], None] | None = None,
) -> Rankings:
    """Encode and rank in one pass over the corpus, a block of documents at a time; no vector is kept.

    On a GPU the next block is encoded while one is searched. Memory does not grow with the corpus, but for its texts.

    Args:
        encoder: of queries and documents.
        dataset: whose corpus is ranked.
        query_rows: (n,) int32, ascending.
        depth: results a query.
        progress: is told how many texts were encoded.
    """
    texts = dataset.corpus.documents

    def blocks() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for start in range(0, len(texts), BLOCK):
            yield start, encoder.encode_documents(texts[start : start + BLOCK], progress)

    return search(
        encoder.encode_queries([dataset.queries.texts[row] for row in query_rows], progress),
        prefetch(blocks()) if encoder.on_gpu else blocks(),
        query_rows=query_rows,
        depth=depth,
        ties=tie_order(dataset.corpus.ids),
        exclude=self_hits(dataset)[query_rows],
    )


def encode_dataset(
    encoder: TextEncoder, dataset: Dataset, query_rows: NDArray[np.int32], progress: Callable[[int], None] | None = None
) -> Vectors:
    """Encode the whole corpus and the given queries (rows, ascending)."""
    queries = encoder.encode_queries([dataset.queries.texts[row] for row in query_rows], progress)
    documents = encoder.encode_documents(dataset.corpus.documents, progress)
    return Vectors(documents, queries, query_rows)


def rank(dataset: Dataset, vectors: Vectors, query_rows: NDArray[np.int32], depth: int) -> Rankings:
    """Exact dense rankings of some of the encoded queries, self-hits removed."""
    return search(
        vectors.of_queries(query_rows),
        [(0, vectors.documents)],
        query_rows=query_rows,
        depth=depth,
        ties=tie_order(dataset.corpus.ids),
        exclude=self_hits(dataset)[query_rows],
    )
