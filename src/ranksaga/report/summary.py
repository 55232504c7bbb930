"""The short form of a report: one sentence, a few lines, and a table."""

from __future__ import annotations

from ranksaga.compare.results import BASELINE, ComparisonRow, Summary
from ranksaga.report.data import ReportData
from ranksaga.report.tables import NOTHING, Cell, Column, Table, metric_label, percent, percent_cell, percent_interval

__all__ = ["headline_sentence", "summary_lines", "summary_table"]


def summary_table(data: ReportData) -> Table:
    """What each contender did over all datasets."""
    summaries = [data.comparison.summary(system) for system in data.contenders]
    columns = [Column("over the trained datasets", numeric=False), *(Column(summary.system) for summary in summaries)]
    rows = [
        ("datasets improved", [Cell(f"{s.improved} of {s.datasets}") for s in summaries]),
        ("… significantly", [Cell(str(s.confirmed), s.confirmed) for s in summaries]),
        ("datasets regressed significantly", [_regressed_cell(s.regressed) for s in summaries]),
        ("mean change", [percent_cell(s.mean_change_pct) for s in summaries]),
        *_mean_intervals(data),
        ("best dataset", [_extreme_cell(s.best) for s in summaries]),
        ("worst dataset", [_extreme_cell(s.worst) for s in summaries]),
    ]
    if any(summary.guards for summary in summaries):
        rows += [
            ("guards, mean change", [percent_cell(s.guards_mean_change_pct) for s in summaries]),
            ("guards regressed significantly", [_regressed_cell(s.guards_regressed) for s in summaries]),
        ]
    cells = tuple((Cell(name), *values) for name, values in rows)
    return Table(f"Change of {metric_label(data.comparison.primary)} against the baseline", tuple(columns), cells)


def _mean_intervals(data: ReportData) -> list[tuple[str, list[Cell]]]:
    """The row of the mean changes' intervals, for the contenders that the answer compared with the base."""
    if data.answer is None:
        return []
    contrasts = [data.answer.contrast(system, BASELINE) for system in data.contenders]
    means = [contrast.mean if contrast is not None else None for contrast in contrasts]
    cells = [Cell(percent_interval((m.ci_low, m.ci_high)) if m else NOTHING, m.ci_low if m else None) for m in means]
    return [("… 95% interval, over datasets and queries", cells)]


def _regressed_cell(count: int) -> Cell:
    return Cell(str(count), count, "bad" if count else "")


def _extreme_cell(row: ComparisonRow | None) -> Cell:
    return Cell(NOTHING) if row is None else Cell(f"{percent(row.change_pct)} ({row.dataset})", row.change_pct)


def summary_lines(summary: Summary) -> tuple[str, ...]:
    """The summary of one system in sentences."""
    lines = [
        f"Datasets improved: {summary.improved} of {summary.datasets} "
        f"({summary.confirmed} significantly, {summary.regressed} significantly worse)",
        f"Mean change: {percent(summary.mean_change_pct)}",
    ]
    lines += [
        f"{name} change: {percent(row.change_pct)} ({row.dataset})"
        for name, row in (("Best", summary.best), ("Worst", summary.worst))
        if row is not None
    ]
    if summary.guards:
        lines.append(
            f"Guards, mean change: {percent(summary.guards_mean_change_pct)} "
            f"({summary.guards_regressed} of {summary.guards} significantly worse)"
        )
    return tuple(lines)


def headline_sentence(data: ReportData) -> str:
    """The verdict in one or two sentences: what ships, and what was measured."""
    summary = data.comparison.summary(data.headline)
    metric = metric_label(data.comparison.primary)
    if summary.improved == 0:
        measured = f"{data.headline} improved {metric} on none of {summary.datasets} datasets"
    else:
        measured = (
            f"{data.headline} improved {metric} on {summary.improved} of {summary.datasets} datasets, "
            f"{summary.confirmed} of them significantly"
        )
    measured += f" (mean change {percent(summary.mean_change_pct)})."
    worse = ", ".join(row.dataset for row in data.comparison.regressions(data.headline))
    if worse:
        measured += f" It is significantly worse on {worse}."
    if data.shipped == BASELINE:
        opening, reason = "No fine-tuned model qualified: the base model ships unchanged.", data.shipped_reason
        reason = f"{reason[0].upper()}{reason[1:].removesuffix('.')}." if reason else ""
        return " ".join(part for part in (opening, reason, measured) if part)
    return measured
