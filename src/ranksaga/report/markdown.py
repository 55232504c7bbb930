"""``comparison_report.md``: the report as text that reads well in a terminal and on a code host."""

from __future__ import annotations

from collections.abc import Sequence

from ranksaga.compare.results import BASELINE_HYBRID, HYBRID, Comparison
from ranksaga.report.data import ReportData
from ranksaga.report.recommendation_text import (
    answer_sentences,
    answer_table,
    caution_text,
    contrast_table,
    shown_cautions,
)
from ranksaga.report.summary import headline_sentence, summary_lines, summary_table
from ranksaga.report.tables import (
    OUT_OF_FOLD,
    Table,
    facts_table,
    groups_table,
    leakage_table,
    metric_label,
    results_table,
    selection_table,
)
from ranksaga.untrusted.escape import code_block, markdown

__all__ = ["RECALL", "markdown_table", "markdown_text", "reading_notes"]

RECALL = "recall_at_100"


def markdown_text(data: ReportData, *, selection_charts: Sequence[str] = ()) -> str:
    """The whole report; ``selection_charts`` are the names of the pictures beside it, one a selection."""
    comparison = data.comparison
    parts = [f"# {markdown(data.title)}", *_answer(data), f"**{markdown(headline_sentence(data))}**", "## Summary"]
    parts += [
        "\n".join(
            [
                f"**{markdown(system)}**",
                "",
                *(f"- {markdown(line)}" for line in summary_lines(comparison.summary(system))),
            ]
        )
        for system in data.contenders
    ]
    parts += [markdown_table(summary_table(data)), "![Change per dataset](comparison_visualization.png)"]
    for metric in _shown_metrics(comparison):
        parts += [f"## {markdown(metric_label(metric))} by dataset", markdown_table(results_table(comparison, metric))]
    if data.answer is not None and (added := data.answer.contrast(HYBRID, BASELINE_HYBRID)) is not None:
        parts += ["## What training added", markdown_table(contrast_table(data.answer, added, comparison.primary))]
    parts.append("\n".join(f"- {markdown(note)}" for note in reading_notes(data)))
    if comparison.groups:
        table = groups_table(comparison)
        parts += [f"## {markdown(table.caption)}", markdown_table(table)]
    if data.leakage:
        parts += ["## Leakage audit", markdown_table(leakage_table(data.leakage))]
    for place, selection in enumerate(data.selections):
        parts += [f"## Selection on dev: {markdown(selection.system)}", markdown(selection.reason)]
        parts += [f"![Gain against retention]({name})" for name in selection_charts[place : place + 1]]
        parts.append(markdown_table(selection_table(selection)))
    if data.notes:
        parts += ["## Notes", "\n".join(f"- {markdown(note)}" for note in data.notes)]
    if data.recipe:
        parts += ["## Recipe", code_block(data.recipe, "yaml")]
    for facts in data.facts:
        parts += [f"## {markdown(facts.title)}", markdown_table(facts_table(facts))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _answer(data: ReportData) -> list[str]:
    """The recommendation, the three comparisons, and what is not proven safe."""
    warned = [f"- Caution: {markdown(caution_text(caution))}." for caution in shown_cautions(data)]
    if data.answer is None:
        return ["\n".join(warned)] if warned else []
    first, *rest = answer_sentences(data.answer, data.comparison.primary)
    parts = [f"**{markdown(first)}**", markdown(" ".join(rest)), markdown_table(answer_table(data.answer))]
    return [*parts, *(["\n".join(warned)] if warned else [])]


def reading_notes(data: ReportData) -> tuple[str, ...]:
    """How the figures were made, for whoever reads the tables."""
    comparison = data.comparison
    notes = [
        "Changes are against the baseline on the same queries. The interval is that of the change, a 95% bootstrap "
        "over queries; p is a two-sided paired randomization test, corrected by Holm over all datasets of a system. "
        "A verdict other than “no evidence” has a corrected p below 0.05.",
        "The mean, the best and the worst change are of relative changes, over the trained datasets only. "
        "A guard is scored and never trained on.",
        "“Sees 5% or more” is the smallest true change that a test on this many queries finds four times out of five; "
        "“cannot be resolved” means that a change of 5% could have been missed.",
    ]
    if data.answer is not None:
        notes.append(
            "The interval of a mean change is over datasets and queries (hierarchical bootstrap), so it also speaks of "
            "other datasets of this kind; its p is a randomization test on these datasets, corrected by Holm over the "
            "comparisons."
        )
    if any(row.out_of_fold for row in comparison.rows):
        notes.append(
            f"{OUT_OF_FOLD} out-of-fold: each query was scored by a model that was trained without its part of the "
            "queries (cross-fitting)."
        )
    return tuple(notes)


def markdown_table(table: Table) -> str:
    """A pipe table; the caption is left to the heading above it."""
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [[column.label for column in table.columns], *([cell.text for cell in row] for row in table.rows)]
    head, *rows = ([markdown(text) for text in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def _shown_metrics(comparison: Comparison) -> tuple[str, ...]:
    wanted = dict.fromkeys((comparison.primary, RECALL))
    return tuple(metric for metric in wanted if metric in comparison.metrics)
