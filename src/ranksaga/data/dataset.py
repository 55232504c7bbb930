"""The inside form of a dataset: corpus, queries and judgments as columns.

Everything downstream addresses documents and queries by their row (int32), so that
search, metrics, mining and leakage checks are array work. Ids appear only at the borders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.errors import DataError

__all__ = ["Corpus", "Dataset", "Qrels", "Queries"]


@dataclass(frozen=True)
class Corpus:
    """Documents as three columns of equal length: id, title (may be empty) and text."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, rows: NDArray[np.integer[Any]]) -> Corpus:
        """The documents of the given rows, in that order."""
        columns = (self.ids, self.titles, self.texts)
        return Corpus(*(tuple(column[row] for row in rows) for column in columns))

    @cached_property
    def documents(self) -> tuple[str, ...]:
        """What an encoder reads: ``title + " " + text``, stripped (the rule of BEIR and MTEB)."""
        return tuple(f"{title} {text}".strip() for title, text in zip(self.titles, self.texts, strict=True))

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each document id."""
        return {identifier: row for row, identifier in enumerate(self.ids)}


@dataclass(frozen=True)
class Queries:
    """Queries as two columns of equal length: id and text."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each query id."""
        return {identifier: row for row, identifier in enumerate(self.ids)}


@dataclass(frozen=True)
class Qrels:
    """Judgments of one split as three int32 columns, sorted by (query, document), no pair twice.

    ``queries`` and ``documents`` are rows of the dataset's queries and corpus; ``scores``
    are the grades, 0 meaning judged and not relevant.
    """

    queries: NDArray[np.int32]
    documents: NDArray[np.int32]
    scores: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.queries)

    @staticmethod
    def of(triples: Sequence[tuple[int, int, int]]) -> Qrels:
        """Build from (query row, document row, grade) in any order."""
        array = np.array(sorted(triples), dtype=np.int32).reshape(-1, 3)
        return Qrels(array[:, 0].copy(), array[:, 1].copy(), array[:, 2].copy())

    @cached_property
    def query_rows(self) -> NDArray[np.int32]:
        """Rows of all judged queries, ascending, each once (those with zero grades only, too)."""
        return np.unique(self.queries)

    @cached_property
    def positives(self) -> Qrels:
        """Only the judgments with a grade above 0."""
        return self._where(self.scores > 0)

    def only_queries(self, rows: NDArray[np.int32]) -> Qrels:
        """Only the judgments of the given query rows."""
        return self._where(np.isin(self.queries, rows))

    def documents_of(self, query: int) -> NDArray[np.int32]:
        """Document rows judged for one query, ascending."""
        start, stop = np.searchsorted(self.queries, [query, query + 1])
        return self.documents[start:stop]

    def _where(self, mask: NDArray[np.bool_]) -> Qrels:
        return Qrels(self.queries[mask], self.documents[mask], self.scores[mask])


@dataclass(frozen=True)
class Dataset:
    """One retrieval collection: a corpus, its queries, and judgments by split (train, dev, test)."""

    name: str
    corpus: Corpus
    queries: Queries
    qrels: Mapping[str, Qrels]

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the content (16 hex digits): ids, texts and judgments; never the name or a path."""
        digest = hashlib.sha256(b"ranksaga-dataset-1")
        for columns in (
            (self.corpus.ids, self.corpus.titles, self.corpus.texts),
            (self.queries.ids, self.queries.texts),
        ):
            for column in columns:
                for value in column:
                    encoded = value.encode("utf-8", "surrogatepass")
                    digest.update(len(encoded).to_bytes(8, "little"))
                    digest.update(encoded)
                digest.update(b"|")
        for split in sorted(self.qrels):
            judged = self.qrels[split]
            digest.update(split.encode())
            for array in (judged.queries, judged.documents, judged.scores):
                digest.update(array.astype("<i4").tobytes())
        return digest.hexdigest()[:16]

    def split(self, name: str) -> Qrels:
        """Judgments of a split.

        Raises:
            DataError: the dataset has no such split.
        """
        if name not in self.qrels:
            have = ", ".join(sorted(self.qrels)) or "none"
            raise DataError(
                f"{self.name}: there is no split {name!r} (found: {have}); add qrels/{name}.tsv or choose another"
            )
        return self.qrels[name]

    def cut(self, split: str, judged: Qrels, documents: NDArray[np.integer[Any]]) -> Dataset:
        """The dataset with a part of its corpus, and all of its queries.

        Args:
            split: the one split of the result.
            judged: its judgments, by row of this dataset.
            documents: rows (n,) that are kept, ascending, among them all that ``judged`` names.

        Raises:
            ValueError: a judged document is not among them.
        """
        rows = np.searchsorted(documents, judged.documents)
        if len(rows) and not (
            len(documents) and np.array_equal(documents[rows.clip(max=len(documents) - 1)], judged.documents)
        ):
            raise ValueError(f"{self.name}: a document that is judged in {split} is not among those that are kept")
        qrels = Qrels(judged.queries, rows.astype(np.int32), judged.scores)
        return Dataset(self.name, self.corpus.only(documents), self.queries, {split: qrels})
