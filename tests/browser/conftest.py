"""A report with everything that has broken a page before: long ids and names, small guards, many series, no wins."""

from __future__ import annotations

import numpy as np
import pytest

from ranksaga.compare.comparison import compare
from ranksaga.compare.recommendation import answer_of
from ranksaga.compare.results import QueryGroup
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.report.data import CurvePoint, Facts, ReportData, Selection
from ranksaga.report.drill_down import QueryDetail, SystemDetail

NAMES = ("python:stdlib?limit=1000", "python:sentence_transformers?limit=1000", "without_spaces_" * 6, "faq", "kept")
SHIFTS = {"bm25": -0.1, "baseline_hybrid": 0.03, "best": 0.03, "hybrid": 0.06}
PATH = "/home/somebody/" + "models/" * 12


@pytest.fixture(scope="session")
def odd_report() -> ReportData:
    """Five datasets, one of them a guard of nine queries; on ``faq`` no query changes under ``best``."""
    rng = np.random.default_rng(0)
    measured = []
    for name in NAMES:
        count = 9 if name == "kept" else 60
        ids = tuple(f"q{row}" + "x" * 70 * (row % 7 == 0) for row in range(count))
        base = rng.uniform(0.2, 0.9, count)
        for system, shift in {"baseline": 0.0, **SHIFTS}.items():
            still = system == "baseline" or (name, system) == ("faq", "best")
            values = base if still else np.clip(base + rng.normal(shift, 0.1, count), 0, 1)
            columns = {f"ndcg_at_{depth}": values * share for depth, share in ((1, 0.8), (10, 1.0), (100, 1.05))}
            measured.append(Evaluation(name, "test", system, ids, columns | {"recall_at_100": values}))
    comparison = compare(
        [one for one in measured if one.system == "baseline"],
        [one for one in measured if one.system != "baseline"],
        guards=["kept"],
        groups=[QueryGroup(NAMES[2], "no near-copy in training", ("q1", "q2"))],
        rounds=499,
    )
    hostile = "<script>alert(1)</script> a document with a long_unbroken_" + "word" * 30
    details = tuple(
        QueryDetail(
            pair.dataset,
            identifier,
            f"question {identifier} </script><b>bold</b>",
            ("d3",),
            tuple(
                SystemDetail(system, float(value), tuple(f"d{(row + place) % 12}" for place in range(10)))
                for system, value in (("baseline", pair.baseline[row]), ("best", pair.value[row]))
            ),
        )
        for pair in comparison.paired
        if pair.system == "best"
        for row, identifier in enumerate(pair.query_ids)
    )
    points = tuple(
        CurvePoint(
            epoch,
            weight,
            None,
            2 * weight * epoch,
            -weight,
            dict.fromkeys(NAMES[:4], 3 * weight),
            {"kept": -weight},
            qualifies=weight < 0.8,
            chosen=(epoch, weight) == (1, 0.5),
        )
        for epoch in range(1, 9)
        for weight in (0.25, 0.5, 0.75, 1.0)
    )
    return ReportData(
        title=f"A run of {PATH}",
        comparison=comparison,
        headline="best",
        shipped="best",
        answer=answer_of(comparison, "best", ships=True, rounds=499),
        selections=(Selection("best", points, "the largest gain that keeps the guard"),),
        notes=(f"Beside best, BM25's share: {PATH} 0.3.",),
        recipe=f"model: {PATH}\nseed: 0\n",
        facts=(Facts("Model", (("name", PATH), ("tokens", "256"))), Facts("Time", (("train", "2 min 3 s"),))),
        details=details,
        documents={(name, f"d{place}"): hostile for name in NAMES for place in range(12)},
        query_texts={(NAMES[0], f"q{row}"): "what <b>is</b> this? " * 12 for row in range(60)},
    )
