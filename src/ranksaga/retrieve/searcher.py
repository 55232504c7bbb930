"""Search over a corpus with a shipped model: dense, BM25 and their mix, as a run measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ranksaga.data.dataset import Corpus, Dataset, Queries
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.errors import DataError
from ranksaga.files import read_json, write_json
from ranksaga.retrieve.hybrid import fuse
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.retrieve.search import search

__all__ = ["Hit", "Searcher", "read_shares", "write_shares"]

FILE = "ranksaga_hybrid.json"
# Both rankings are this many times as deep as what is asked for, and at least this deep, before they are mixed.
DEPTH_FACTOR, LEAST_DEPTH = 10, 1000


@dataclass(frozen=True)
class Hit:
    """A document found for a query: its id, and a score that compares within the query only."""

    document: str
    score: float


class Searcher:
    """A corpus that can be searched with a model that a run shipped.

    Args:
        encoder: from :func:`ranksaga.encode.encoder.load_encoder`.
        ids: of the documents, unique.
        documents: texts as they are to be read (title and text in one).
        share: of BM25 in the mix, 0 (dense alone) to 1 (BM25 alone).

    Raises:
        DataError: ids and documents do not match, or the share is outside 0 to 1.
    """

    def __init__(self, encoder: Encoder, ids: Sequence[str], documents: Sequence[str], *, share: float) -> None:
        if len(ids) != len(documents) or len(set(ids)) != len(ids) or not len(ids):
            raise DataError(
                f"{len(ids)} ids ({len(set(ids))} different) for {len(documents)} documents; give one id to each"
            )
        if not 0 <= share <= 1:
            raise DataError(f"share {share} is outside 0..1; it is BM25's part in the mix")
        corpus = Corpus(tuple(ids), ("",) * len(ids), tuple(documents))
        self._encoder = encoder
        self._share = share
        self._index = LexicalIndex.of(Dataset("corpus", corpus, Queries((), ()), {}))
        self._vectors = encoder.encode_documents(corpus.documents)

    @staticmethod
    def load(model: str | Path, ids: Sequence[str], documents: Sequence[str], *, like: str | None = None) -> Searcher:
        """With a shipped model's folder and the share of BM25 that was chosen on the dev queries of a dataset.

        Args:
            model: folder ``model`` of a run.
            ids: of the documents.
            documents: their texts.
            like: the dataset of that run which this corpus resembles; none: the mean of all shares.

        Raises:
            DataError: the folder holds no shares, or none for that dataset.
        """
        shares = read_shares(Path(model))
        if like is not None and like not in shares:
            raise DataError(f"{model}: no share of BM25 was chosen for {like!r}; it has {', '.join(shares)}")
        share = float(np.mean(list(shares.values()))) if like is None else shares[like]
        return Searcher(load_encoder(str(model)), ids, documents, share=share)

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The best ``k`` documents of each query, best first."""
        rows = np.arange(len(queries), dtype=np.int32)
        depth = min(len(self._vectors), max(LEAST_DEPTH, DEPTH_FACTOR * k))
        names = tuple(f"query {row}" for row in rows)
        asked = replace(self._index.dataset, queries=Queries(names, tuple(queries)))
        ties = self._index.ties
        dense = search(
            self._encoder.encode_queries(queries), [(0, self._vectors)], query_rows=rows, ties=ties, depth=depth
        )
        mixed = fuse(dense, replace(self._index, dataset=asked).rankings(rows, depth), self._share, ties)
        ids = self._index.dataset.corpus.ids
        return [
            [Hit(ids[row], float(score)) for row, score in zip(found[:k], scores[:k], strict=True) if row >= 0]
            for found, scores in zip(mixed.documents, mixed.scores, strict=True)
        ]


def write_shares(model: Path, shares: Mapping[str, float]) -> None:
    """Keep BM25's share by dataset beside a model."""
    write_json(model / FILE, {"bm25_share": dict(shares)})


def read_shares(model: Path) -> dict[str, float]:
    """BM25's share by dataset, as a run chose it on dev.

    Raises:
        DataError: the folder holds none.
    """
    path = model / FILE
    if not path.is_file():
        raise DataError(f"{model}: no {FILE} there; name the folder model of a run, or give Searcher a share")
    return {str(name): float(share) for name, share in read_json(path)["bm25_share"].items()}
