"""The stage ``compare``: every system against the baseline, and what a terminal and a program are told of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ranksaga.compare import comparison as rules
from ranksaga.compare import results, statistics
from ranksaga.compare.comparison import compare
from ranksaga.compare.recommendation import Answer, Contrast, MeanChange, answer_of
from ranksaga.compare.results import Comparison, ComparisonRow, GroupRow, Paired, QueryGroup
from ranksaga.files import read_json, write_text
from ranksaga.report.recommendation_text import answer_json, answer_lines, effect_text
from ranksaga.run.context import Context
from ranksaga.run.plan import Plan
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import COMPARE
from ranksaga.run.stages.score import Scored, System, read_evaluation
from ranksaga.run.store import Entry

__all__ = ["compare_systems", "comparison_summary", "comparison_table", "read_answer", "read_comparison"]

FILE = "comparison.json"


@dataclass(frozen=True)
class CompareInputs(Inputs):
    """``values`` are (system, dataset, identity of its values, out of fold); names are in the output. ``model`` is the
    trained system, and ``ships`` whether selection kept it."""

    STAGE = COMPARE
    VERSION = 2

    values: tuple[tuple[str, str, str, bool], ...]
    guards: tuple[str, ...]
    groups: tuple[tuple[str, str, tuple[str, ...]], ...]
    model: str
    ships: bool
    seed: int
    rounds: int
    tested: tuple[str, ...]
    alpha: float
    power: float
    resolution: float
    fewest_queries: int


def compare_systems(context: Context, plan: Plan, systems: Sequence[System]) -> Entry:
    """Compare all systems with the baseline, query by query."""
    bm25, baseline, *trained = systems
    scored = [*baseline.scored, *bm25.scored, *baseline.mixed]
    for system in trained:
        scored += [*system.scored, *system.mixed]
    shipped = next(system for system in trained if system.name == context.recipe.shipped)
    inputs = CompareInputs(
        values=tuple((one.name, one.member.dataset.name, one.entry.identity, one.out_of_fold) for one in scored),
        guards=tuple(member.dataset.name for member in context.datasets if member.role == "guard"),
        groups=tuple((group.dataset, group.name, group.query_ids) for group in plan.groups),
        model=shipped.name,
        ships=shipped.encoder is not baseline.encoder,  # where selection keeps the base, it is that very encoder
        seed=context.recipe.seed,
        rounds=statistics.ROUNDS,
        tested=rules.TESTED,
        alpha=statistics.ALPHA,
        power=statistics.POWER,
        resolution=results.RESOLUTION_PCT,
        fewest_queries=statistics.FEWEST_QUERIES,
    )
    work = partial(_compare, scored=scored, baselines=len(baseline.scored), plan=plan)
    return context.store.work("all systems against the baseline", inputs, work)


def read_comparison(entry: Entry) -> Comparison:
    """What a comparison wrote down."""
    stored = read_json(entry.folder / FILE)
    return Comparison(
        stored["primary"],
        tuple(stored["systems"]),
        tuple(ComparisonRow(**row) for row in stored["rows"]),
        tuple(_paired(pair) for pair in stored["paired"]),
        tuple(GroupRow(**row) for row in stored["groups"]),
    )


def read_answer(entry: Entry) -> Answer:
    """The contrasts that a comparison wrote down, and what they recommend."""
    stored = read_json(entry.folder / FILE)["answer"]
    return Answer(stored["model"], stored["ships"], tuple(_contrast(one) for one in stored["contrasts"]))


def comparison_table(comparison: Comparison, answer: Answer | None = None) -> str:
    """The answer, and nDCG@10 by dataset and system, for the terminal."""
    systems = comparison.systems
    guards = {name for name in comparison.datasets if _is_guard(comparison, name)}
    wide = 2 + max(len(name) + len(" (guard)") * (name in guards) for name in comparison.datasets)
    lines = [*answer_lines(answer, comparison.primary), ""] if answer is not None else []
    lines += [f"{'nDCG@10':{wide}s}{'baseline':>10s}" + "".join(f"{system:>24s}" for system in systems)]
    for dataset in comparison.datasets:
        base = comparison.row(dataset, "baseline")
        cells = []
        for system in systems:
            row = comparison.row(dataset, system)
            if row is None or row.change_pct is None:
                cells.append(f"{'-':>24s}")
                continue
            mark = {"improved": "+", "regressed": "!"}.get(row.verdict or "", " ")
            cells.append(f"{row.value:>13.4f} {row.change_pct:>+8.1f}% {mark}")
        role = " (guard)" if dataset in guards else ""
        lines.append(f"{dataset + role:{wide}s}{base.value if base else 0:>10.4f}" + "".join(cells))
    for system in systems:
        summary = comparison.summary(system)
        against = answer.contrast(system, "baseline") if answer is not None else None
        mean = effect_text(against.mean) if against and against.mean else _percent(summary.mean_change_pct)
        best = _percent(summary.best.change_pct if summary.best is not None else None)
        worst = _percent(summary.worst.change_pct if summary.worst is not None else None)
        sure = f"{summary.improved} of {summary.datasets} improved ({summary.confirmed} significantly)"
        lines.append(f"{system}: {sure}, mean {mean}, best {best}, worst {worst}")
    lines.append("+ improved, ! regressed (paired randomization test, Holm over datasets, p < 0.05)")
    return "\n".join(lines)


def comparison_summary(comparison: Comparison, answer: Answer | None = None) -> dict[str, Any]:
    """The same for programs."""

    def figures(system: str) -> dict[str, Any]:
        summary = comparison.summary(system)
        return {
            "datasets": summary.datasets,
            "improved": summary.improved,
            "confirmed": summary.confirmed,
            "regressed": summary.regressed,
            "mean_change_pct": summary.mean_change_pct,
            "best_change_pct": summary.best.change_pct if summary.best else None,
            "worst_change_pct": summary.worst.change_pct if summary.worst else None,
            "guards_mean_change_pct": summary.guards_mean_change_pct,
        }

    found = {"metric": comparison.primary, "systems": {system: figures(system) for system in comparison.systems}}
    return found if answer is None else {**answer_json(answer, comparison.primary), **found}


def _compare(inputs: CompareInputs, folder: Path, *, scored: Sequence[Scored], baselines: int, plan: Plan) -> Summary:
    """``baselines`` of what is scored come first; the rest are candidates."""
    values = [read_evaluation(one, plan) for one in scored]
    groups = [QueryGroup(*group) for group in inputs.groups]
    comparison = compare(
        values[:baselines],
        values[baselines:],
        guards=inputs.guards,
        groups=groups,
        rounds=inputs.rounds,
        seed=inputs.seed,
    )
    answer = answer_of(comparison, inputs.model, ships=inputs.ships, rounds=inputs.rounds, seed=inputs.seed)
    stored = {
        "answer": asdict(answer),
        "primary": comparison.primary,
        "systems": comparison.systems,
        "rows": [asdict(row) for row in comparison.rows],
        "paired": [{field.name: getattr(pair, field.name) for field in fields(pair)} for pair in comparison.paired],
        "groups": [asdict(row) for row in comparison.groups],
    }
    write_text(folder / FILE, json.dumps(stored, default=np.ndarray.tolist))  # doubles as they are, NaN too
    return comparison_summary(comparison, answer)


def _contrast(stored: dict[str, Any]) -> Contrast:
    return Contrast(
        stored["system"],
        stored["reference"],
        tuple(ComparisonRow(**row) for row in stored["rows"]),
        MeanChange(**stored["mean"]) if stored["mean"] is not None else None,
        tuple(stored["missing"]),
    )


def _paired(stored: dict[str, Any]) -> Paired:
    baseline, value = (np.array(stored[name], dtype=np.float64) for name in ("baseline", "value"))
    return Paired(
        stored["dataset"], stored["role"], stored["system"], tuple(stored["query_ids"]), baseline=baseline, value=value
    )


def _is_guard(comparison: Comparison, dataset: str) -> bool:
    row = comparison.row(dataset, "baseline")
    return row is not None and row.role == "guard"


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{change:+.1f}%"
