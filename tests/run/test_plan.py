"""Who trains, who selects and who is scored, over datasets of every shape of splits, query by query.

The choices are hashes of (seed, purpose, query id). By hand, for seed 0 and the ids q0 ... q7, as shares of 1:

    purpose  q0     q1     q2     q3     q4     q5     q6     q7
    fold     0.368  0.804  0.042  0.589  0.585  0.701  0.679  0.513
    dev      0.829  0.687  0.579  0.404  0.455  0.777  0.771  0.263
    guard    0.499  0.609  0.067  0.820  0.294  0.737  0.459  0.807

Folds are dealt in ascending order, each to the smallest fold; of few queries, those below a half are held out for dev;
of a guard those below a third watch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from ranksaga.compare.results import QueryGroup
from ranksaga.config.training import Distilled, Labelled, Training
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import DataError
from ranksaga.run.context import RunDataset
from ranksaga.run.plan import Plan, draw_plan
from ranksaga.run.preflight import check_plan

Rows = dict[str, list[int]]
LABELS, TRAIN_SPLITS = Labelled(), Labelled(splits="train")
CORPUS = Distilled(cross_fitted="corpus")
FOLDS = [[2, 3], [0, 5], [1, 4]]  # of six queries


def subject(
    name: str,
    role: Literal["trained", "guard"] = "trained",
    *,
    texts: Mapping[int, str] | None = None,
    gold: Mapping[int, int] | None = None,
    **splits: Sequence[int],
) -> RunDataset:
    """A dataset whose query rows are judged in the named splits.

    Row r's text is like no other's unless it is given, and document r is relevant to it unless another one is.
    """
    count = 1 + max(row for rows in splits.values() for row in rows)
    own = (hashlib.sha256(f"{name} {row}".encode()).hexdigest()[:20] for row in range(count))
    asked = tuple((texts or {}).get(row, text) for row, text in enumerate(own))
    ids = tuple(f"q{row}" for row in range(count))
    documents = Corpus(tuple(f"d{row}" for row in range(count)), ("",) * count, ids)
    qrels = {split: Qrels.of([(row, (gold or {}).get(row, row), 1) for row in rows]) for split, rows in splits.items()}
    return RunDataset(name, Dataset(name, documents, Queries(ids, asked), qrels), role)


def plan_of(*subjects: RunDataset, folds: int = 3, leakage: str = "drop", **training: Training) -> Plan:
    """The plan of a run over these datasets, checked for these trainings."""
    recipe = SimpleNamespace(
        folds=folds,
        seed=0,
        leakage=leakage,
        systems=training,
        datasets=[one.name for one in subjects if one.role == "trained"],
    )
    context: Any = SimpleNamespace(datasets=subjects, recipe=recipe)
    plan, audit = draw_plan(context)
    check_plan(context, plan, audit)
    return plan


def rows_of(parts: Mapping[str, Qrels]) -> Rows:
    return {name: judged.query_rows.tolist() for name, judged in parts.items()}


def of_views(plan: Plan, part: str, name: str) -> dict[str, list[int]]:
    """Query rows of a dataset by view, in what trains, selects or is scored."""
    views = ((view.name, rows_of(getattr(view, part))) for view in plan.views)
    return {view: rows[name] for view, rows in views if name in rows}


FULL = subject("full", train=[0, 1, 2], dev=[3, 4], test=[5, 6])
HELD = subject("held", train=range(6), test=[6, 7])
NO_TRAIN = subject("no-train", dev=range(6), test=[6, 7])
CROSS = subject("cross", test=range(6))
GUARD = subject("guard", "guard", train=[6], test=range(6))
OVERLAP = subject("overlap", train=[0, 1], dev=[1, 2], test=[1, 3])
INSIDE = subject("inside", train=[0, 1], test=[0, 1, 2])


@pytest.mark.parametrize(
    ("one", "train", "dev", "scored"),
    [
        (FULL, [0, 1, 2], [3, 4], [5, 6]),
        (HELD, [0, 1, 2, 5], [3, 4], [6, 7]),
        (NO_TRAIN, [0, 1, 2, 5], [3, 4], [6, 7]),
        (GUARD, [], [2, 4], [0, 1, 3, 5]),
        (OVERLAP, [0], [2], [1, 3]),
        (INSIDE, [], [], [0, 1, 2]),
    ],
    ids=lambda value: value.name if isinstance(value, RunDataset) else "",
)
def test_a_dataset_with_more_than_a_test_split_has_the_same_parts_in_every_view(
    one: RunDataset, train: list[int], dev: list[int], scored: list[int]
) -> None:
    plan = plan_of(one, CROSS)
    assert [view.name for view in plan.views] == ["shipped", "fold-1", "fold-2", "fold-3"]
    for part, rows in (("training", train), ("dev", dev), ("scored", scored)):
        assert of_views(plan, part, one.name) == (dict.fromkeys([v.name for v in plan.views], rows) if rows else {})
    assert plan.scored(one.name).query_rows.tolist() == scored
    assert not plan.is_out_of_fold(one.name)


def test_a_dataset_with_a_test_split_only_is_cut_into_folds() -> None:
    plan = plan_of(CROSS)
    assert of_views(plan, "scored", "cross") == {"fold-1": [2, 3], "fold-2": [0, 5], "fold-3": [1, 4]}
    assert of_views(plan, "training", "cross") == {
        "shipped": [0, 1, 2, 3, 4, 5], "fold-1": [0, 1, 5], "fold-2": [1, 2], "fold-3": [0, 2, 5]
    }  # fmt: skip
    assert of_views(plan, "dev", "cross") == {"fold-1": [4], "fold-2": [3, 4], "fold-3": [3]}
    assert plan.scored("cross").query_rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert plan.is_out_of_fold("cross")
    assert plan.notes == (
        "cross: only a test split, so figures are out-of-fold: 3 models, each scored on queries that it did not see "
        "(2, 2, 2); for the shipped model, all of them train or select.",
    )


def test_near_copies_stay_in_one_fold_and_no_side_sees_its_copy() -> None:
    # The pair is the largest group, so it comes first: fold-1. Then q2, q4, q3 and q5 go to the smallest fold.
    plan = plan_of(subject("cross", texts={0: "sort a list", 1: "Sort a list!"}, test=range(6)))
    assert of_views(plan, "scored", "cross") == {"fold-1": [0, 1], "fold-2": [2, 3], "fold-3": [4, 5]}
    # In the other folds the pair goes by its smaller id, q0 (0.829): it trains, and neither of the two selects.
    assert of_views(plan, "dev", "cross") == {"fold-1": [3, 4], "fold-2": [4], "fold-3": [3]}
    assert of_views(plan, "training", "cross") == {
        "shipped": [0, 1, 2, 3, 4, 5], "fold-1": [2, 5], "fold-2": [0, 1, 5], "fold-3": [0, 1, 2]
    }  # fmt: skip


def test_guards_are_said_and_without_test_only_datasets_there_are_no_folds() -> None:
    plan = plan_of(FULL, GUARD)
    assert [view.name for view in plan.views] == ["shipped"]
    assert plan.notes == ("guard: guards, never trained on; a third of their queries watched the selection.",)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TRAIN_SPLITS, {"full": [0, 1, 2], "held": [0, 1, 2, 5]}),
        (LABELS, {"full": [0, 1, 2], "held": [0, 1, 2, 5], "no-train": [0, 1, 2, 5], "cross": [0, 1, 2, 3, 4, 5]}),
        (CORPUS, {"full": [0, 1, 2], "held": [0, 1, 2, 5], "no-train": [0, 1, 2, 5], "cross": []}),
        (Distilled(), {"full": [0, 1, 2], "held": [0, 1, 2, 5], "no-train": [0, 1, 2, 5], "cross": [0, 1, 2, 3, 4, 5]}),
    ],
    ids=["train splits only", "labels", "corpus", "labels of a distillation"],
)
def test_what_trains_the_shipped_model(settings: Training, expected: Rows) -> None:
    plan = plan_of(FULL, HELD, NO_TRAIN, CROSS, INSIDE, GUARD)
    assert rows_of(plan.training(plan.view("shipped"), settings)) == expected


@pytest.mark.parametrize(
    ("settings", "shipped", "fold"),
    [
        (TRAIN_SPLITS, {}, {"cross": [4]}),
        (LABELS, {}, {"cross": [4]}),
        # Its queries train nothing, so they all select, but for those that the view scores.
        (CORPUS, {"cross": [0, 1, 2, 3, 4, 5]}, {"cross": [0, 1, 4, 5]}),
    ],
    ids=["train splits only", "labels", "corpus"],
)
def test_what_selects(settings: Training, shipped: Rows, fold: Rows) -> None:
    plan = plan_of(FULL, CROSS, GUARD)
    always = {"full": [3, 4], "guard": [2, 4]}
    assert rows_of(plan.selecting(plan.view("shipped"), settings)) == {**always, **shipped}
    assert rows_of(plan.selecting(plan.view("fold-1"), settings)) == {**always, **fold}
    dev = plan.dev("cross", "fold-1", settings)
    assert (None if dev is None else dev.query_rows.tolist()) == fold.get("cross")


def test_each_query_is_scored_once_and_by_a_view_that_did_not_see_it() -> None:
    plan = plan_of(FULL, CROSS, GUARD)
    made = ("shipped", "fold-1", "fold-2", "fold-3")
    assert plan.scoring_views("full", made) == plan.scoring_views("guard", made) == ("shipped",)
    assert plan.scoring_views("cross", made) == ("fold-1", "fold-2", "fold-3")
    assert [plan.rows_scored_by("cross", view, made).tolist() for view in made[1:]] == FOLDS
    assert plan.rows_scored_by("full", "shipped", made).tolist() == [5, 6]
    # A system without fold models has not trained on such a dataset: its one model scores all of it.
    assert plan.scoring_views("cross", ("shipped",)) == ("shipped",)
    assert plan.rows_scored_by("cross", "shipped", ("shipped",)).tolist() == [0, 1, 2, 3, 4, 5]


def test_what_is_ranked_is_what_is_scored_and_the_dev_queries_of_the_hybrid() -> None:
    plan = plan_of(FULL, CROSS, GUARD)
    assert plan.rows_to_rank("full", "shipped", LABELS).tolist() == [3, 4, 5, 6]
    assert plan.rows_to_rank("guard", "fold-2", LABELS).tolist() == [0, 1, 2, 3, 4, 5]
    assert plan.rows_to_rank("cross", "fold-1", LABELS).tolist() == [0, 1, 2, 3, 4, 5]
    # Without dev queries, only what is scored.
    assert plan_of(INSIDE).rows_to_rank("inside", "shipped", LABELS).tolist() == [0, 1, 2]


def test_the_record_counts_queries_as_the_settings_use_them() -> None:
    plan = plan_of(FULL, CROSS, GUARD)
    assert plan.counts(LABELS)["fold-2"] == {
        "cross": {"train": 2, "dev": 2, "scored": 2},
        "full": {"train": 3, "dev": 2, "scored": 2},
        "guard": {"train": 0, "dev": 2, "scored": 4},
    }
    assert plan.counts(CORPUS)["shipped"]["cross"] == {"train": 0, "dev": 6, "scored": 0}


def leaking() -> tuple[RunDataset, ...]:
    full = subject(
        "full", texts={1: "what is a wing", 4: "heat flow", 2: "low lift", 5: "Low lift"},
        train=[0, 1, 2], dev=[3, 4], test=[5], gold={0: 5},
    )  # fmt: skip
    cross = subject("cross", texts={2: "What is a wing?"}, test=range(6))
    guard = subject("guard", "guard", texts={0: "heat flow", 2: "low lift"}, test=range(6))
    return full, cross, guard


@pytest.mark.parametrize("leakage", ["drop", "report"])
def test_what_leaks_into_any_scored_query_neither_trains_nor_selects_in_any_view(leakage: str) -> None:
    plan = plan_of(*leaking(), leakage=leakage)
    dropped = leakage == "drop"
    for view in plan.views:
        training, dev = rows_of(view.training), rows_of(view.dev)
        # q1 equals a scored query of cross, q2 one of its own dataset; q4 of dev one of the guard.
        assert training["full"] == ([0] if dropped else [0, 1, 2])
        assert dev["full"] == ([3] if dropped else [3, 4])
        # The guard's watching q2 equals a scored query of full.
        assert dev["guard"] == ([4] if dropped else [2, 4])
        assert view.scored["full"].query_rows.tolist() == [5]
    # Nothing of the cross-fitted dataset leaks: full's q1 trains, it is not scored.
    assert of_views(plan, "scored", "cross") == {"fold-1": [2, 3], "fold-2": [0, 5], "fold-3": [1, 4]}
    found = [(one.dataset, one.kind, one.queries, one.scored, one.dropped) for one in plan.findings]
    equal = "equal to a training query"
    assert found == [
        ("full", equal, 1, 1, 2 if dropped else 0),
        ("cross", equal, 1, 6, 1 if dropped else 0),
        ("guard", equal, 1, 4, 1 if dropped else 0),
    ]


def test_leaks_can_end_the_run() -> None:
    with pytest.raises(DataError, match=r"4 training queries nearly equal a scored one.*set leakage: drop"):
        plan_of(*leaking(), leakage="fail")


def test_scored_queries_are_grouped_by_what_training_came_near_to() -> None:
    # q6 has a near-copy in training, q7 the gold document of a training query, q5 neither.
    one = subject(
        "full", texts={0: "low methylation of the gene", 6: "high methylation of the gene"}, gold={7: 1},
        train=[0, 1, 2], dev=[3], test=[5, 6, 7],
    )  # fmt: skip
    assert plan_of(one, GUARD, CROSS).groups == (
        QueryGroup("full", "near-copy in training", ("q6",)),
        QueryGroup("full", "no near-copy in training", ("q5", "q7")),
        QueryGroup("full", "gold document never a training positive", ("q5", "q6")),
    )


@pytest.mark.parametrize(
    ("subjects", "settings", "said"),
    [
        ((INSIDE,), LABELS, "system: no query is there to train on (model shipped); those that are judged in test"),
        ((CROSS,), TRAIN_SPLITS, "system: trains on train splits only, and none of the datasets (cross) has one"),
        ((NO_TRAIN,), TRAIN_SPLITS, "system: trains on train splits only, and none of the datasets (no-train) has"),
        (
            (subject("leaks", texts={0: "same", 1: "same"}, train=[0], test=[1]),),
            LABELS,
            "system: no query is there to train on (model shipped); the leakage audit dropped 1",
        ),
    ],
    ids=["train inside test", "test only, train splits", "dev only, train splits", "all leaks"],
)
def test_a_model_that_nothing_trains_is_refused_before_any_work(
    subjects: Sequence[RunDataset], settings: Training, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        plan_of(*subjects, system=settings)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_too_few_queries_for_the_folds_are_refused() -> None:
    with pytest.raises(DataError, match=r"cross: 2 distinct test queries cannot be cut into 3 folds; make it a guard"):
        plan_of(subject("cross", texts={0: "the same", 1: "The same."}, test=range(3)))
