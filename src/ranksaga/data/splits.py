"""Who trains, who selects, who is scored: for one dataset.

``test`` is scored and never trains. ``train`` trains. ``dev`` selects. Without ``train``, ``dev`` trains
less a part held out for selection; without ``dev``, a part of ``train`` is held out. A dataset with
``test`` only is cross-fitted: its queries are cut into folds, and each fold is scored by a model that
trained on the others. Near-copies of a query always share its side.

Every choice is a hash of (seed, query id), so the order of a file changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.errors import DataError

__all__ = ["Part", "Split", "group_near_copies", "split_guard", "split_trained", "union"]

# A held-out dev part is a fifth of the queries, more where that is few to choose by, half at most.
HELD_OUT = 0.2
DEV_QUERIES = 250
MOST_HELD_OUT = 0.5
GUARD_DEV = 1 / 3


@dataclass(frozen=True)
class Part:
    """One model's part of a dataset: judgments that train it, that select, and that it scores."""

    train: Qrels
    dev: Qrels
    scored: Qrels


@dataclass(frozen=True)
class Split:
    """A dataset's parts. ``folds`` is empty unless the dataset is cross-fitted; then the shipped model,
    which trains on all of it, scores none of it, and each query is scored in exactly one fold."""

    shipped: Part
    folds: tuple[Part, ...] = ()

    @property
    def scored(self) -> Qrels:
        """All judgments that are scored, by whichever model."""
        return union([fold.scored for fold in self.folds]) if self.folds else self.shipped.scored


def split_guard(dataset: Dataset, groups: NDArray[np.int32], *, seed: int) -> Split:
    """A guard: a fixed third of its test queries watches the selection, the others are scored.

    ``groups`` keeps near-copies on one side; see :func:`group_near_copies`. However few queries there are, one group
    is scored; of two or more, one watches.

    Raises:
        DataError: no test split.
    """
    test = dataset.split("test")
    rows = test.query_rows
    share = _share(dataset, rows, groups, seed, "guard")
    inside = ((share < GUARD_DEV) | (share == share.min())) & (share != share.max())
    return Split(Part(_nothing(), test.only_queries(rows[inside]), test.only_queries(rows[~inside])))


def split_trained(dataset: Dataset, groups: NDArray[np.int32], *, folds: int, seed: int) -> Split:
    """A dataset that is trained on.

    Args:
        dataset: with at least a test split.
        groups: (queries,) int32, equal for near-copies; see :func:`group_near_copies`.
        folds: of cross-fitting, where there is a test split only.
        seed: of the held-out parts and folds.

    Raises:
        DataError: no test split, or fewer groups of queries than folds.
    """
    test = dataset.split("test")
    # A query judged in test, too, is scored and nothing else, whatever is done about near-copies.
    train, dev = (_less(dataset.qrels.get(name), test.query_rows) for name in ("train", "dev"))
    if train is None and dev is None:
        return _cross_fit(dataset, test, groups, folds, seed)
    if train is not None and dev is not None:
        # A training query beside its near-copy in dev would make selection flattering.
        beside = np.isin(groups[train.query_rows], groups[dev.query_rows])
        return Split(Part(train.only_queries(train.query_rows[~beside]), dev, test))
    source = train if train is not None else dev
    assert source is not None
    inside, outside = _held_out(dataset, source, groups, seed)
    return Split(Part(outside, inside, test))


def group_near_copies(count: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    """Groups (count,) of rows that are connected by pairs; a group's number is its lowest row."""
    parent = np.arange(count, dtype=np.int32)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    for left, right in pairs:
        low, high = sorted((root(left), root(right)))
        parent[high] = low
    return np.array([root(row) for row in range(count)], dtype=np.int32)


def _cross_fit(dataset: Dataset, test: Qrels, groups: NDArray[np.int32], folds: int, seed: int) -> Split:
    rows = test.query_rows
    share = _share(dataset, rows, groups, seed, "fold")
    distinct, sizes = np.unique(share, return_counts=True)
    if len(distinct) < folds:
        raise DataError(
            f"{dataset.name}: {len(distinct)} distinct test queries cannot be cut into {folds} folds; "
            "make it a guard, or add judged queries"
        )
    filled = np.zeros(folds, dtype=np.int64)
    fold_of = {}
    for value, size in zip(distinct.tolist(), sizes.tolist(), strict=True):
        smallest = int(np.argmin(filled))
        fold_of[value] = smallest
        filled[smallest] += size
    fold = np.array([fold_of[value] for value in share.tolist()])
    parts = []
    for index in range(folds):
        others = test.only_queries(rows[fold != index])
        inside, outside = _held_out(dataset, others, groups, seed)
        parts.append(Part(outside, inside, test.only_queries(rows[fold == index])))
    return Split(Part(test, _nothing(), _nothing()), tuple(parts))


def _held_out(dataset: Dataset, source: Qrels, groups: NDArray[np.int32], seed: int) -> tuple[Qrels, Qrels]:
    """Queries for selection (about ``DEV_QUERIES``, a fifth to a half of them), and the rest; of two groups or more,
    neither side is empty."""
    rows = source.query_rows
    share = _share(dataset, rows, groups, seed, "dev")
    distinct = np.unique(share)
    inside = share < min(MOST_HELD_OUT, max(HELD_OUT, DEV_QUERIES / max(1, len(rows))))
    if len(distinct) > 1:
        inside = (inside | (share == distinct[0])) & (share != distinct[-1])
    return source.only_queries(rows[inside]), source.only_queries(rows[~inside])


def _less(judged: Qrels | None, rows: NDArray[np.int32]) -> Qrels | None:
    """Judgments less those of the given query rows. A split may end empty: it then trains nothing,
    but its dataset does not turn into one with a test split only."""
    return None if judged is None else judged.only_queries(np.setdiff1d(judged.query_rows, rows))


def _share(
    dataset: Dataset, rows: NDArray[np.int32], groups: NDArray[np.int32], seed: int, purpose: str
) -> NDArray[np.float64]:
    """A number in [0, 1) for each row's group, from the smallest id in it: independent of any order."""
    ids = dataset.queries.ids
    smallest: dict[int, str] = {}
    for row, group in enumerate(groups.tolist()):
        smallest[group] = min(smallest.get(group, ids[row]), ids[row])
    values = {
        group: int.from_bytes(hashlib.sha256(f"{seed}|{purpose}|{name}".encode()).digest()[:7], "big") / 2**56
        for group, name in smallest.items()
    }
    return np.array([values[group] for group in groups[rows].tolist()], dtype=np.float64)


def union(parts: Sequence[Qrels]) -> Qrels:
    """Judgments of several parts as one."""
    queries = np.concatenate([part.queries for part in parts])
    documents = np.concatenate([part.documents for part in parts])
    order = np.lexsort((documents, queries))
    return Qrels(queries[order], documents[order], np.concatenate([part.scores for part in parts])[order])


def _nothing() -> Qrels:
    return Qrels.of(())
