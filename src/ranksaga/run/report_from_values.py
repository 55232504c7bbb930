"""Figures of a run that is not finished, or not here: the baseline alone, and a report from stored values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ranksaga.compare.comparison import compare
from ranksaga.compare.recommendation import answer_of
from ranksaga.compare.results import BASELINE_HYBRID, HYBRID
from ranksaga.config.load import load_recipe
from ranksaga.config.recipe import Recipe
from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.evaluate.metrics import evaluate
from ranksaga.evaluate.per_query import PER_QUERY, read_evaluations, write_evaluation
from ranksaga.files import read_json_if_sound, write_json
from ranksaga.report.data import Facts, ReportData
from ranksaga.report.markdown import markdown_table
from ranksaga.report.tables import results_table
from ranksaga.report.write import write_report
from ranksaga.run.console import Silent
from ranksaga.run.context import Context
from ranksaga.run.measure import rankings_of
from ranksaga.run.stages import COMPARE
from ranksaga.run.stages.baseline import rank_with_base
from ranksaga.run.store import Store

__all__ = ["baseline_figures", "read_system", "report_from_values"]

SHOWN = ("ndcg_at_10", "map_at_100", "recall_at_100", "mrr_at_10")


def baseline_figures(recipe: Recipe, folder: Path) -> str:
    """Evaluate the rankings that a run's baseline stage kept; per-query values go to ``per_query/baseline``."""
    context = Context(recipe, Store(folder), Silent())
    lines = []
    for member in context.datasets:
        judged = member.dataset.split("test")
        rankings = rankings_of(rank_with_base(context, member), judged.query_rows)
        values = evaluate(rankings, member.dataset, "test", system="baseline", qrels=judged)
        origin = Origin(member.dataset.fingerprint, context.encoder.spec.facts)
        write_evaluation(folder / PER_QUERY / "baseline", replace(values, origin=origin))
        figures = "  ".join(f"{key} {values.mean(key):.4f}" for key in SHOWN)
        lines.append(f"{member.dataset.name:24s} {figures}  ({len(values.query_ids)} queries)")
    lines.append("all test queries; the comparison leaves out those of them that selection needs")
    return "\n".join(lines)


def read_system(folder: Path, system: str) -> list[Evaluation]:
    """One system's per-query values in a run's folder; empty where it was not measured."""
    remedy = f"make it again with ranksaga run --from {COMPARE.name}"
    return read_evaluations(folder / PER_QUERY / system, system, remedy=remedy)


def report_from_values(run: Path, target: Path) -> str:
    """Compare a finished run's systems again from their per-query values and write the report, without any text.

    Args:
        run: folder of the run; its stages, datasets and models need not be there.
        target: folder that receives tables, charts and ``run.json``.

    Returns:
        The table of nDCG@10 as Markdown.

    Raises:
        DataError: the run is not finished, or its files are damaged.
    """
    record = read_json_if_sound(run / "run.json")
    if not isinstance(record, dict):
        raise DataError(f"{run}: no sound run.json there, so nothing is finished to be compared; run all steps first")
    recipe = load_recipe(run / "recipe.yaml", environment={})
    systems = ["bm25", BASELINE_HYBRID, *recipe.systems, HYBRID]
    candidates = [values for system in systems for values in read_system(run, system)]
    comparison = compare(read_system(run, "baseline"), candidates, guards=_guards(recipe, run), seed=recipe.seed)
    choice = record["selection"]["shipped"]
    answer = answer_of(comparison, recipe.shipped, ships=choice["weight"] > 0, seed=recipe.seed)
    data = ReportData(
        title=recipe.name,
        comparison=comparison,
        headline=recipe.shipped,
        shipped=recipe.shipped if choice["weight"] > 0 else "baseline",
        shipped_reason=choice["reason"],
        answer=answer,
        notes=(
            "Made from the run's per-query values; the run's own report has more (leakage, selection, single queries).",
        ),
        recipe=(run / "recipe.yaml").read_text(encoding="utf-8"),
        facts=(Facts("Environment of the run", tuple(record["environment"].items())),),
        texts=False,
    )
    write_report(data, target)
    write_json(target / "run.json", record)
    return markdown_table(results_table(comparison, comparison.primary))


def _guards(recipe: Recipe, run: Path) -> Sequence[str]:
    """A dataset's own name is that of its folder where the recipe gives a path."""
    names: list[Any] = [name for guard in recipe.guards for name in (guard, Path(guard).name)]
    return [values.dataset for values in read_system(run, "baseline") if values.dataset in names]
