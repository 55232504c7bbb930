"""Exact dense search in two passes, for processors whose bf16 matrix products are much faster than fp32.

The first pass scores every document in bf16, with a bound on its error. What can be among the best by that bound
is scored again in float32. So the best are those of float32, with its scores, whose last bits may differ from those of
a single pass as between any two orders of summation. Documents are read once for every group of queries, which asks
for all of them at hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranksaga.kernels.compiled import Candidates, Kernels
from ranksaga.retrieve.sort_keys import NOTHING, encode_keys, take_best

__all__ = ["best_keys"]

MEMORY = 2**27  # bytes of candidates at once, 8 each: a row and a score
ROOM = (4, 1024)  # times as many candidates as results, and at least so many, while the corpus is read
USUAL = np.float32(1e12)  # lengths of vectors, and their inverse, that keep clear of what float32 cannot hold
CHUNK = 256  # queries whose candidates are sorted together


def best_keys(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    ties: NDArray[np.int32],
    depth: int,
    own: NDArray[np.int64],
    kernels: Kernels,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys (n, depth) of the best documents, best first, and the rows (m,) of queries of which bf16 says too little.

    Args:
        queries: (n, d) float32, finite.
        documents: (m, d) float32, finite, with m more than ``depth``.
        ties: (m,) tie ranks.
        depth: results a query.
        own: (n,) a document a query that is no result, or -1.
        kernels: the compiled ones.
    """
    slack = _slack(queries, documents, kernels)
    room = max(ROOM[0] * depth, ROOM[1]) // 16 * 16 + 16
    size = max(1, MEMORY // (8 * room))
    keys = np.full((len(queries), depth), NOTHING, dtype=np.int64)
    uncertain = ~np.isfinite(slack)
    for first in range(0, len(queries), size):
        rows = slice(first, first + size)
        found = kernels.scan(documents, queries[rows], slack[rows], own[rows], depth=depth, room=room)
        uncertain[rows] |= found.counts < 0
        into = keys[rows]
        for start in range(0, len(into), CHUNK):
            some = slice(start, start + CHUNK)
            into[some] = _best(found, some, ties, depth)
    return keys, np.flatnonzero(uncertain)


def _slack(queries: NDArray[np.float32], documents: NDArray[np.float32], kernels: Kernels) -> NDArray[np.float32]:
    """(n,) how far a score of rounded vectors can be from that of the exact ones: Cauchy-Schwarz on what rounding
    took from both, and sums in float32. Infinity where numbers may be too large or too small for sums of squares."""
    longest, furthest = kernels.lengths(documents).max(axis=0)
    length, lost = kernels.lengths(queries).T
    with np.errstate(over="ignore", invalid="ignore"):
        sums = 2 * queries.shape[1] * np.finfo(np.float32).eps * length * longest
        slack = (lost * longest + (length + lost) * furthest + sums) * np.float32(1.001)
        usual = (length > 1 / USUAL) & (longest > 1 / USUAL) & (length * longest < USUAL)
    return np.where(usual, slack, np.float32(np.inf))


def _best(found: Candidates, rows: slice, ties: NDArray[np.int32], depth: int) -> NDArray[np.int64]:
    """Keys (n, depth) of some queries' candidates, best first."""
    counts = found.counts[rows]
    width = max(depth, int(counts.max()))
    real = np.arange(width) < counts[:, None]
    documents = np.where(real, found.documents[rows, :width], 0)
    scores = np.where(real, found.scores[rows, :width], np.float32(-np.inf))
    return take_best(encode_keys(scores, ties[documents]), depth)
