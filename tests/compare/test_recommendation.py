"""The three comparisons and the recommendation: the rule as a table, and the figures from small cases by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from ranksaga.compare.comparison import compare
from ranksaga.compare.recommendation import Answer, Caution, Contrast, MeanChange, answer_of, cautions, recommend
from ranksaga.compare.results import Comparison, ComparisonRow, Verdict
from ranksaga.evaluate.evaluation import Evaluation

ROUNDS = 999


def row(
    system: str, verdict: Verdict, *, dataset: str = "alpha", role: str = "trained", **more: object
) -> ComparisonRow:
    plain = ComparisonRow(
        dataset, "trained", system, "ndcg_at_10", 100, 0.5, change=0.0, change_pct=0.0, verdict=verdict
    )
    return replace(plain, role=role, **more)  # type: ignore[arg-type]


def contrast(system: str, reference: str, says: str) -> Contrast:
    """``+`` improved, ``-`` regressed, ``0`` no evidence, ``!`` improved in the mean but worse on a guard, ``?``
    improved where a dataset is missing."""
    change = {"+": 8.0, "-": -8.0, "0": 1.0, "!": 8.0, "?": 8.0}[says]
    mean = MeanChange(2, 200, change, change - 2, change + 2, 0.001, 0.5 if says == "0" else 0.006, 3.0)
    rows = (row(system, "improved"), row(system, "regressed" if says == "!" else "improved", dataset="g", role="guard"))
    return Contrast(system, reference, rows, mean, ("beta",) if says == "?" else ())


def answer(says: Mapping[str, str], *, ships: bool = True) -> Answer:
    """From "system>reference" to what the contrast says; ``mixed`` is the trained hybrid, ``bm25+`` the base hybrid."""
    names = {"mixed": "hybrid", "bm25+": "baseline_hybrid", "base": "baseline", "best": "best"}
    pairs = [(*(names[name] for name in pair.split(">")), what) for pair, what in says.items()]
    return Answer("best", ships, tuple(contrast(*pair) for pair in pairs))


ALL_BETTER = {"bm25+>base": "+", "best>base": "+", "best>bm25+": "+"}
NO_TRAINING = ("ship the base hybrid", "baseline_hybrid")
HYBRIDS = {"mixed>base": "+", "mixed>bm25+": "+", "mixed>best": "+"}


@pytest.mark.parametrize(
    ("says", "ships", "action", "system"),
    [
        ({}, True, "keep", "baseline"),
        ({"best>base": "+"}, True, "ship the model", "best"),
        ({"best>base": "0"}, True, "keep", "baseline"),
        ({"best>base": "-"}, True, "keep", "baseline"),
        ({"best>base": "!"}, True, "keep", "baseline"),
        ({"best>base": "?"}, True, "keep", "baseline"),
        # Selection kept the base: there is no trained model to ship, whatever folds scored.
        ({"best>base": "+"}, False, "keep", "baseline"),
        ({**ALL_BETTER, **HYBRIDS}, False, *NO_TRAINING),
        # All better than all before: the most effort is worth it.
        ({**ALL_BETTER, **HYBRIDS}, True, "ship the hybrid", "hybrid"),
        # The hybrid adds nothing to the model that could be shown: the model alone.
        ({**ALL_BETTER, **HYBRIDS, "mixed>best": "0"}, True, "ship the model", "best"),
        # Training added nothing to the hybrid that could be shown: no training needed.
        ({**ALL_BETTER, **HYBRIDS, "best>bm25+": "-", "mixed>bm25+": "0"}, True, *NO_TRAINING),
        ({**ALL_BETTER, **HYBRIDS, "best>bm25+": "0"}, True, "ship the hybrid", "hybrid"),
        ({**ALL_BETTER, **HYBRIDS, "best>bm25+": "0", "mixed>bm25+": "!"}, True, *NO_TRAINING),
        # BM25 does not help the untrained model: it is compared with the base alone.
        ({**ALL_BETTER, "bm25+>base": "0", "best>bm25+": "0"}, True, "ship the model", "best"),
        # The model alone does not gain, the hybrids do.
        ({**HYBRIDS, "bm25+>base": "0", "best>base": "0", "best>bm25+": "0"}, True, "ship the hybrid", "hybrid"),
        # A hybrid that was not measured everywhere is not what to ship.
        ({**ALL_BETTER, **HYBRIDS, "mixed>base": "?"}, True, "ship the model", "best"),
        ({**ALL_BETTER, "bm25+>base": "?"}, True, "ship the model", "best"),
    ],
)  # fmt: skip
def test_the_rule(says: Mapping[str, str], ships: bool, action: str, system: str) -> None:
    found = recommend(answer(says, ships=ships))
    assert (found.action, found.system) == (action, system)
    if system != "baseline":
        assert (found.because[0].system, found.because[0].reference) == (system, "baseline")
    assert all(system in (one.system, one.reference) for one in found.because)


def test_the_verdict_has_three_comparisons_in_this_order() -> None:
    found = answer({**HYBRIDS, **ALL_BETTER})
    pairs = [(one.system, one.reference) for one in found.verdict]
    assert pairs == [("best", "baseline"), ("hybrid", "baseline_hybrid"), ("hybrid", "baseline")]
    others = {(one.system, one.reference) for one in found.others}
    assert others == {("baseline_hybrid", "baseline"), ("best", "baseline_hybrid"), ("hybrid", "best")}


def test_what_is_not_proven_safe_is_said() -> None:
    lost = {"change": -0.01, "change_pct": -2.0}
    rows = (
        row("best", "improved", change=0.1, change_pct=20.0, detectable=0.2),
        row("best", "regressed", dataset="worse", change=-0.1, change_pct=-20.0, detectable=0.05),
        row("best", "no evidence", dataset="fine", value=0.51, change=0.01, change_pct=2.0, detectable=0.02),
        row("best", "no evidence", dataset="loses", role="guard", value=0.49, **lost, detectable=0.02),
        row("best", "no evidence", dataset="small", role="guard", n_queries=9, value=0.5, detectable=0.075),
        row("best", "no evidence", dataset="tiny", role="guard", n_queries=5, value=0.4, change=-0.1, change_pct=-20.0),
        row("best", "no evidence", dataset="equal", role="guard"),  # every query alike: nothing to be seen
    )  # fmt: skip
    assert cautions(rows) == (
        Caution("loses", "guard", 100, -2.0, True, False, 100 * 0.02 / 0.5),
        Caution("small", "guard", 9, 0.0, False, True, 100 * 0.075 / 0.5),
        Caution("tiny", "guard", 5, -20.0, True, True, None),
    )
    found = recommend(Answer("best", True, (replace(contrast("best", "baseline", "+"), rows=(rows[0], rows[3])),)))
    assert [one.dataset for one in found.cautions] == ["loses"]


@pytest.mark.parametrize(
    ("p_holm", "detectable", "queries", "verdict", "unresolved"),
    [
        (0.049, 9.0, 100, "improved", False),
        (0.05, 5.0, 100, "no evidence", False),
        (0.05, 5.1, 100, "no evidence", True),
        (0.5, None, 100, "no evidence", False),
        (0.5, None, 5, "no evidence", True),
    ],
)
def test_no_evidence_says_whether_it_could_have_been_seen(
    p_holm: float, detectable: float | None, queries: int, verdict: str, unresolved: bool
) -> None:
    mean = MeanChange(2, queries, 1.0, -1.0, 3.0, p_holm, p_holm, detectable)
    assert (mean.verdict, mean.unresolved) == (verdict, unresolved)
    assert replace(mean, change_pct=-1.0).verdict == ("regressed" if verdict == "improved" else verdict)


def evaluations(dataset: str, **systems: Sequence[float]) -> list[Evaluation]:
    ids = tuple(f"q{place}" for place in range(len(next(iter(systems.values())))))
    return [
        Evaluation(dataset, "test", system, ids, {"ndcg_at_10": np.array(values, dtype=np.float64)})
        for system, values in systems.items()
    ]


def compared(*measured: list[Evaluation], guards: Sequence[str] = ()) -> Comparison:
    every = [one for dataset in measured for one in dataset]
    base = [one for one in every if one.system == "baseline"]
    return compare(base, [one for one in every if one.system != "baseline"], guards=guards, rounds=ROUNDS)


def test_figures_of_constant_changes_are_exact() -> None:
    """The base 0.25 and 0.5; BM25 beside it +50% and +25%; the model +25% and 0%; the hybrid adds 0.125 to each."""
    levels = {
        "alpha": {"baseline": 0.25, "best": 0.3125, "baseline_hybrid": 0.375, "hybrid": 0.5},
        "beta": {"baseline": 0.5, "best": 0.5, "baseline_hybrid": 0.625, "hybrid": 0.75},
        "kept": {"baseline": 0.5, "best": 0.5, "baseline_hybrid": 0.5, "hybrid": 0.5},
    }
    sets = [
        evaluations(name, **{system: [value] * 40 for system, value in row.items()}) for name, row in levels.items()
    ]
    found = answer_of(compared(*sets, guards=["kept"]), "best", ships=True, rounds=ROUNDS)
    means = {
        (one.system, one.reference): pytest.approx((one.mean.change_pct, one.mean.ci_low, one.mean.ci_high, one.mean.p))
        for one in found.contrasts
        if one.mean is not None
    }
    # Alike queries have no spread, so an interval is that over datasets: of two the ends are the datasets themselves.
    assert means == {
        ("baseline_hybrid", "baseline"): (37.5, 25.0, 50.0, 0.001),
        ("best", "baseline"): (12.5, 0.0, 25.0, 0.001),
        ("best", "baseline_hybrid"): (-55 / 3, -20.0, -50 / 3, 0.001),
        ("hybrid", "baseline"): (75.0, 50.0, 100.0, 0.001),
        ("hybrid", "baseline_hybrid"): (80 / 3, 20.0, 100 / 3, 0.001),
        ("hybrid", "best"): (55.0, 50.0, 60.0, 0.001),
    }
    corrected = [one.mean.p_holm for one in found.contrasts if one.mean]
    assert corrected == pytest.approx([0.006] * 6)  # six, all at 1 / 1000
    assert found.recommendation.action == "ship the hybrid"
    added = found.contrast("hybrid", "baseline_hybrid")
    assert added is not None
    assert [(row.dataset, row.role, row.change) for row in added.rows] == [
        ("alpha", "trained", 0.125),
        ("beta", "trained", 0.125),
        ("kept", "guard", 0.0),
    ]
    assert added.guards_pct == 0.0
    assert [row.verdict for row in added.rows] == ["improved", "improved", "no evidence"]


def test_the_users_case_is_answered() -> None:
    """BM25 beside the untrained model is better than the trained model and the trained hybrid: no training needed."""
    sets = evaluations("faq", baseline=[0.75] * 40, best=[0.875] * 40, baseline_hybrid=[1.0] * 40, hybrid=[0.9375] * 40)
    found = answer_of(compared(sets), "best", ships=True, rounds=ROUNDS).recommendation
    assert (found.action, found.system) == ("ship the base hybrid", "baseline_hybrid")
    decided = {(one.system, one.reference): one.better for one in found.because}
    assert decided == {
        ("baseline_hybrid", "baseline"): True,
        ("best", "baseline_hybrid"): False,
        ("hybrid", "baseline_hybrid"): False,
    }


def test_a_system_that_lacks_a_dataset_is_no_candidate_and_a_base_of_zero_has_no_percent() -> None:
    full = evaluations("alpha", baseline=[0.25] * 40, best=[0.5] * 40, hybrid=[1.0] * 40)
    part = evaluations("beta", baseline=[0.25] * 40, best=[0.5] * 40)
    nothing = evaluations("zero", baseline=[0.0] * 40, best=[0.5] * 40, hybrid=[0.5] * 40)
    found = answer_of(compared(full, part, nothing), "best", ships=True, rounds=ROUNDS)
    hybrid = found.contrast("hybrid", "baseline")
    assert hybrid is not None
    assert hybrid.missing == ("beta",)
    assert found.recommendation.action == "ship the model"
    model = found.contrast("best", "baseline")
    assert model is not None
    assert model.mean is not None
    assert (model.mean.datasets, model.mean.queries, model.mean.change_pct) == (2, 80, 100.0)
    only = answer_of(compared(nothing), "best", ships=True, rounds=ROUNDS)
    assert [one.mean is None for one in only.contrasts if one.reference == "baseline"] == [True, True]
    assert only.recommendation.action == "keep"
