"""How the folds' rankings are pooled, what ships, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.compare.results import Comparison
from ranksaga.config.recipe import Recipe
from ranksaga.data.dataset import Qrels
from ranksaga.encode.hashed import HashEncoder
from ranksaga.files import write_json
from ranksaga.report.data import ReportData
from ranksaga.report.summary import headline_sentence
from ranksaga.retrieve.rankings import Rankings
from ranksaga.run.arrays import write_rankings, write_values
from ranksaga.run.measure import rankings_of
from ranksaga.run.plan import Plan, View
from ranksaga.run.selection import Candidate
from ranksaga.run.shipped_model import _card
from ranksaga.run.stages.compare import (
    compare_systems,
    comparison_summary,
    comparison_table,
    read_answer,
    read_comparison,
)
from ranksaga.run.stages.report import Results, _report_data
from ranksaga.run.stages.score import Scored, System, _joined, _parts
from ranksaga.run.stages.select import Choice
from ranksaga.run.store import Entry, Store


def judged(*rows: int) -> Qrels:
    return Qrels.of([(row, 0, 1) for row in rows])


def plan_of(**views: Sequence[int]) -> Plan:
    """One cross-fitted dataset whose folds score these queries."""
    made = [View(name.replace("_", "-"), {}, {}, {"cross": judged(*rows)}) for name, rows in views.items()]
    every = judged(*sorted(row for rows in views.values() for row in rows))
    return Plan((View("shipped", {}, {}, {}), *made), {"cross": every}, frozenset({"cross"}), frozenset(), (), (), ())


def ranked_by(folder: Path, queries: Sequence[int], *documents: Sequence[int]) -> Entry:
    """A benchmark's stage whose scores are a document's row, and minus infinity behind the last one."""
    found = np.array(documents, dtype=np.int32)
    scores = np.where(found >= 0, found, -np.inf).astype(np.float32)
    folder.mkdir(parents=True)
    write_rankings(folder / "rankings.npz", Rankings(np.array(queries, dtype=np.int32), found, scores))
    return Entry("score", folder.name, folder)


def pooled_by(plan: Plan, name: str, entries: Mapping[str, Entry]) -> Rankings:
    member: Any = SimpleNamespace(name=name)
    return _joined([rankings_of(part.entry, part.rows) for part in _parts(plan, member, entries)])


def test_each_query_is_ranked_by_the_model_of_its_own_fold(tmp_path: Path) -> None:
    plan = plan_of(fold_1=[1, 2], fold_2=[0, 3])
    # Each model ranked its dev queries, too, and those of the other fold.
    entries = {
        "fold-1": ranked_by(tmp_path / "1", [0, 1, 2, 3], [10], [11], [12], [13]),
        "fold-2": ranked_by(tmp_path / "2", [0, 2, 3], [20], [22], [23]),
    }
    pooled = pooled_by(plan, "cross", entries)
    assert pooled.queries.tolist() == [0, 1, 2, 3]
    assert pooled.documents.tolist() == [[20], [11], [12], [23]]
    assert pooled.scores.tolist() == [[20.0], [11.0], [12.0], [23.0]]


def test_rankings_of_unequal_depth_are_filled_with_nothing(tmp_path: Path) -> None:
    entries = {
        "fold-1": ranked_by(tmp_path / "1", [1], [5, 4, 3]),
        "fold-2": ranked_by(tmp_path / "2", [0], [9]),
    }
    pooled = pooled_by(plan_of(fold_1=[1], fold_2=[0]), "cross", entries)
    assert pooled.documents.tolist() == [[9, -1, -1], [5, 4, 3]]
    assert pooled.scores.tolist() == [[9.0, -np.inf, -np.inf], [5.0, 4.0, 3.0]]


def test_a_system_of_one_model_is_notpooled_by(tmp_path: Path) -> None:
    entries = {"shipped": ranked_by(tmp_path / "1", [0, 1, 2, 3, 4], *[[row] for row in range(5)])}
    pooled = pooled_by(plan_of(fold_1=[1, 3], fold_2=[0]), "cross", entries)
    assert pooled.queries.tolist() == [0, 1, 3]
    assert pooled.documents.tolist() == [[0], [1], [3]]


BASE = {"alpha": 0.5, "beta": 0.25, "guard": 0.5}
RECIPE = Recipe.model_validate({"name": "small", "datasets": ["alpha", "beta"], "guards": ["guard"]})


MEMBERS: Any = [
    SimpleNamespace(
        name=name,
        role="guard" if name == "guard" else "trained",
        dataset=SimpleNamespace(
            name=name,
            fingerprint=name,
            corpus=("?",) * 1234,
            qrels={"train": judged(1), "test": judged(*range(16))},
            queries=SimpleNamespace(ids=tuple(f"q{row}" for row in range(16)), texts=("?",) * 16),
        ),
    )
    for name in BASE
]


def scored(folder: Path, system: str, values: Mapping[str, float]) -> tuple[Scored, ...]:
    """Sixteen queries of one value a dataset."""
    measured = []
    for member in MEMBERS:
        entry = Entry("score", member.name, folder / system / member.name)
        write_values(entry.folder / "values.npz", {"ndcg_at_10": np.full(16, values[member.name])})
        measured.append(Scored(system, member, entry, False))
    return tuple(measured)


def candidate(epoch: int, weight: float, alpha: float, beta: float, guard: float) -> Candidate:
    scores = {"alpha": alpha, "beta": beta, "guard": guard}
    return Candidate(epoch, weight, None, scores, dict.fromkeys(scores, 0.0))


CANDIDATES = (candidate(1, 0.5, 0.75, 0.25, 0.5), candidate(1, 1.0, 0.875, 0.25, 0.375))
CHOSEN = Choice(1, 0.5, None, "largest mean gain on dev", BASE, CANDIDATES)
KEPT = Choice(0, 0.0, None, "no candidate gains without losing somewhere: base kept", BASE, CANDIDATES[1:])


def measured(folder: Path, choice: Choice) -> Results:
    """What a run measured that made this choice."""
    encoder, tuned = (SimpleNamespace(spec=HashEncoder(seed=seed).spec, model=[]) for seed in (0, 1))
    entry = Entry("select", "best shipped", folder / "stages" / "select" / "0")
    write_json(entry.folder / "choice.json", asdict(choice))
    best: Any = tuned if choice.weight else encoder
    base: Any = encoder
    systems = (
        System("bm25", None, ()),
        System("baseline", base, scored(folder, "baseline", BASE)),
        System("best", best, scored(folder, "best", {"alpha": 0.75, "beta": 0.25, "guard": 0.375})),
    )
    plan: Any = SimpleNamespace(notes=(), findings=(), groups=(), scored=lambda _: judged(*range(16)))
    context: Any = SimpleNamespace(datasets=MEMBERS, recipe=RECIPE, store=Store(folder))
    compared = compare_systems(context, plan, systems)
    return Results(RECIPE, tuple(MEMBERS), plan, entry, {}, {"best": {"shipped": entry}}, systems, compared)


def reported(run: Results) -> ReportData:
    return _report_data(run, ())


def compared(run: Results) -> Comparison:
    return read_comparison(run.comparison)


def test_what_was_chosen_ships_and_the_page_says_what_it_gained(tmp_path: Path) -> None:
    data = reported(measured(tmp_path, CHOSEN))
    assert (data.headline, data.shipped, data.shipped_reason) == ("best", "best", "largest mean gain on dev")
    assert headline_sentence(data) == (
        "best improved nDCG@10 on 1 of 2 datasets, 1 of them significantly (mean change +25.0%). "
        "It is significantly worse on guard."
    )
    sizes = next(facts.rows for facts in data.facts if facts.title == "Datasets")
    assert sizes[-1] == ("guard", "1,234 documents; queries: 1 train, 16 test (guard)")


def test_where_nothing_qualified_the_base_model_ships_and_the_page_opens_with_that(tmp_path: Path) -> None:
    data = reported(measured(tmp_path, KEPT))
    assert data.shipped == "baseline"
    assert headline_sentence(data).startswith(
        "No fine-tuned model qualified: the base model ships unchanged. "
        "No candidate gains without losing somewhere: base kept. best improved nDCG@10 on 1 of 2 datasets"
    )


def test_every_candidate_is_shown_with_what_was_weighed(tmp_path: Path) -> None:
    (selection,) = reported(measured(tmp_path, CHOSEN)).selections
    assert (selection.system, selection.reason) == ("best", "largest mean gain on dev")
    points = [(one.weight, one.gain, one.kept, one.qualifies, one.chosen) for one in selection.points]
    assert points == [(0.5, 25.0, 0.0, True, True), (1.0, 37.5, -25.0, False, False)]
    assert selection.points[1].gains == {"alpha": 75.0, "beta": 0.0}
    assert selection.points[1].retention == {"guard": -25.0}


@pytest.mark.parametrize(
    ("choice", "said", "table"),
    [
        (
            CHOSEN,
            "Fine-tuned with RankSaga from hash-256.",
            ["| dataset | base | this model |", "| alpha | 0.5000 | 0.7500 |", "| guard | 0.5000 | 0.3750 |"],
        ),
        # Out of fold other models may have been scored; of this one only the base model's figures are true.
        (
            KEPT,
            "This is hash-256, unchanged: RankSaga fine-tuned it, and no candidate qualified (the report says why).",
            ["| dataset | this model |", "| alpha | 0.5000 |", "| guard | 0.5000 |"],
        ),
    ],
    ids=["chosen", "base kept"],
)
def test_the_card_is_of_the_model_that_ships(choice: Choice, said: str, table: list[str], tmp_path: Path) -> None:
    run = measured(tmp_path, choice)
    lines = _card(run.shipped, run.baseline, run.plan, "small", run.base.spec.model).splitlines()
    assert said in lines
    assert "base_model: hash-256" in lines
    for row in table:
        assert row in lines


def test_the_terminals_table_and_the_summary_have_the_same_figures(tmp_path: Path) -> None:
    run = measured(tmp_path, CHOSEN)
    comparison = compared(run)
    lines = [line.split() for line in comparison_table(comparison).splitlines()]
    assert lines[0] == ["nDCG@10", "baseline", "best"]
    assert lines[1] == ["alpha", "0.5000", "0.7500", "+50.0%", "+"]
    assert lines[2] == ["beta", "0.2500", "0.2500", "+0.0%"]
    assert lines[3] == ["guard", "(guard)", "0.5000", "0.3750", "-25.0%", "!"]
    assert "1 of 2 improved (1 significantly), mean +25.0%, best +50.0%, worst +0.0%" in comparison_table(comparison)
    found = comparison_summary(comparison)["systems"]["best"]
    assert (found["improved"], found["confirmed"], found["regressed"], found["mean_change_pct"]) == (1, 1, 0, 25.0)
    assert found["guards_mean_change_pct"] == -25.0


def test_the_answer_is_kept_and_opens_the_terminals_table(tmp_path: Path) -> None:
    run = measured(tmp_path, CHOSEN)
    answer = read_answer(run.comparison)
    assert (answer.model, answer.ships) == ("best", True)
    assert reported(run).answer == answer
    (model,) = answer.contrasts
    assert model.mean is not None
    assert (model.mean.datasets, model.mean.change_pct) == (2, 25.0)
    assert [row.dataset for row in model.regressed] == ["guard"]
    first = comparison_table(compared(run), answer).splitlines()[0]
    assert first.startswith("Keep what you have")  # the guard lost
    summary = comparison_summary(compared(run), answer)
    assert summary["recommendation"]["text"].startswith(first)
    assert summary == run.comparison.summary
    assert not read_answer(measured(tmp_path / "kept", KEPT).comparison).ships
