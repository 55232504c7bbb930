"""What the stages that encode leave: vectors and rankings on disk, and how they are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.encode.encoder import Encoder
from ranksaga.evaluate.benchmark import Vectors, encode_dataset, rank
from ranksaga.retrieve.rankings import Rankings
from ranksaga.run.arrays import read_array, read_rankings, write_array, write_rankings
from ranksaga.run.console import Console
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.store import Entry

__all__ = ["EncodingInputs", "encode_and_rank", "hash_of", "judged_rows", "rankings_of", "rows_of", "vectors_of"]


@dataclass(frozen=True)
class EncodingInputs(Inputs):
    """Of a dataset that an encoder reads: ``queries`` are the rows that are ranked, ``depth`` documents each.

    ``self_hits`` is the version of the rule for documents that are the query itself.
    """

    encoder: str
    dataset: str
    queries: tuple[int, ...]
    depth: int
    self_hits: int = 2


def encode_and_rank(
    inputs: EncodingInputs, folder: Path, *, encoder: Encoder, dataset: Dataset, console: Console, label: str
) -> Summary:
    """Encode a dataset's corpus and the given queries; keep vectors and rankings."""
    rows = np.array(inputs.queries, dtype=np.int32)
    with console.progress(f"{inputs.STAGE.name} {label}", len(rows) + len(dataset.corpus)) as advance:
        vectors = encode_dataset(encoder, dataset, rows, advance)
    write_array(folder / "documents.npy", vectors.documents)
    write_array(folder / "queries.npy", vectors.queries)
    write_array(folder / "query_rows.npy", vectors.query_rows)
    write_rankings(folder / "rankings.npz", rank(dataset, vectors, rows, inputs.depth))
    return {"documents": len(dataset.corpus), "queries": len(rows)}


def judged_rows(dataset: Dataset) -> NDArray[np.int32]:
    """Query rows that are judged in any split, ascending."""
    rows = [judgments.query_rows for judgments in dataset.qrels.values()]
    return np.unique(np.concatenate(rows)).astype(np.int32) if rows else np.empty(0, dtype=np.int32)


def rows_of(rows: NDArray[np.int32]) -> tuple[int, ...]:
    """Rows as a field of inputs."""
    return tuple(rows.tolist())


def hash_of(judgments: Qrels) -> str:
    """Identity of judgments by row; the rows mean what they mean in a dataset of known fingerprint."""
    digest = hashlib.sha256()
    for array in (judgments.queries, judgments.documents, judgments.scores):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def vectors_of(entry: Entry) -> Vectors:
    """The vectors that such a stage kept, memory-mapped."""
    return Vectors(
        read_array(entry.folder / "documents.npy").view(np.float32),
        read_array(entry.folder / "queries.npy").view(np.float32),
        np.asarray(read_array(entry.folder / "query_rows.npy"), dtype=np.int32),
    )


def rankings_of(entry: Entry, rows: NDArray[np.int32]) -> Rankings:
    """The kept rankings of the given query rows (ascending)."""
    kept = read_rankings(entry.folder / "rankings.npz")
    places = np.searchsorted(kept.queries, rows)
    return Rankings(kept.queries[places], kept.documents[places], kept.scores[places])
