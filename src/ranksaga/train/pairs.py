"""What a model is trained on: positive pairs of a query and a document, with mined negatives.

What counts as a negative among the documents of other pairs follows when they meet in a batch, see ``batches``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.data.self_hits import self_hits
from ranksaga.errors import DataError

__all__ = ["TrainingPairs", "first_equal", "labelled_pairs"]

NO_DOCUMENT = -1


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

    def documents_of(
        self, examples: NDArray[np.int64], hard_negatives: int, rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """Document rows (b, c) of some pairs, -1 for none.

        The positive comes first, then hard negatives, drawn from the pair's pool without repetition.
        """
        rows: NDArray[np.int32] = self.pairs[examples, 1][:, None]
        if hard_negatives and self.negatives is not None:
            pool = rng.permuted(self.negatives[examples], axis=1)
            # Stable: what exists comes first, in the order drawn.
            order = np.argsort(pool == NO_DOCUMENT, axis=1, kind="stable")[:, :hard_negatives]
            rows = np.concatenate([rows, np.take_along_axis(pool, order, axis=1)], axis=1)
        return rows


def labelled_pairs(dataset: Dataset, train: Qrels, *, titles: bool) -> TrainingPairs:
    """The positive pairs of a split.

    Queries and documents of equal text share one row, so that a copy of a positive is never a
    negative. Pairs whose query or document is blank are left out.

    Args:
        dataset: corpus and queries.
        train: judgments to train on; grades above 0 are positives.
        titles: documents are title and text, as they are scored; False: the text alone (a document without text is
            then left out).

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


def _fingerprint(tables: Sequence[Sequence[str]], arrays: Sequence[NDArray[np.int32]]) -> str:
    digest = hashlib.sha256()
    for table in tables:
        for text in table:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        digest.update(b"|")
    for array in arrays:
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
