"""Ranking metrics per query, vectorised, equal to trec_eval's (and to BEIR's MRR).

nDCG takes the grade as the gain (linear, as trec_eval's ``ndcg_cut`` and BEIR do) with the
discount log2(rank + 1) of Järvelin and Kekäläinen (TOIS 2002); its ideal is made from all
judged documents. MAP is ``map_cut``: precision at each relevant document up to the cut-off,
over the number of all relevant documents. MRR is one over the rank of the first relevant
document up to the cut-off. Relevant means a grade above 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.profile import timed
from ranksaga.retrieve.rankings import Rankings

__all__ = ["CUTOFFS", "evaluate"]

CUTOFFS: tuple[int, ...] = (1, 3, 5, 10, 100, 1000)

_QUERIES_AT_ONCE = 1024


@timed("score")
def evaluate(
    rankings: Rankings,
    dataset: Dataset,
    split: str,
    *,
    system: str,
    qrels: Qrels | None = None,
    out_of_fold: bool = False,
) -> Evaluation:
    """Score rankings by the judgments of a split, per query.

    Every judged query counts, with 0 where the rankings have no result for it; ranked
    queries without judgments do not. The keys are ``ndcg_at_k``, ``map_at_k``,
    ``recall_at_k``, ``precision_at_k`` and ``mrr_at_k`` for each k of ``CUTOFFS``.

    Args:
        rankings: what a system returned, in any order of queries.
        dataset: the dataset that was ranked.
        split: name of the split, for the judgments and for the record.
        system: name of the system, for the record.
        qrels: judgments to use in place of the split's, such as those of a part of its queries.
        out_of_fold: whether each query was scored by a model that never saw its fold.

    Raises:
        DataError: the dataset has no such split.
    """
    judged = dataset.split(split) if qrels is None else qrels
    queries = judged.query_rows
    positives = judged.positives
    owner = np.searchsorted(queries, positives.queries)
    relevant = np.bincount(owner, minlength=len(queries))
    hits = _hits(rankings, queries, positives, len(dataset.corpus))
    ideal = _ideal(owner, positives.scores)
    values = {
        f"{name}_at_{cutoff}": value for cutoff in CUTOFFS for name, value in _at(cutoff, hits, ideal, relevant).items()
    }
    identifiers = tuple(dataset.queries.ids[row] for row in queries.tolist())
    return Evaluation(dataset.name, split, system, identifiers, values, out_of_fold)


@dataclass(frozen=True)
class _Hits:
    """Relevant results as columns, by query and then by rank.

    ``query`` is the position among the judged queries, ``rank`` counts from 1, ``nth`` says
    that it is the n-th relevant result of its query (from 1), ``grade`` is its grade.
    """

    query: NDArray[np.int64]
    rank: NDArray[np.int64]
    nth: NDArray[np.int64]
    grade: NDArray[np.float64]


def _hits(rankings: Rankings, queries: NDArray[np.int32], positives: Qrels, corpus: int) -> _Hits:
    """The relevant results among the first ``CUTOFFS[-1]``: few beside all results, so the metrics are cheap."""
    # (query, document) as one number; ascending, since judgments are sorted by that pair.
    known = positives.queries.astype(np.int64) * corpus + positives.documents
    asked = np.flatnonzero(np.isin(rankings.queries, queries))
    asked = asked[np.argsort(rankings.queries[asked], kind="stable")]
    query, rank, grade = [], [], []
    for start in range(0, len(asked), _QUERIES_AT_ONCE):
        rows = asked[start : start + _QUERIES_AT_ONCE]
        documents = rankings.documents[rows, : CUTOFFS[-1]]
        pairs = rankings.queries[rows].astype(np.int64)[:, None] * corpus + documents
        place = np.searchsorted(known, pairs)
        found = (documents >= 0) & (np.append(known, -1)[place] == pairs)
        row, column = np.nonzero(found)
        query.append(np.searchsorted(queries, rankings.queries[rows[row]]))
        rank.append(column + 1)
        grade.append(positives.scores[place[found]])
    columns = [np.concatenate(part) if part else np.empty(0, dtype=np.int64) for part in (query, rank, grade)]
    return _Hits(columns[0], columns[1], _ordinals(columns[0]), columns[2].astype(np.float64))


def _ideal(owner: NDArray[np.int64], grades: NDArray[np.int32]) -> _Hits:
    """The best possible ranking: each query's relevant documents by falling grade."""
    order = np.lexsort((-grades, owner))
    nth = _ordinals(owner[order])
    return _Hits(owner[order], nth, nth, grades[order].astype(np.float64))


def _ordinals(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """1, 2, 3 ... within each run of equal values of a sorted array."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups) + 1


def _at(cutoff: int, hits: _Hits, ideal: _Hits, relevant: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Every metric at one cut-off, one value a judged query."""

    def total(of: _Hits, amounts: NDArray[np.float64]) -> NDArray[np.float64]:
        near = of.rank <= cutoff
        sums = np.bincount(of.query[near], weights=amounts[near], minlength=len(relevant))
        return sums.astype(np.float64)

    def share(part: NDArray[np.float64], whole: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(part, whole, out=np.zeros(len(relevant)), where=whole > 0)

    found = total(hits, np.ones(len(hits.rank)))
    return {
        "ndcg": share(total(hits, _discounted(hits)), total(ideal, _discounted(ideal))),
        "map": share(total(hits, hits.nth / hits.rank), relevant),
        "recall": share(found, relevant),
        "precision": found / cutoff,
        "mrr": total(hits, (hits.nth == 1) / hits.rank),
    }


def _discounted(hits: _Hits) -> NDArray[np.float64]:
    return hits.grade / np.log2(hits.rank + 1)
