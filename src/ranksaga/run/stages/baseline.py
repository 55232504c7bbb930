"""The stage ``baseline``: every judged query ranked by the base model and by BM25."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ranksaga.data.dataset import Dataset
from ranksaga.retrieve import languages, lexical
from ranksaga.run.arrays import write_rankings
from ranksaga.run.context import Context, RunDataset
from ranksaga.run.measure import EncodingInputs, encode_and_rank, judged_rows, rows_of
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import BASELINE
from ranksaga.run.store import Entry

__all__ = ["Baselines", "bm25_constants", "measure_baselines", "rank_with_base"]


@dataclass(frozen=True)
class Baselines:
    """By dataset what the base model and BM25 left: rankings of all judged queries, and the base model's vectors."""

    dense: Mapping[str, Entry]
    bm25: Mapping[str, Entry]


@dataclass(frozen=True)
class DenseInputs(EncodingInputs):
    """Of the base model."""

    STAGE = BASELINE
    VERSION = 1


@dataclass(frozen=True)
class Bm25Inputs(Inputs):
    """Of BM25. The version stands for tokens, stop words and stemmers."""

    STAGE = BASELINE
    VERSION = 3

    dataset: str
    queries: tuple[int, ...]
    depth: int
    constants: Mapping[str, float]


def bm25_constants() -> dict[str, float]:
    """The parameters of BM25 and of how it tells languages apart, for whatever uses its scores."""
    return {
        "k1": lexical._K1,
        "b": lexical._B,
        "SAMPLE": languages._SAMPLE,
        "LEAST_SHARE": languages._LEAST_SHARE,
        "LEAST_WORDS": languages._LEAST_WORDS,
        "ABOVE_ENGLISH": languages._ABOVE_ENGLISH,
    }


def measure_baselines(context: Context) -> Baselines:
    """Rank all judged queries of all datasets, by both."""
    names = [member.name for member in context.datasets]
    dense = context.workers.map(partial(rank_with_base, context), context.datasets)
    bm25 = context.workers.map(partial(_rank_with_bm25, context), context.datasets)
    return Baselines(dict(zip(names, dense, strict=True)), dict(zip(names, bm25, strict=True)))


def rank_with_base(context: Context, member: RunDataset) -> Entry:
    """Encode a dataset with the base model and rank all its judged queries."""
    encoder, dataset = context.encoder, member.dataset
    rows = rows_of(judged_rows(dataset))
    inputs = DenseInputs(encoder.spec.identity, dataset.fingerprint, rows, context.recipe.depth)
    work = partial(encode_and_rank, encoder=encoder, dataset=dataset, console=context.console, label=member.name)
    return context.store.work(member.name, inputs, work)


def _rank_with_bm25(context: Context, member: RunDataset) -> Entry:
    dataset = member.dataset
    inputs = Bm25Inputs(
        dataset.fingerprint, rows_of(judged_rows(dataset)), context.recipe.depth, constants=bm25_constants()
    )
    return context.store.work(f"bm25 {member.name}", inputs, partial(_bm25, dataset=dataset))


def _bm25(inputs: Bm25Inputs, folder: Path, *, dataset: Dataset) -> Summary:
    rows = np.array(inputs.queries, dtype=np.int32)
    write_rankings(folder / "rankings.npz", lexical.bm25_rankings(dataset, rows, inputs.depth))
    return {"queries": len(rows)}
