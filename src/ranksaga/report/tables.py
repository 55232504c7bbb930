"""The tables of a report, and the one place that decides how a figure is written.

A table is built once, as text with a sort key and a tone a cell; Markdown, HTML and the terminal
only lay it out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from ranksaga.compare.results import BASELINE, Comparison, ComparisonRow, Paired, QueryChange
from ranksaga.data.leakage import LeakageFinding
from ranksaga.report.data import Facts, ReportData, Selection
from ranksaga.untrusted.escape import csv_cell

__all__ = [
    "NOTHING",
    "OUT_OF_FOLD",
    "Cell",
    "Column",
    "Table",
    "csv_text",
    "facts_table",
    "groups_table",
    "interval",
    "leakage_table",
    "metric_label",
    "p_value",
    "percent",
    "percent_cell",
    "percent_interval",
    "points",
    "query_changes_table",
    "results_table",
    "score",
    "score_cell",
    "selection_table",
    "verdict_cell",
]

Tone = Literal["", "good", "warn", "bad", "muted"]

NOTHING = "–"
OUT_OF_FOLD = "†"

# The order that comparison_table.csv promises; further fields of a row follow it.
_CSV_COLUMNS = tuple(column.name for column in fields(ComparisonRow))
_NAMES = {"ndcg": "nDCG", "map": "MAP", "mrr": "MRR", "recall": "Recall", "precision": "Precision"}


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the key it sorts by (the text where None), and its tone."""

    text: str
    key: float | None = None
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers stand right."""

    label: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A caption, columns and rows of as many cells."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def metric_label(metric: str) -> str:
    """``ndcg_at_10`` as people write it: ``nDCG@10``."""
    name, separator, depth = metric.partition("_at_")
    return f"{_NAMES.get(name, name)}@{depth}" if separator else metric


def score(value: float | None) -> str:
    """A metric's value: four decimals."""
    return NOTHING if value is None else f"{value:.4f}"


def points(value: float | None) -> str:
    """An absolute change: four decimals with a sign; no sign where it rounds to nothing."""
    return NOTHING if value is None else _signed(value, 4)


def percent(value: float | None) -> str:
    """A relative change: one decimal with a sign."""
    return NOTHING if value is None else f"{_signed(value, 1)}%"


def p_value(value: float | None) -> str:
    """Three decimals, and below that only that it is below."""
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Both ends of an interval of an absolute change."""
    return NOTHING if low is None or high is None else f"[{points(low)}, {points(high)}]"


def percent_interval(ends: tuple[float, float] | None) -> str:
    """Both ends of an interval of a relative change."""
    return NOTHING if ends is None else f"[{percent(ends[0])}, {percent(ends[1])}]"


def _signed(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def score_cell(value: float) -> Cell:
    """A metric's value."""
    return Cell(score(value), value)


def percent_cell(value: float | None, verdict: str | None = None) -> Cell:
    """A relative change, coloured only where a verdict says that it is real."""
    tones: dict[str | None, Tone] = {"improved": "good", "regressed": "bad"}
    return Cell(percent(value), value, tones.get(verdict, ""))


def results_table(comparison: Comparison, metric: str) -> Table:
    """Every dataset and system under one metric: value, changes, interval, p, verdict, wins and losses."""
    labels = ("value", "change", "change %", "95% interval", "p", "p (Holm)")
    columns = (
        Column("dataset", numeric=False),
        Column("system", numeric=False),
        Column("queries"),
        *(Column(label) for label in labels),
        Column("verdict", numeric=False),
        Column("win / tie / loss"),
    )
    order = (BASELINE, *comparison.systems)
    found = (comparison.row(name, system, metric) for name in comparison.datasets for system in order)
    return Table(metric_label(metric), columns, tuple(_result(row) for row in found if row is not None))


def _result(row: ComparisonRow) -> tuple[Cell, ...]:
    name = f"{row.dataset} (guard)" if row.role == "guard" else row.dataset
    counts = NOTHING if row.wins is None else f"{row.wins} / {row.ties} / {row.losses}"
    if row.system == BASELINE:
        # The baseline's interval is that of its value, not of a change: the CSV has it.
        rest = tuple(Cell(NOTHING, tone="muted") for _ in range(7))
    else:
        rest = (
            Cell(points(row.change), row.change),
            percent_cell(row.change_pct, row.verdict),
            Cell(interval(row.ci_low, row.ci_high), row.ci_low),
            Cell(p_value(row.p), row.p),
            Cell(p_value(row.p_holm), row.p_holm),
            verdict_cell(row.verdict, row.detectable_pct, unresolved=row.unresolved),
            Cell(counts, row.wins),
        )
    value = Cell(score(row.value) + (OUT_OF_FOLD if row.out_of_fold else ""), row.value)
    return (Cell(name), Cell(row.system), Cell(str(row.n_queries), row.n_queries), value, *rest)


def verdict_cell(verdict: str | None, detectable_pct: float | None, *, unresolved: bool) -> Cell:
    """A verdict; without evidence also the smallest change in percent that could have been seen, and that it cannot be
    resolved where 5% could not."""
    if verdict is None:
        return Cell(NOTHING, tone="muted")
    if verdict != "no evidence":
        return Cell(verdict, tone="good" if verdict == "improved" else "bad")
    seen = "" if detectable_pct is None else f" (sees {detectable_pct:.1f}% or more)"
    return Cell(f"cannot be resolved{seen}", tone="warn") if unresolved else Cell(f"{verdict}{seen}", tone="muted")


def groups_table(comparison: Comparison) -> Table:
    """Groups of queries, such as those with a near-copy in training, apart."""
    labels = ("queries", "baseline", "value", "change", "change %", "95% interval")
    columns = (
        Column("dataset", numeric=False),
        Column("group", numeric=False),
        Column("system", numeric=False),
        *(Column(label) for label in labels),
    )
    rows = tuple(
        (
            Cell(row.dataset),
            Cell(row.group),
            Cell(row.system),
            Cell(str(row.n_queries), row.n_queries),
            score_cell(row.baseline),
            score_cell(row.value),
            Cell(points(row.change), row.change),
            percent_cell(row.change_pct),
            Cell(interval(row.ci_low, row.ci_high), row.ci_low),
        )
        for row in comparison.groups
    )
    return Table(f"{metric_label(comparison.primary)} by group of queries", columns, rows)


def query_changes_table(data: ReportData, pair: Paired, changes: Sequence[QueryChange], caption: str) -> Table:
    """Single queries under the baseline and a candidate, with their text where texts are shown."""
    texts = {change.query_id: data.query_texts.get((pair.dataset, change.query_id), "") for change in changes}
    shown = data.texts and any(texts.values())
    columns = (
        Column("query", numeric=False),
        *((Column("text", numeric=False),) if shown else ()),
        Column("baseline"),
        Column(pair.system),
        Column("change"),
    )
    rows = tuple(
        (
            Cell(change.query_id),
            *((Cell(texts[change.query_id]),) if shown else ()),
            score_cell(change.baseline),
            score_cell(change.value),
            Cell(points(change.change), change.change, "good" if change.change > 0 else "bad"),
        )
        for change in changes
    )
    return Table(caption, columns, rows)


def leakage_table(findings: Sequence[LeakageFinding]) -> Table:
    """How many scored queries training came near to, and what was dropped for it."""
    columns = (
        Column("dataset", numeric=False),
        Column("scored queries with", numeric=False),
        Column("queries"),
        Column("of"),
        Column("training queries dropped"),
    )
    rows = tuple(
        (
            Cell(finding.dataset),
            Cell(finding.kind),
            Cell(str(finding.queries), finding.queries),
            Cell(str(finding.scored), finding.scored),
            Cell(str(finding.dropped), finding.dropped),
        )
        for finding in findings
    )
    return Table("Leakage audit", columns, rows)


def selection_table(selection: Selection) -> Table:
    """Every candidate of the selection with its dev figures."""
    datasets = tuple(dict.fromkeys(name for point in selection.points for name in (*point.gains, *point.retention)))
    two_towers = any(point.document_weight is not None for point in selection.points)
    columns = (
        Column("epoch"),
        Column("weight"),
        *([Column("documents' weight")] if two_towers else []),
        Column("mean gain"),
        Column("guards"),
        *(Column(name) for name in datasets),
        Column("result", numeric=False),
    )
    rows = tuple(
        (
            Cell(str(point.epoch), point.epoch),
            Cell(f"{point.weight:g}", point.weight),
            *([Cell(f"{point.document_weight:g}", point.document_weight)] if point.document_weight is not None else []),
            percent_cell(point.gain),
            percent_cell(point.kept),
            *(percent_cell({**point.gains, **point.retention}.get(name)) for name in datasets),
            Cell(
                "chosen" if point.chosen else "" if point.qualifies else "does not qualify",
                tone="good" if point.chosen else "muted",
            ),
        )
        for point in selection.points
    )
    return Table(f"{selection.system}: change on dev against the base model", columns, rows)


def facts_table(facts: Facts) -> Table:
    """A titled list of names and values."""
    columns = (Column("name", numeric=False), Column("value", numeric=False))
    return Table(facts.title, columns, tuple((Cell(name), Cell(value)) for name, value in facts.rows))


def csv_text(comparison: Comparison) -> str:
    """``comparison_table.csv``: one row a (dataset, system, metric), six decimals, empty where there is no figure.

    A name that a spreadsheet would run as a formula has an apostrophe before it.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for row in comparison.rows:
        writer.writerow([_csv_value(getattr(row, name)) for name in _CSV_COLUMNS])
    return stream.getvalue()


def _csv_value(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return csv_cell(value)
    return f"{value:.6f}" if isinstance(value, float) else str(value)
