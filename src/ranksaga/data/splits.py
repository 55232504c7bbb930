"""Who trains, who selects, who is scored: for one dataset.

``test`` is scored and never trains. ``train`` trains. ``dev`` selects. Without ``train``, ``dev`` trains
less a part held out for selection; without ``dev``, a part of ``train`` is held out. A dataset with
``test`` only is cross-fitted: its queries are cut into folds, and each fold is scored by a model that
trained on the others. Near-copies of a query share its side; where a dataset has so many of them that they cannot (see
:func:`find_near_copies`), those on the other side neither train nor select.

Every choice is a hash of (seed, query id), so the order of a file changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.data.leakage import near_copies
from ranksaga.errors import DataError

__all__ = ["NearCopies", "Part", "Split", "find_near_copies", "split_guard", "split_trained", "union"]

# A held-out dev part is a fifth of the queries, more where that is few to choose by, half at most.
HELD_OUT = 0.2
DEV_QUERIES = 250
MOST_HELD_OUT = 0.5
GUARD_DEV = 1 / 3
# A group of near-copies holds at most this share of a fold's queries, so that folds differ by less than a fifth.
LARGEST_GROUP = 0.2


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


@dataclass(frozen=True)
class NearCopies:
    """Which queries of a dataset are near-copies of each other.

    Attributes:
        groups: (queries,) int32, equal for near-copies that stay on one side; the lowest row of the group.
        pairs: (n, 2) int32, rows of all near-copies, within groups and across.
    """

    groups: NDArray[np.int32]
    pairs: NDArray[np.int32]

    def of(self, rows: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(len(rows),) whether each of ``rows`` is a near-copy of one of ``others``, or in its group."""
        there, back = (self.pairs[np.isin(self.pairs[:, side], others)][:, 1 - side] for side in (0, 1))
        near: NDArray[np.bool_] = np.isin(rows, np.concatenate([there, back]))
        return near | np.isin(self.groups[rows], self.groups[others])


def find_near_copies(dataset: Dataset, rows: NDArray[np.int32], *, folds: int) -> NearCopies:
    """The near-copies among some queries of a dataset, in groups.

    Groups grow from the closest pairs (single linkage). A chain of near-copies can run through a whole dataset, so no
    group becomes larger than a fifth of a fold: a pair that would join too many stays apart, and is kept as a pair.

    Args:
        dataset: whose queries are compared.
        rows: (n,) int32, those that are judged.
        folds: that the dataset may be cut into.
    """
    texts, ids = [dataset.queries.texts[row] for row in rows], [dataset.queries.ids[row] for row in rows]
    largest = max(2, round(LARGEST_GROUP * len(rows) / folds))
    leaks = near_copies(texts)
    # Ties by id, not by row: the order of the file changes nothing.
    leaks.sort(key=lambda leak: (-leak.similarity, *sorted((ids[leak.training], ids[leak.scored]))))
    members = {row: [row] for row in range(len(rows))}
    group = list(range(len(rows)))
    for leak in leaks:
        low, high = sorted((group[leak.training], group[leak.scored]))
        if low == high or len(members[low]) + len(members[high]) > largest:
            continue
        for row in members[high]:
            group[row] = low
        members[low] += members.pop(high)
    groups = np.arange(len(dataset.queries), dtype=np.int32)
    groups[rows] = rows[np.array(group, dtype=np.int64)]
    pairs = np.array([(rows[leak.training], rows[leak.scored]) for leak in leaks], dtype=np.int32)
    return NearCopies(groups, pairs.reshape(-1, 2))


def split_guard(dataset: Dataset, copies: NearCopies, *, seed: int) -> Split:
    """A guard: a fixed third of its test queries watches the selection, the others are scored.

    However few queries there are, one group is scored; of two or more, one watches.

    Raises:
        DataError: no test split.
    """
    test = dataset.split("test")
    rows = test.query_rows
    share = _share(dataset, rows, copies.groups, seed, "guard")
    inside = ((share < GUARD_DEV) | (share == share.min())) & (share != share.max())
    watching = _apart(copies, rows[inside], rows[~inside])
    return Split(Part(_nothing(), test.only_queries(watching), test.only_queries(rows[~inside])))


def split_trained(dataset: Dataset, copies: NearCopies, *, folds: int, seed: int) -> Split:
    """A dataset that is trained on.

    Args:
        dataset: with at least a test split.
        copies: the near-copies among its judged queries.
        folds: of cross-fitting, where there is a test split only.
        seed: of the held-out parts and folds.

    Raises:
        DataError: no test split, or fewer groups of queries than folds.
    """
    test = dataset.split("test")
    # A query judged in test, too, is scored and nothing else, whatever is done about near-copies.
    train, dev = (_less(dataset.qrels.get(name), test.query_rows) for name in ("train", "dev"))
    if train is None and dev is None:
        return _cross_fit(dataset, test, copies, folds, seed)
    if train is not None and dev is not None:
        # A training query beside its near-copy in dev would make selection flattering.
        return Split(Part(train.only_queries(_apart(copies, train.query_rows, dev.query_rows)), dev, test))
    source = train if train is not None else dev
    assert source is not None
    inside, outside = _held_out(dataset, source, copies, seed)
    return Split(Part(outside, inside, test))


def _cross_fit(dataset: Dataset, test: Qrels, copies: NearCopies, folds: int, seed: int) -> Split:
    rows = test.query_rows
    share = _share(dataset, rows, copies.groups, seed, "fold")
    distinct, sizes = np.unique(share, return_counts=True)
    if len(distinct) < folds:
        raise DataError(
            f"{dataset.name}: {len(distinct)} distinct test queries cannot be cut into {folds} folds; "
            "make it a guard, or add judged queries"
        )
    filled = np.zeros(folds, dtype=np.int64)
    fold_of = {}
    for index in np.lexsort((distinct, -sizes)):  # large groups first, so that small ones level the folds
        smallest = int(np.argmin(filled))
        fold_of[float(distinct[index])] = smallest
        filled[smallest] += sizes[index]
    fold = np.array([fold_of[value] for value in share.tolist()])
    parts = []
    for number in range(folds):
        scored = rows[fold == number]
        others = test.only_queries(_apart(copies, rows[fold != number], scored))
        inside, outside = _held_out(dataset, others, copies, seed)
        parts.append(Part(outside, inside, test.only_queries(scored)))
    return Split(Part(test, _nothing(), _nothing()), tuple(parts))


def _held_out(dataset: Dataset, source: Qrels, copies: NearCopies, seed: int) -> tuple[Qrels, Qrels]:
    """Queries for selection (about ``DEV_QUERIES``, a fifth to a half of them), and the rest less near-copies of those;
    of two groups or more, neither side is empty."""
    rows = source.query_rows
    share = _share(dataset, rows, copies.groups, seed, "dev")
    distinct = np.unique(share)
    inside = share < min(MOST_HELD_OUT, max(HELD_OUT, DEV_QUERIES / max(1, len(rows))))
    if len(distinct) > 1:
        inside = (inside | (share == distinct[0])) & (share != distinct[-1])
    outside = _apart(copies, rows[~inside], rows[inside])
    return source.only_queries(rows[inside]), source.only_queries(outside)


def _apart(copies: NearCopies, rows: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.int32]:
    """Those of ``rows`` that are near-copies of none of ``others``."""
    return rows[~copies.of(rows, others)]


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
