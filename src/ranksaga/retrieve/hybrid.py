"""Hybrid ranking: a convex combination of dense and BM25 scores.

Scores of the two systems live on different scales, so each is first brought to [0, 1] per
query by its observed minimum and maximum (for BM25 the theoretical minimum 0, where the
list ends before its depth). Bruch, Gai and Ingber ("An Analysis of Fusion
Functions for Hybrid Retrieval", TOIS 2023) find that a convex combination beats reciprocal
rank fusion, needs few queries to tune its one weight, and depends little on the choice of
normalisation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranksaga.errors import DataError
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.sort_keys import decode_keys, encode_keys, take_best

__all__ = ["WEIGHTS", "fuse", "normalised"]

WEIGHTS: tuple[float, ...] = tuple(step / 10 for step in range(11))
"""Shares of BM25 that are tried, from dense alone to BM25 alone."""

_QUERIES_AT_ONCE = 1024


def fuse(dense: Rankings, lexical: Rankings, weight: float, ties: NDArray[np.int32]) -> Rankings:
    """Rank the union of both lists by ``(1 - weight) * dense + weight * BM25`` of normalised scores.

    A document that one list lacks counts there as that list's last one. Weight 0 is exactly
    ``dense``, weight 1 exactly ``lexical``; in between the depth is the larger of the two.

    Args:
        dense: rankings of the encoder.
        lexical: BM25 rankings of the same queries in the same order.
        weight: share of BM25, 0 to 1.
        ties: tie rank of every corpus row, from ``tie_order``.

    Raises:
        DataError: the two rank other queries, or the weight is not within 0 and 1.
    """
    if not np.array_equal(dense.queries, lexical.queries):
        raise DataError("dense and lexical rankings hold different queries; rank the same queries with both")
    if not 0 <= weight <= 1:
        raise DataError(f"hybrid weight {weight} is outside 0..1; it is the share of BM25")
    if weight in (0, 1):
        return lexical if weight else dense
    depth = max(dense.depth, lexical.depth)
    keys = [
        take_best(_fused_keys(dense, lexical, weight, ties, slice(start, start + _QUERIES_AT_ONCE)), depth)
        for start in range(0, len(dense), _QUERIES_AT_ONCE)
    ]
    stacked = np.concatenate(keys) if keys else np.empty((0, depth), dtype=np.int64)
    return Rankings(dense.queries, *decode_keys(stacked, ties))


def _fused_keys(
    dense: Rankings, lexical: Rankings, weight: float, ties: NDArray[np.int32], rows: slice
) -> NDArray[np.int64]:
    """Order keys of the union of both lists, (queries, dense depth + lexical depth)."""
    documents = np.concatenate([dense.documents[rows], lexical.documents[rows]], axis=1)
    # A missing document has no entry and so adds 0, what a list's last one adds. The two
    # entries of a shared document stand side by side once sorted; the first takes both shares.
    parts = [
        (1 - weight) * normalised(dense.scores[rows]),
        weight * normalised(lexical.scores[rows], from_zero=True),
    ]
    scores = np.concatenate(parts, axis=1)
    order = np.argsort(documents, axis=1, kind="stable")
    documents = np.take_along_axis(documents, order, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    shared = documents[:, 1:] == documents[:, :-1]
    scores[:, :-1] += np.where(shared, scores[:, 1:], 0)
    scores[:, 1:][shared] = -np.inf
    scores[documents < 0] = -np.inf
    return encode_keys(scores.astype(np.float32), ties[documents])


def normalised(scores: NDArray[np.float32], *, from_zero: bool = False) -> NDArray[np.float64]:
    """Each row to [0, 1]: its best result is 1, a document that the list lacks would be 0.

    With ``from_zero`` a list that ended early lacks only documents of score 0 (no term in common).
    """
    real = np.isfinite(scores)
    values = np.where(real, scores, 0).astype(np.float64)
    low = np.where(real, values, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(real, values, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    if from_zero:
        low = np.where(real.all(axis=1, keepdims=True), low, 0)
    spread = high - low
    result = np.zeros_like(values)
    np.divide(values - low, spread, out=result, where=real & (spread > 0))
    return result
