"""The stage ``data``: what is in each dataset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ranksaga.data.dataset import Dataset
from ranksaga.run.context import Context
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import DATA
from ranksaga.run.store import Entry

__all__ = ["describe_datasets"]


@dataclass(frozen=True)
class DataInputs(Inputs):
    """One dataset, by its fingerprint."""

    STAGE = DATA
    VERSION = 1

    dataset: str


def describe_datasets(context: Context) -> list[Entry]:
    """Count documents, queries and judged queries of each dataset."""
    return [
        context.store.work(
            member.name, DataInputs(member.dataset.fingerprint), partial(_describe, dataset=member.dataset)
        )
        for member in context.datasets
    ]


def _describe(inputs: DataInputs, folder: Path, *, dataset: Dataset) -> Summary:
    return {
        "documents": len(dataset.corpus),
        "queries": len(dataset.queries),
        "splits": {split: len(judgments.query_rows) for split, judgments in dataset.qrels.items()},
    }
