"""Dense and BM25 in one ranking, with two corrections of the dense side.

- *feedback*: the query's vector moves towards the documents that rank first, and the corpus is searched
  again (Rocchio 1971; for dense vectors Yu et al. 2021, ANCE-PRF, without their training). A second search.
- *hubness*: a document near to everything answers little; a share of its mean similarity to its
  neighbours is taken off (CSLS, Conneau et al. 2018). One number a document, computed once.

The amounts are chosen on dev queries; where nothing helps clearly, dense alone is what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.retrieve.hybrid import WEIGHTS, fuse, normalised
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.search import search
from ranksaga.retrieve.sort_keys import decode_keys, encode_keys, take_best

__all__ = ["FEEDBACK_DOCUMENTS", "Blend", "DenseSide", "choose_blend", "hubness", "towards"]

FEEDBACK_DOCUMENTS = 3
FEEDBACK_SHARPNESS = 10.0  # of scores between 0, the last result's, and 1, the first one's
NEIGHBOURS = 30
# Neighbours are looked for among this many documents at most: an estimate is enough, and every pair is too many.
SAMPLE = 20_000
BLOCK = 1024
CORRECTIONS = ((0.0, 0.3, 0.6), (0.0, 0.15, 0.3))
# What corrections must gain on dev over the plain mix: they cost a second search, and dev sets are small.
LEAST_GAIN = 1.01


@dataclass(frozen=True)
class Blend:
    """How a ranking is made: ``share`` of BM25 (0 to 1), ``feedback`` (length of the step, a query's own vector having
    length 1) and ``hubness`` (share taken off). All 0 is dense alone."""

    share: float = 0.0
    feedback: float = 0.0
    hubness: float = 0.0


@dataclass(frozen=True)
class DenseSide:
    """What the dense side of a blend is made of, for some queries of one dataset.

    Attributes:
        rankings: dense rankings of the queries.
        queries: (n, d) their vectors, in the same order.
        documents: (documents, d) float32 vectors.
        hubness: (documents,) from :func:`hubness`.
        ties: tie rank of every corpus row.
        exclude: (n,) corpus rows that are not to be found, -1 for none; or none at all.
    """

    rankings: Rankings
    queries: NDArray[np.float32]
    documents: NDArray[np.float32]
    hubness: NDArray[np.float32]
    ties: NDArray[np.int32]
    exclude: NDArray[np.int32] | None = None

    def blend(self, lexical: Rankings, blend: Blend) -> Rankings:
        """The rankings that a blend gives; ``lexical`` are BM25's of the same queries."""
        return fuse(self._corrected(lexical, blend), lexical, blend.share, self.ties)

    def _corrected(self, lexical: Rankings, blend: Blend) -> Rankings:
        rankings = self.rankings
        if blend.feedback and rankings.depth:
            first = fuse(rankings, lexical, blend.share, self.ties)
            rows = first.documents[:, :FEEDBACK_DOCUMENTS]
            sharp = FEEDBACK_SHARPNESS * normalised(first.scores)[:, :FEEDBACK_DOCUMENTS]
            rankings = search(
                towards(self.queries, self.documents, rows, sharp, blend.feedback),
                [(0, self.documents)],
                query_rows=rankings.queries,
                ties=self.ties,
                depth=rankings.depth,
                exclude=self.exclude,
            )
        if blend.hubness:
            rankings = self._without_hubs(rankings, blend.hubness)
        return rankings

    def _without_hubs(self, rankings: Rankings, share: float) -> Rankings:
        scores = rankings.scores - share * self.hubness[rankings.documents]
        scores[rankings.documents < 0] = -np.inf
        keys = take_best(encode_keys(scores.astype(np.float32), self.ties[rankings.documents]), rankings.depth)
        return Rankings(rankings.queries, *decode_keys(keys, self.ties))


def hubness(documents: NDArray[np.float32]) -> NDArray[np.float32]:
    """(documents,) mean similarity of each document to its nearest 30, among at most 20,000 spread over the corpus."""
    count = len(documents)
    rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).round().astype(np.int64)) if count else np.empty(0)
    others = documents[rows.astype(np.int64)]
    # In a sample the same neighbourhood holds fewer documents.
    nearest = min(len(others) - 1, max(1, round(NEIGHBOURS * len(others) / max(count, 1))))
    means = np.zeros(count, dtype=np.float32)
    place = np.full(count, -1)
    place[rows.astype(np.int64)] = np.arange(len(others))
    for start in range(0, count if nearest > 0 else 0, BLOCK):
        similar = documents[start : start + BLOCK] @ others.T
        own = place[start : start + BLOCK]
        known = np.flatnonzero(own >= 0)
        similar[known, own[known]] = -np.inf
        means[start : start + BLOCK] = np.partition(similar, -nearest, axis=1)[:, -nearest:].mean(axis=1)
    return means


def towards(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    rows: NDArray[np.integer[Any]],
    logits: NDArray[np.floating[Any]],
    step: float,
) -> NDArray[np.float32]:
    """Queries (n, d) moved by ``step`` towards the mean of their first documents, the better ones weighing more.

    A query keeps its length, and a document counts by its direction: models made for the dot product give any lengths.

    Args:
        queries: (n, d) vectors.
        documents: (m, d) vectors.
        rows: (n, k) corpus rows of the first documents; -1 where there is none.
        logits: (n, k) whose softmax weighs those.
        step: length of the step, a query's own vector having length 1.
    """
    present = (rows >= 0) & np.isfinite(logits)
    best = np.where(present, logits, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    best = np.where(np.isfinite(best), best, 0)
    weights = np.where(present, np.exp(np.where(present, logits, best) - best), 0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    moved = _unit(queries) + step * (_unit(documents[rows]) * weights[:, :, None]).sum(axis=1)
    return np.asarray(lengths * _unit(moved), dtype=np.float32)


def _unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Vectors of length 1; those of length 0 stay."""
    unit: NDArray[np.floating[Any]] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit


def choose_blend(dense: DenseSide, lexical: Rankings, score: Callable[[Rankings], float]) -> Blend:
    """The blend whose rankings score best on these queries.

    First the share of BM25 alone; corrections, and a share one step away with them, are taken where they gain 1%.
    ``score`` is what to maximise, such as the mean nDCG@10.
    """
    plain = max((Blend(share) for share in WEIGHTS), key=lambda one: score(dense.blend(lexical, one)))
    best, most = plain, LEAST_GAIN * score(dense.blend(lexical, plain))
    shares = [share for share in WEIGHTS if abs(share - plain.share) < 0.15]
    for share, feedback, off in product(shares, *CORRECTIONS):
        candidate = Blend(share, feedback, off)
        if (feedback or off) and (value := score(dense.blend(lexical, candidate))) > most:
            best, most = candidate, value
    return best
