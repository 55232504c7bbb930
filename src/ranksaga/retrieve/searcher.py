"""Search over a corpus with a shipped model: dense, BM25 and their mix, as a run measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ranksaga.data.dataset import Corpus, Dataset, Queries
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.errors import DataError
from ranksaga.files import read_json, write_json
from ranksaga.retrieve.blend import Blend, DenseSide, hubness
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.retrieve.search import search

__all__ = ["Hit", "Searcher", "mean_blend", "read_blends", "write_blends"]

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
        blend: how BM25 is mixed in; none: dense alone.

    Raises:
        DataError: ids and documents do not match.
    """

    def __init__(
        self, encoder: Encoder, ids: Sequence[str], documents: Sequence[str], *, blend: Blend | None = None
    ) -> None:
        if len(ids) != len(documents) or len(set(ids)) != len(ids) or not len(ids):
            raise DataError(
                f"{len(ids)} ids ({len(set(ids))} different) for {len(documents)} documents; give one id to each"
            )
        corpus = Corpus(tuple(ids), ("",) * len(ids), tuple(documents))
        self._encoder = encoder
        self._blend = blend or Blend()
        self._index = LexicalIndex.of(Dataset("corpus", corpus, Queries((), ()), {}))
        self._vectors = encoder.encode_documents(corpus.documents)
        self._hubness = hubness(self._vectors)

    @staticmethod
    def load(
        model: str | Path,
        ids: Sequence[str],
        documents: Sequence[str],
        *,
        like: str | None = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
    ) -> Searcher:
        """With a shipped model's folder and the blend that was chosen on the dev queries of a dataset.

        Args:
            model: folder ``model`` of a run.
            ids: of the documents.
            documents: their texts.
            like: the dataset of that run which this corpus resembles; none: the mean of all blends.
            trust_remote_code: run code that comes with the model.
            allow_pickle: accept weights that are not safetensors (a pickle can run code).

        Raises:
            DataError: the folder holds no blends, or none for that dataset.
            ModelError: see :func:`ranksaga.encode.models.load_model`.
        """
        blends = read_blends(Path(model))
        if like is not None and like not in blends:
            raise DataError(f"{model}: no blend was chosen for {like!r}; it has {', '.join(blends)}")
        blend = mean_blend(list(blends.values())) if like is None else blends[like]
        encoder = load_encoder(str(model), trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
        return Searcher(encoder, ids, documents, blend=blend)

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The best ``k`` documents of each query, best first."""
        rows = np.arange(len(queries), dtype=np.int32)
        depth = min(len(self._vectors), max(LEAST_DEPTH, DEPTH_FACTOR * k))
        names = tuple(f"query {row}" for row in rows)
        asked = replace(self._index.dataset, queries=Queries(names, tuple(queries)))
        ties = self._index.ties
        vectors = self._encoder.encode_queries(queries)
        dense = search(vectors, [(0, self._vectors)], query_rows=rows, ties=ties, depth=depth)
        side = DenseSide(dense, vectors, self._vectors, self._hubness, ties)
        mixed = side.blend(replace(self._index, dataset=asked).rankings(rows, depth), self._blend)
        ids = self._index.dataset.corpus.ids
        return [
            [Hit(ids[row], float(score)) for row, score in zip(found[:k], scores[:k], strict=True) if row >= 0]
            for found, scores in zip(mixed.documents, mixed.scores, strict=True)
        ]


def mean_blend(blends: Sequence[Blend]) -> Blend:
    """The mean of several blends."""
    share, feedback, off = np.mean([[one.share, one.feedback, one.hubness] for one in blends], axis=0).tolist()
    return Blend(share, feedback, off)


def write_blends(model: Path, blends: Mapping[str, Blend]) -> None:
    """Keep the blend of each dataset beside a model."""
    write_json(model / FILE, {name: asdict(blend) for name, blend in blends.items()})


def read_blends(model: Path) -> dict[str, Blend]:
    """The blend of each dataset, as a run chose it on dev.

    Raises:
        DataError: the folder holds none, or it is damaged.
    """
    path = model / FILE
    if not path.is_file():
        raise DataError(f"{model}: no {FILE} there; name the folder model of a run, or give Searcher a blend")
    try:
        return {str(name): Blend(**values) for name, values in read_json(path).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); take it from the run again, or give Searcher a blend") from None
