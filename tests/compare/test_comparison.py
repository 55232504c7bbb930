"""Comparisons by hand: pairing, Holm's families, verdicts, summaries, groups, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ranksaga.compare.comparison import compare
from ranksaga.compare.results import Comparison, QueryGroup
from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation

ROUNDS = 999


def evaluation(
    dataset: str, system: str, values: Sequence[float], *, ids: Sequence[str] = (), split: str = "test", **more: float
) -> Evaluation:
    names = tuple(ids) or tuple(f"q{row}" for row in range(len(values)))
    columns = {"ndcg_at_10": np.array(values, dtype=np.float64)}
    columns |= {metric: np.full(len(values), value) for metric, value in more.items()}
    return Evaluation(dataset, split, system, names, columns)


def constant(dataset: str, system: str, value: float, queries: int = 40) -> Evaluation:
    return evaluation(dataset, system, [value] * queries)


def test_a_tiny_comparison_by_hand() -> None:
    base = evaluation("toy", "minilm", [0.5, 0.5, 0.0, 1.0], recall_at_5=0.5)
    best = evaluation("toy", "best", [1.0, 0.5, 0.5, 1.0], recall_at_5=0.75)
    found = compare([base], [best], rounds=10_000)

    first = found.row("toy", "baseline")
    assert first is not None
    assert (first.value, first.n_queries, first.role) == (0.5, 4, "trained")
    assert (first.change, first.change_pct, first.p, first.p_holm, first.verdict) == (None,) * 5
    assert first.ci_low is not None
    assert first.ci_high is not None
    assert first.ci_low < 0.5 < first.ci_high

    row = found.row("toy", "best")
    assert row is not None
    assert (row.value, row.change, row.change_pct) == (0.75, 0.25, 50.0)
    assert (row.wins, row.ties, row.losses) == (2, 2, 0)
    # Differences 0.5, 0, 0.5, 0: sd 0.5 / sqrt(3). Of the four flips of the two that differ, two reach the sum.
    assert row.effect_size == pytest.approx(0.25 / (0.5 / 3**0.5))
    assert row.p == pytest.approx(0.5, abs=0.02)
    assert row.p_holm == row.p
    assert row.verdict == "no evidence"
    assert row.interval_pct == pytest.approx((200 * (row.ci_low or 0), 200 * (row.ci_high or 0)))

    untested = found.row("toy", "best", "recall_at_5")
    assert untested is not None
    assert (untested.value, untested.change, untested.change_pct) == (0.75, 0.25, 50.0)
    assert (untested.ci_low, untested.p, untested.p_holm, untested.verdict, untested.wins) == (None,) * 5
    assert untested.interval_pct is None


def test_queries_are_paired_by_id_not_by_place() -> None:
    base = evaluation("toy", "base", [0.1, 0.2, 0.9], ids=("a", "b", "c"))
    straight = evaluation("toy", "best", [0.3, 0.2, 0.4], ids=("a", "b", "c"))
    turned = evaluation("toy", "best", [0.4, 0.3, 0.2], ids=("c", "a", "b"))
    assert compare([base], [turned], rounds=ROUNDS).rows == compare([base], [straight], rounds=ROUNDS).rows
    pair = compare([base], [turned], rounds=ROUNDS).paired[0]
    assert pair.query_ids == ("a", "b", "c")
    assert pair.differences == pytest.approx([0.2, 0.0, -0.5])


def test_holm_runs_over_the_datasets_of_one_system_guards_included() -> None:
    baselines = [constant("one", "base", 0.25), constant("two", "base", 0.5), constant("kept", "base", 0.5)]
    candidates = [
        constant("one", "best", 0.5),
        constant("two", "best", 0.5),
        constant("kept", "best", 0.25),
        constant("one", "other", 0.5),
    ]
    found = compare(baselines, candidates, guards={"kept"}, rounds=ROUNDS)
    figures = {(row.dataset, row.system): (row.p, row.p_holm, row.verdict) for row in found.rows if row.p is not None}
    # All 40 differences alike: no flip reaches them, so p = 1 / 1000; no difference at all: p = 1.
    assert figures == {
        ("one", "best"): (0.001, pytest.approx(0.003), "improved"),
        ("kept", "best"): (0.001, pytest.approx(0.003), "regressed"),
        ("two", "best"): (1.0, 1.0, "no evidence"),
        ("one", "other"): (0.001, 0.001, "improved"),
    }
    assert [row.dataset for row in found.regressions("best")] == ["kept"]
    assert found.regressions("other") == ()


@pytest.fixture
def study() -> Comparison:
    """Changes of best: +100%, -20%, none (the baseline is 0), and +10% on the guard, which comes first."""
    levels = {"kept": (0.5, 0.55), "one": (0.25, 0.5), "two": (0.5, 0.4), "zero": (0.0, 0.1)}
    baselines = [constant(name, "base", base) for name, (base, _) in levels.items()]
    candidates = [constant(name, "best", best) for name, (_, best) in levels.items()]
    return compare(baselines, candidates, guards={"kept"}, rounds=ROUNDS)


def test_the_summary_keeps_guards_apart(study: Comparison) -> None:
    summary = study.summary("best")
    assert (summary.datasets, summary.improved, summary.confirmed, summary.regressed) == (3, 2, 2, 1)
    assert summary.mean_change_pct == pytest.approx((100 - 20) / 2)
    assert summary.best is not None
    assert summary.worst is not None
    assert (summary.best.dataset, summary.worst.dataset) == ("one", "two")
    assert (summary.guards, summary.guards_regressed) == (1, 0)
    assert summary.guards_mean_change_pct == pytest.approx(10.0)
    assert study.datasets == ("one", "two", "zero", "kept")
    zero = study.row("zero", "best")
    assert zero is not None
    assert zero.change_pct is None
    assert zero.change == pytest.approx(0.1)


def test_rounding_is_not_an_improvement() -> None:
    base = evaluation("toy", "base", [0.3, 0.1])
    best = evaluation("toy", "best", [0.1 + 0.2, 0.1])
    assert compare([base], [best], rounds=ROUNDS).summary("best").improved == 0


def test_single_queries_are_listed_by_their_change() -> None:
    base = evaluation("toy", "base", [0.5, 0.5, 0.5, 0.5, 0.0])
    best = evaluation("toy", "best", [0.6, 0.5, 0.0, 1.0, 0.4])
    pair = compare([base], [best], rounds=ROUNDS).paired[0]
    assert [change.query_id for change in pair.largest_wins(2)] == ["q3", "q4"]
    assert [change.query_id for change in pair.largest_wins(9)] == ["q3", "q4", "q0"]
    assert [(change.query_id, change.change) for change in pair.largest_losses(9)] == [("q2", -0.5)]


def test_groups_of_queries_by_hand() -> None:
    base = evaluation("toy", "base", [0.5, 0.5, 0.25, 0.25])
    best = evaluation("toy", "best", [1.0, 1.0, 0.25, 0.25])
    groups = [
        QueryGroup("toy", "near-copy", ("q0", "q1")),
        QueryGroup("toy", "clean", ("q2", "q3")),
        QueryGroup("toy", "nobody", ()),
    ]
    near, clean = compare([base], [best], groups=groups, rounds=ROUNDS).groups
    assert (near.group, near.n_queries, near.baseline, near.value, near.change_pct) == ("near-copy", 2, 0.5, 1.0, 100.0)
    assert (near.ci_low, near.ci_high) == (0.5, 0.5)
    assert (clean.group, clean.change, clean.change_pct) == ("clean", 0.0, 0.0)


def test_a_figure_depends_on_its_own_two_systems_only() -> None:
    rng = np.random.default_rng(5)
    base = [evaluation(name, "base", rng.random(30).tolist()) for name in ("one", "two")]
    best = [evaluation(name, "best", rng.random(30).tolist()) for name in ("one", "two")]
    other = [evaluation("two", "other", rng.random(30).tolist())]
    alone = compare(base[1:], best[1:], rounds=ROUNDS).row("two", "best")
    together = compare(base, [*other, *best], rounds=ROUNDS).row("two", "best")
    assert alone is not None
    assert together is not None
    assert (alone.p, alone.ci_low, alone.ci_high) == (together.p, together.ci_low, together.ci_high)


BASE = evaluation("toy", "base", [0.1, 0.2], ids=("a", "b"))
BEST = evaluation("toy", "best", [0.1, 0.2], ids=("a", "b"))


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (
            evaluation("toy", "best", [0.1], ids=("a",)),
            "'best' has 1 queries and the baseline 2: 1 missing, 0 extra .*'b'",
        ),
        (evaluation("toy", "best", [0.1, 0.2, 0.3], ids=("a", "b", "c")), "0 missing, 1 extra .*'c'"),
        (evaluation("toy", "best", [0.1, 0.2, 0.3], ids=("a", "b", "b")), "0 missing, 0 extra .*repeated"),
        (evaluation("toy", "best", [0.1, 0.2], ids=("a", "b"), split="dev"), "split 'dev' and the baseline on 'test'"),
        (evaluation("toy", "baseline", [0.1, 0.2], ids=("a", "b")), "named 'baseline'"),
        (evaluation("new", "best", [0.1, 0.2], ids=("a", "b")), "'new' has no baseline .found: toy."),
        (
            Evaluation("toy", "test", "best", ("a", "b"), {"recall_at_5": np.zeros(2)}),
            "no ndcg_at_10 .found: recall_at_5",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(candidate: Evaluation, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare([BASE], [candidate], rounds=ROUNDS)


def test_doubles_and_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="two baselines"):
        compare([BASE, BASE], [BEST])
    with pytest.raises(DataError, match="two evaluations of 'best'"):
        compare([BASE], [BEST, BEST])
    with pytest.raises(DataError, match="the guard 'cisi' has no baseline"):
        compare([BASE], [BEST], guards={"cisi"})
    with pytest.raises(DataError, match=r"1 of the 2 queries of the group 'clean' were not scored .such as 'z'"):
        compare([BASE], [BEST], groups=[QueryGroup("toy", "clean", ("a", "z"))], rounds=ROUNDS)
    with pytest.raises(DataError, match="has no queries"):
        compare([evaluation("toy", "base", [])], [evaluation("toy", "best", [])])
