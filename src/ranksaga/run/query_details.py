"""Every scored query with every system's best documents, for the report."""

from __future__ import annotations

from collections.abc import Sequence

from ranksaga.report.drill_down import TOP, QueryDetail, SystemDetail
from ranksaga.run.arrays import read_rankings
from ranksaga.run.plan import Plan
from ranksaga.run.stages.score import Scored, System, read_evaluation

__all__ = ["query_details"]

METRIC = "ndcg_at_10"


def query_details(systems: Sequence[System], plan: Plan) -> tuple[tuple[QueryDetail, ...], dict[tuple[str, str], str]]:
    """The queries of all datasets, the baseline's results first, and the texts of all documents that are shown."""
    scored = [one for system in systems for one in (*system.scored, *system.mixed)]
    scored.sort(key=lambda one: one.name != "baseline")
    members = {one.member.name: one.member for one in scored}
    details: list[QueryDetail] = []
    texts: dict[tuple[str, str], str] = {}
    for name, member in members.items():
        dataset, positives = member.dataset, plan.scored(name).positives
        gold: dict[int, list[str]] = {}
        for query, document in zip(positives.queries.tolist(), positives.documents.tolist(), strict=True):
            gold.setdefault(query, []).append(dataset.corpus.ids[document])
        found: dict[int, list[SystemDetail]] = {}
        for one in scored:
            if one.member is not member:
                continue
            for query, result, rows in _results(one, plan):
                found.setdefault(query, []).append(result)
                for row in rows:
                    texts[dataset.name, dataset.corpus.ids[row]] = dataset.corpus.documents[row]
        details += [
            QueryDetail(
                dataset.name,
                dataset.queries.ids[query],
                dataset.queries.texts[query],
                tuple(gold.get(query, ())),
                tuple(results),
            )
            for query, results in found.items()
        ]
    return tuple(details), texts


def _results(scored: Scored, plan: Plan) -> list[tuple[int, SystemDetail, list[int]]]:
    """By query row: what the system did, and the rows of the documents it shows."""
    values = read_evaluation(scored, plan).values[METRIC]
    rankings = read_rankings(scored.entry.folder / "rankings.npz")
    at = {query: place for place, query in enumerate(rankings.queries.tolist())}
    ids = scored.member.dataset.corpus.ids
    results = []
    for query, value in zip(plan.scored(scored.member.name).query_rows.tolist(), values.tolist(), strict=True):
        best = rankings.documents[at[query], :TOP].tolist() if query in at else []
        rows = [row for row in best if row >= 0]
        results.append((query, SystemDetail(scored.name, value, tuple(ids[row] for row in rows)), rows))
    return results
