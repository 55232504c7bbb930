"""The measuring stages: baseline, lexical and optimized. Vectors and rankings on disk, evaluations from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset
from ranksaga.encode.encoder import Encoder
from ranksaga.evaluate.benchmark import Vectors, encode_dataset, rank
from ranksaga.run.arrays import read_array, read_rankings, write_array, write_rankings
from ranksaga.run.context import Context, Subject
from ranksaga.run.store import Entry

__all__ = ["baseline", "judged_rows", "lexical", "measure", "rankings_of", "vectors_of"]


def judged_rows(dataset: Dataset) -> NDArray[np.int32]:
    """Query rows that are judged in any split, ascending."""
    rows = [judged.query_rows for judged in dataset.qrels.values()]
    return np.unique(np.concatenate(rows)).astype(np.int32) if rows else np.empty(0, dtype=np.int32)


def baseline(context: Context, subject: Subject) -> Entry:
    """Encode a dataset with the base model and rank all its judged queries."""
    return measure(context, "baseline", subject.name, context.encoder, subject.dataset, judged_rows(subject.dataset))


def measure(
    context: Context, stage: str, label: str, encoder: Encoder, dataset: Dataset, rows: NDArray[np.int32]
) -> Entry:
    """Encode a dataset's corpus and the given queries; keep vectors and rankings."""
    inputs = {
        "encoder": encoder.spec.identity,
        "dataset": dataset.fingerprint,
        "depth": context.recipe.depth,
        "queries": rows.tolist(),
        "left_out": 2,  # version of the rule for documents that are the query itself
    }

    def work(folder: Path) -> dict[str, Any]:
        with context.voice.progress(f"{stage} {label}", len(rows) + len(dataset.corpus)) as advance:
            vectors = encode_dataset(encoder, dataset, rows, advance)
        write_array(folder / "documents.npy", vectors.documents)
        write_array(folder / "queries.npy", vectors.queries)
        write_array(folder / "query_rows.npy", vectors.query_rows)
        write_rankings(folder / "rankings.npz", rank(dataset, vectors, rows, context.recipe.depth))
        return {"documents": len(dataset.corpus), "queries": len(rows)}

    return context.store.work(stage, label, inputs, work)


def lexical(context: Context, subject: Subject) -> Entry:
    """BM25 rankings of all judged queries."""
    rows = judged_rows(subject.dataset)
    inputs = {"dataset": subject.dataset.fingerprint, "depth": context.recipe.depth, "bm25": [0.9, 0.4, 3]}

    def work(folder: Path) -> dict[str, Any]:
        from ranksaga.retrieve.lexical import bm25_rankings

        write_rankings(folder / "rankings.npz", bm25_rankings(subject.dataset, rows, context.recipe.depth))
        return {"queries": len(rows)}

    return context.store.work("baseline", f"bm25 {subject.name}", inputs, work)


def vectors_of(entry: Entry) -> Vectors:
    """The vectors that a measuring stage kept, memory-mapped."""
    return Vectors(
        read_array(entry.folder / "documents.npy").view(np.float32),
        read_array(entry.folder / "queries.npy").view(np.float32),
        np.asarray(read_array(entry.folder / "query_rows.npy"), dtype=np.int32),
    )


def rankings_of(entry: Entry, rows: NDArray[np.int32]) -> Any:
    """The kept rankings of the given query rows (ascending)."""
    kept = read_rankings(entry.folder / "rankings.npz")
    places = np.searchsorted(kept.queries, rows)
    return type(kept)(kept.queries[places], kept.documents[places], kept.scores[places])
