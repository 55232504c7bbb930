"""How texts are cut into batches: those of like length together, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np

__all__ = ["alike", "by_budget", "evenly"]

# What a further batch may cost, as a share of the texts' tokens. At 12/1000 padding is 6% of what is computed (at most
# 9%), and 160 queries are cut into 8 passes. Small passes are slow: a GPU waits for their launches (docs/log/).
PRICE = 12 / 1000


def by_budget(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Cut rows sorted by falling length into (start, stop) with at most ``budget`` padded tokens each."""
    cuts: list[tuple[int, int]] = []
    start = 0
    for row in range(len(lengths) + 1):
        if row == len(lengths) or (row > start and lengths[start] * (row - start + 1) > budget):
            if row > start:
                cuts.append((start, row))
            start = row
    return cuts


def alike(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Cut rows sorted by falling length into batches, (start, stop), of one length each."""
    cuts: list[tuple[int, int]] = []
    for length, rows in groupby(lengths):
        start = cuts[-1][1] if cuts else 0
        cuts += [(start + first, start + last) for first, last in by_budget([length for _ in rows], budget)]
    return cuts


def evenly(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Likewise for a GPU, whose budget would let everything into one batch: few tokens of padding in few batches.

    The cut that computes the fewest tokens, each batch counting as ``PRICE`` of all; equal lengths are apart only
    where the budget says so.
    """
    if not lengths:
        return []
    sizes, firsts, counts = np.unique(-np.asarray(lengths, dtype=np.int64), return_index=True, return_counts=True)
    sizes, before = -sizes, np.concatenate([[0], np.cumsum(counts)])
    price = PRICE * float((sizes * counts).sum())
    # best[k]: least cost of the first k distinct lengths; last[k]: where the last batch of that cut begins.
    best, last = np.zeros(len(sizes) + 1), np.zeros(len(sizes) + 1, dtype=np.int64)
    for stop in range(1, len(sizes) + 1):
        costs = best[:stop] + sizes[:stop] * (before[stop] - before[:stop]) + price
        last[stop] = int(costs.argmin())
        best[stop] = costs[last[stop]]
    starts, stop = [], len(sizes)
    while stop:
        stop = int(last[stop])
        starts.append(int(firsts[stop]))
    edges = [*reversed(starts), len(lengths)]
    return [
        (first + start, first + stop)
        for first, after in pairwise(edges)
        for start, stop in by_budget(lengths[first:after], budget)
    ]
