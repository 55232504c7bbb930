"""What a model is trained on: sources of examples.

An example is a query, some documents, and for each of them the probability that it is the
answer. A labelled pair is an example whose first document has probability 1 and whose mined
negatives have 0; a teacher's ranked list is an example with soft probabilities. All else
(in-batch negatives, masks) follows when examples meet in a batch, see ``batches``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.data.self_hits import self_hits
from ranksaga.errors import DataError

__all__ = ["Source", "TrainingLists", "TrainingPairs", "first_equal", "labelled_pairs"]

NO_DOCUMENT = -1


class Source(Protocol):
    """Examples over one table of query texts and one of document texts."""

    @property
    def name(self) -> str:
        """Shown in logs and errors."""
        ...

    @property
    def queries(self) -> Sequence[str]:
        """All query texts."""
        ...

    @property
    def documents(self) -> Sequence[str]:
        """All document texts."""
        ...

    @property
    def example_queries(self) -> NDArray[np.int32]:
        """(n,) query row of every example."""
        ...

    @property
    def in_batch(self) -> bool:
        """Whether the documents of other examples in the batch are negatives."""
        ...

    @property
    def known(self) -> Mapping[int, frozenset[int]]:
        """By query row, the document rows that must not count as its negatives."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the content."""
        ...

    def examples_per_batch(self, batch_size: int) -> int:
        """Examples in a batch that is meant for ``batch_size`` pairs."""
        ...

    def columns(
        self, examples: NDArray[np.int64], hard_negatives: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Document rows (b, c) int32, -1 for none, and their probabilities (b, c) float32."""
        ...


@dataclass(frozen=True)
class TrainingPairs:
    """Positive (query, document) pairs, labelled or made from the corpus.

    Attributes:
        name: of the dataset.
        queries: query texts.
        documents: document texts, as the model is to read them.
        pairs: (n, 2) int32 rows (query, document), no pair twice.
        not_negative: (m, 2) int32 rows (query, document): what is judged relevant and what is the
            query itself. Includes the pairs.
        negatives: (n, pool) int32 document rows mined for each pair, -1 for none; None: not mined.
    """

    name: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    pairs: NDArray[np.int32]
    not_negative: NDArray[np.int32]
    negatives: NDArray[np.int32] | None = None

    in_batch = True

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def example_queries(self) -> NDArray[np.int32]:
        """(n,) query row of every pair."""
        return self.pairs[:, 0]

    @cached_property
    def known(self) -> Mapping[int, frozenset[int]]:
        """By query row, the document rows that must not count as its negatives."""
        return _sets(self.not_negative)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the texts and rows (16 hex digits)."""
        negatives = np.empty((0, 0), np.int32) if self.negatives is None else self.negatives
        return _fingerprint((self.queries, self.documents), (self.pairs, self.not_negative, negatives))

    def with_negatives(self, pool: NDArray[np.int32]) -> TrainingPairs:
        """The same pairs with mined negatives (n, pool), from which each epoch draws anew.

        Raises:
            DataError: the pool has not one row a pair.
        """
        if pool.ndim != 2 or len(pool) != len(self.pairs):
            raise DataError(
                f"{self.name}: negatives of shape {pool.shape} for {len(self.pairs)} pairs; mine one row a pair"
            )
        return replace(self, negatives=pool.astype(np.int32))

    def examples_per_batch(self, batch_size: int) -> int:
        """The batch size itself."""
        return batch_size

    def columns(
        self, examples: NDArray[np.int64], hard_negatives: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The positive first, then hard negatives drawn from the pair's pool without repetition."""
        rows = self.pairs[examples, 1][:, None]
        if hard_negatives and self.negatives is not None:
            pool = rng.permuted(self.negatives[examples], axis=1)
            # Stable: what exists comes first, in the order drawn.
            order = np.argsort(pool == NO_DOCUMENT, axis=1, kind="stable")[:, :hard_negatives]
            rows = np.concatenate([rows, np.take_along_axis(pool, order, axis=1)], axis=1)
        probabilities = np.zeros(rows.shape, dtype=np.float32)
        probabilities[:, 0] = 1.0
        return rows, probabilities


@dataclass(frozen=True)
class TrainingLists:
    """Distillation: per example a query, candidate documents and a teacher's probabilities.

    The student's distribution over the same candidates is pulled towards the teacher's; the
    documents of other examples are left out of it.

    Attributes:
        name: of the source.
        queries: query texts (pseudo-queries, mostly).
        documents: document texts.
        example_queries: (n,) int32 query rows.
        candidates: (n, c) int32 document rows, none twice in a row, -1 for none.
        probabilities: (n, c) float32, rows sum to 1, 0 where there is no candidate.
    """

    name: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    example_queries: NDArray[np.int32]
    candidates: NDArray[np.int32]
    probabilities: NDArray[np.float32]

    in_batch = False

    def __post_init__(self) -> None:
        if self.candidates.shape != self.probabilities.shape or len(self.candidates) != len(self.example_queries):
            raise DataError(
                f"{self.name}: {len(self.example_queries)} queries, candidates {self.candidates.shape}, "
                f"probabilities {self.probabilities.shape}; give one row a query, of equal shape"
            )
        empty = self.candidates == NO_DOCUMENT
        if np.any(self.probabilities[empty]) or not np.allclose(self.probabilities.sum(axis=1), 1.0, atol=1e-4):
            raise DataError(f"{self.name}: a row of probabilities does not sum to 1 over its candidates; normalise it")

    def __len__(self) -> int:
        return len(self.example_queries)

    @property
    def known(self) -> Mapping[int, frozenset[int]]:
        """Nothing: a list has no in-batch negatives."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the texts, rows and probabilities (16 hex digits)."""
        return _fingerprint((self.queries, self.documents), (self.example_queries, self.candidates, self.probabilities))

    def examples_per_batch(self, batch_size: int) -> int:
        """As many as have ``batch_size`` candidates between them, so that a step costs the same."""
        return max(1, batch_size // int(self.candidates.shape[1]))

    def columns(
        self, examples: NDArray[np.int64], hard_negatives: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The candidates as they are."""
        return self.candidates[examples], self.probabilities[examples]


def labelled_pairs(dataset: Dataset, train: Qrels, *, titles: bool) -> TrainingPairs:
    """The positive pairs of a split.

    Queries and documents of equal text share one row, so that a copy of a positive is never a
    negative. Pairs whose query or document is blank are left out.

    Args:
        dataset: corpus and queries.
        train: judgments to train on; grades above 0 are positives.
        titles: documents are title and text, as they are scored; False: the text alone, as the
            first study trained (a document without text is then left out).

    Raises:
        DataError: no pair is left.
    """
    documents = dataset.corpus.documents if titles else dataset.corpus.texts
    queries = dataset.queries.texts
    same_query, same_document = first_equal(queries), first_equal(documents)
    positives = train.positives
    judged = np.stack([same_query[positives.queries], same_document[positives.documents]], axis=1)
    usable = np.array([bool(queries[q].strip()) and bool(documents[d].strip()) for q, d in judged], dtype=bool)
    pairs = np.unique(judged[usable], axis=0) if usable.any() else judged[:0]
    if len(pairs) == 0:
        raise DataError(
            f"{dataset.name}: no positive pair to train on among {len(train)} judgments; "
            "check the split's grades, or make the dataset a guard"
        )
    # A document that is the query itself is left out of its ranking, so it is no negative either.
    hits = self_hits(dataset)
    asked = np.flatnonzero(hits >= 0)
    own = np.stack([same_query[asked], same_document[hits[asked]]], axis=1)
    not_negative = np.unique(np.concatenate([pairs, own]), axis=0)
    return TrainingPairs(dataset.name, queries, documents, pairs, not_negative)


def first_equal(texts: Sequence[str]) -> NDArray[np.int32]:
    """For each row the first row with the same text."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, row) for row, text in enumerate(texts)], dtype=np.int32)


def _sets(pairs: NDArray[np.int32]) -> Mapping[int, frozenset[int]]:
    found: dict[int, set[int]] = {}
    for query, document in pairs.tolist():
        found.setdefault(query, set()).add(document)
    return {query: frozenset(documents) for query, documents in found.items()}


def _fingerprint(tables: Sequence[Sequence[str]], arrays: Sequence[NDArray[np.int32] | NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for table in tables:
        for text in table:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        digest.update(b"|")
    for array in arrays:
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
