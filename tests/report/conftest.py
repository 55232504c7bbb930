"""A small study with figures that a reader can check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranksaga.compare.comparison import compare
from ranksaga.compare.results import QueryGroup
from ranksaga.data.leakage import LeakageExample, LeakageFinding
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.report.data import (
    CurvePoint,
    Facts,
    ReportData,
    Selection,
)

QUERIES = 40
# nDCG@10 of every query, by dataset and system: binary fractions, so that the figures are exact.
LEVELS = {
    "alpha": {"baseline": 0.25, "bm25": 0.125, "v1": 0.1875, "best": 0.5},
    "beta": {"baseline": 0.5, "bm25": 0.5, "v1": 0.5, "best": 0.5625},
    "guarded": {"baseline": 0.5, "bm25": 0.25, "v1": 0.5, "best": 0.5},
}


def _evaluation(dataset: str, system: str, level: float) -> Evaluation:
    values = {"ndcg_at_10": np.full(QUERIES, level), "recall_at_100": np.full(QUERIES, 0.75)}
    out_of_fold = dataset == "beta" and system == "best"
    return Evaluation(dataset, "test", system, tuple(f"q{row}" for row in range(QUERIES)), values, out_of_fold)


@pytest.fixture(scope="session")
def study() -> ReportData:
    measured = [_evaluation(name, system, level) for name, row in LEVELS.items() for system, level in row.items()]
    comparison = compare(
        [each for each in measured if each.system == "baseline"],
        [each for each in measured if each.system != "baseline"],
        guards={"guarded"},
        groups=[QueryGroup("alpha", "clean", ("q0", "q1"))],
        rounds=999,
    )
    points = (
        CurvePoint(1, 0.5, None, 2.0, -0.25, {"alpha": 3.0, "beta": 1.0}, {"guarded": -0.25}, chosen=True),
        CurvePoint(1, 1.0, None, 3.0, -4.0, {"alpha": 5.0, "beta": 1.0}, {"guarded": -4.0}, qualifies=False),
    )
    return ReportData(
        title="A study of <two> sets",
        comparison=comparison,
        headline="best",
        shipped="best",
        selections=(Selection("best", points, "The largest gain that keeps the guard."),),
        leakage=(
            LeakageFinding(
                "alpha", "a near-copy in training", 12, 40, 9, (LeakageExample("scored one", "seen <one>", 0.97),)
            ),
        ),
        notes=("v1 was capped at 100 steps | of 900.",),
        recipe="model: minilm\nseed: 0\n",
        facts=(Facts("Versions", (("torch", "2.13.0"),)),),
        query_texts={("alpha", "q0"): "what is <script>alert(1)</script> & why"},
    )


@pytest.fixture(scope="session")
def nothing_shipped(study: ReportData) -> ReportData:
    """The case in which v1 is all there is, and the base model ships."""
    return replace(study, headline="v1", shipped="baseline", shipped_reason="Every weight lost on beta.")
