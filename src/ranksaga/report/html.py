"""``report.html``: the whole report in one file that needs no network, no server and no other file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ranksaga.compare.results import BASELINE_HYBRID, HYBRID, Comparison
from ranksaga.data.leakage import LeakageFinding
from ranksaga.report.charts import bars_svg, change_svg, selection_svg
from ranksaga.report.data import ReportData
from ranksaga.report.drill_down import drill_down
from ranksaga.report.markdown import RECALL, reading_notes
from ranksaga.report.recommendation_text import (
    answer_sentences,
    answer_table,
    caution_text,
    contrast_table,
    light,
    shown_cautions,
)
from ranksaga.report.summary import headline_sentence, summary_table
from ranksaga.report.tables import (
    Table,
    facts_table,
    groups_table,
    leakage_table,
    metric_label,
    percent,
    query_changes_table,
    results_table,
    selection_table,
)
from ranksaga.untrusted.escape import printable

__all__ = ["html_text"]

_EXTREMES = 10


@dataclass(frozen=True)
class _Figure:
    """A headline figure with what it is."""

    value: str
    label: str
    tone: str = ""


def html_text(data: ReportData) -> str:
    """Render the report. Everything that came from outside is escaped; only our own drawings are not.

    The page forbids itself every request by its content security policy.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ranksaga.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        # What turns the direction of writing, or a control character, is shown as its escape.
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    drill = drill_down(data.details, data.documents, texts=data.texts) if data.details else None
    context: dict[str, Any] = {
        "drill": drill,
        "drill_json": Markup(drill.json) if drill is not None else "",
        "data": data,
        "tone": light(data),
        "answer": answer_sentences(data.answer, data.comparison.primary) if data.answer is not None else (),
        "cautions": [caution_text(caution) for caution in shown_cautions(data)],
        "comparisons": _comparisons(data),
        "sentence": headline_sentence(data),
        "figures": _figures(data),
        "summary": summary_table(data),
        "results": _results(data.comparison),
        "other_results": _other_results(data.comparison),
        "reading": reading_notes(data),
        "metric": metric_label(data.comparison.primary),
        "change_chart": Markup(change_svg(data)),
        "bars_chart": Markup(bars_svg(data)),
        "groups": groups_table(data.comparison) if data.comparison.groups else None,
        "leakage": leakage_table(data.leakage) if data.leakage else None,
        "examples": _examples(data) if data.texts else (),
        "query_changes": _query_changes(data),
        "selections": [
            (selection, selection_table(selection), Markup(selection_svg(selection))) for selection in data.selections
        ],
        "facts": [facts_table(facts) for facts in data.facts],
    }
    return environment.get_template("report.html.j2").render(context)


def _comparisons(data: ReportData) -> list[Table]:
    """The three comparisons, what training added by dataset, and what else decided."""
    answer = data.answer
    if answer is None:
        return []
    tables = [answer_table(answer)]
    if (added := answer.contrast(HYBRID, BASELINE_HYBRID)) is not None:
        tables.append(contrast_table(answer, added, data.comparison.primary))
    return [*tables, answer_table(answer, others=True)] if answer.others else tables


def _figures(data: ReportData) -> tuple[_Figure, ...]:
    summary = data.comparison.summary(data.headline)
    figures = [
        _Figure(f"{summary.improved} of {summary.datasets}", "datasets improved"),
        _Figure(str(summary.confirmed), "of them significantly", "good" if summary.confirmed else ""),
        _Figure(percent(summary.mean_change_pct), "mean change"),
    ]
    figures += [
        _Figure(percent(row.change_pct), f"{name}: {row.dataset}")
        for name, row in (("best", summary.best), ("worst", summary.worst))
        if row is not None
    ]
    if summary.guards:
        figures.append(_Figure(percent(summary.guards_mean_change_pct), "guards, mean change"))
    return tuple(figures)


def _results(comparison: Comparison) -> list[Table]:
    wanted = dict.fromkeys((comparison.primary, RECALL))
    return [results_table(comparison, metric) for metric in wanted if metric in comparison.metrics]


def _other_results(comparison: Comparison) -> list[Table]:
    """The other tested metrics; those without a test are in the CSV only."""
    tested = dict.fromkeys(row.metric for row in comparison.rows if row.p is not None)
    shown = (comparison.primary, RECALL)
    return [results_table(comparison, metric) for metric in tested if metric not in shown]


def _query_changes(data: ReportData) -> list[tuple[str, Table, Table]]:
    """For each dataset the queries that gained and lost most under the headline system."""
    return [
        (
            pair.dataset,
            query_changes_table(data, pair, pair.largest_wins(_EXTREMES), f"Largest wins: {pair.dataset}"),
            query_changes_table(data, pair, pair.largest_losses(_EXTREMES), f"Largest losses: {pair.dataset}"),
        )
        for pair in data.comparison.paired
        if pair.system == data.headline
    ]


def _examples(data: ReportData) -> list[LeakageFinding]:
    return [finding for finding in data.leakage if finding.examples]
