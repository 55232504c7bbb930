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
from ranksaga.compare import statistics
from ranksaga.compare.comparison import compare
from ranksaga.compare.results import Comparison, ComparisonRow, GroupRow, Paired, QueryGroup
from ranksaga.files import read_json, write_text
from ranksaga.run.context import Context
from ranksaga.run.plan import Plan
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import COMPARE
from ranksaga.run.stages.score import Scored, System, read_evaluation
from ranksaga.run.store import Entry

__all__ = ["compare_systems", "comparison_summary", "comparison_table", "read_comparison"]

FILE = "comparison.json"


@dataclass(frozen=True)
class CompareInputs(Inputs):
    """``values`` are (system, dataset, identity of its values, out of fold); names are in the output."""

    STAGE = COMPARE
    VERSION = 1

    values: tuple[tuple[str, str, str, bool], ...]
    guards: tuple[str, ...]
    groups: tuple[tuple[str, str, tuple[str, ...]], ...]
    seed: int
    rounds: int
    tested: tuple[str, ...]
    alpha: float
    power: float


def compare_systems(context: Context, plan: Plan, systems: Sequence[System]) -> Entry:
    """Compare all systems with the baseline, query by query."""
    bm25, baseline, *trained = systems
    scored = [*baseline.scored, *bm25.scored, *baseline.mixed]
    for system in trained:
        scored += [*system.scored, *system.mixed]
    inputs = CompareInputs(
        values=tuple((one.name, one.member.dataset.name, one.entry.identity, one.out_of_fold) for one in scored),
        guards=tuple(member.dataset.name for member in context.datasets if member.role == "guard"),
        groups=tuple((group.dataset, group.name, group.query_ids) for group in plan.groups),
        seed=context.recipe.seed,
        rounds=statistics.ROUNDS,
        tested=rules.TESTED,
        alpha=statistics.ALPHA,
        power=statistics.POWER,
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


def comparison_table(comparison: Comparison) -> str:
    """nDCG@10 by dataset and system, for the terminal."""
    systems = comparison.systems
    guards = {name for name in comparison.datasets if _is_guard(comparison, name)}
    wide = 2 + max(len(name) + len(" (guard)") * (name in guards) for name in comparison.datasets)
    lines = [f"{'nDCG@10':{wide}s}{'baseline':>10s}" + "".join(f"{system:>24s}" for system in systems)]
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
        mean = _percent(summary.mean_change_pct)
        best = _percent(summary.best.change_pct if summary.best is not None else None)
        worst = _percent(summary.worst.change_pct if summary.worst is not None else None)
        sure = f"{summary.improved} of {summary.datasets} improved ({summary.confirmed} significantly)"
        lines.append(f"{system}: {sure}, mean {mean}, best {best}, worst {worst}")
    lines.append("+ improved, ! regressed (paired randomization test, Holm over datasets, p < 0.05)")
    return "\n".join(lines)


def comparison_summary(comparison: Comparison) -> dict[str, Any]:
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

    return {"metric": comparison.primary, "systems": {system: figures(system) for system in comparison.systems}}


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
    stored = {
        "primary": comparison.primary,
        "systems": comparison.systems,
        "rows": [asdict(row) for row in comparison.rows],
        "paired": [{field.name: getattr(pair, field.name) for field in fields(pair)} for pair in comparison.paired],
        "groups": [asdict(row) for row in comparison.groups],
    }
    write_text(folder / FILE, json.dumps(stored, default=np.ndarray.tolist))  # doubles as they are, NaN too
    return comparison_summary(comparison)


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
