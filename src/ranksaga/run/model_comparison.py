"""Two measured models, query by query: what differs, what is proven, and whether a gate lets the second one pass."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranksaga.compare.comparison import TESTED, compare
from ranksaga.compare.results import PRIMARY, ComparisonRow
from ranksaga.config.load import load_recipe
from ranksaga.errors import DataError, UsageError
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.evaluate.per_query import PER_QUERY, read_evaluations
from ranksaga.report.markdown import markdown_table
from ranksaga.report.tables import Table, results_table
from ranksaga.untrusted.escape import markdown

__all__ = ["Compared", "Limits", "compare_results"]

# What an encoder's facts call a setting, and a reader. Where a decisive one differs, a difference in figures may come
# from it alone.
DECISIVE = {"query": "the query prompt", "document": "the document prompt", "max_length": "the length in tokens"}
NOTED = {"precision": "the precision", "similarity": "the similarity"}
# What a program is told of each dataset; ``ci_low`` and ``ci_high`` bound ``change``.
SHOWN = ("dataset", "n_queries", "value", "change", "change_pct", "ci_low", "ci_high", "p", "p_holm", "verdict")


@dataclass(frozen=True)
class Limits:
    """What a gate refuses beside datasets that got significantly worse or were measured once only.

    Attributes:
        max_loss: percent that a dataset may lose, proven or not; none: any.
        other_settings: whether prompts and lengths may differ.
    """

    max_loss: float | None = None
    other_settings: bool = False


@dataclass(frozen=True)
class Compared:
    """Two result folders compared under one metric.

    Attributes:
        metric: that is compared.
        table: the figures.
        rows: the second model's, one a dataset.
        unmatched: datasets that were measured with one of the two only.
        settings: said of each prompt and length that differs between the two.
        notes: said of what else differs, or cannot be checked.
    """

    metric: str
    table: Table
    rows: tuple[ComparisonRow, ...]
    unmatched: tuple[str, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self) -> list[dict[str, Any]]:
        """One object a dataset."""
        return [{**{name: getattr(row, name) for name in SHOWN}, "unresolved": row.unresolved} for row in self.rows]

    def as_text(self) -> str:
        """The table and the remarks, a line each."""
        return "\n".join([markdown_table(self.table), *self.remarks])

    def as_markdown(self) -> str:
        """The table and the remarks as a list."""
        remarks = "".join(f"\n- {markdown(remark)}" for remark in self.remarks)
        return markdown_table(self.table) + (f"\n{remarks}" if remarks else "")

    @property
    def remarks(self) -> list[str]:
        """All that a reader of the table has to know."""
        small = [f"{row.dataset} ({row.n_queries} queries)" for row in self.rows if row.unresolved]
        return [
            *(
                [f"not compared, measured with one of the two only: {', '.join(self.unmatched)}"]
                if self.unmatched
                else []
            ),
            *self.settings,
            *([f"too few queries to see a loss of 5%: {', '.join(small)}"] if small else []),
            *self.notes,
        ]

    def failures(self, limits: Limits) -> dict[str, list[str]]:
        """Why a gate does not let the second model pass, by dataset; ``""`` for reasons of no single dataset."""
        failures: dict[str, list[str]] = {}
        for row in self.rows:
            if row.verdict == "regressed":
                failures.setdefault(row.dataset, []).append(f"significantly worse ({_figures(row)})")
            # Beyond rounding: a loss of exactly the limit passes.
            lost = (
                limits.max_loss is not None and row.change_pct is not None and row.change_pct < -limits.max_loss - 1e-9
            )
            if lost:
                failures.setdefault(row.dataset, []).append(f"lost more than {limits.max_loss:g}% ({_figures(row)})")
        for name in self.unmatched:
            failures.setdefault(name, []).append("not compared, measured with one of the two only")
        if self.settings and not limits.other_settings:
            failures[""] = list(self.settings)
        return failures

    def as_junit(self, limits: Limits) -> str:
        """A JUnit report: one test case a dataset, and one for the settings."""
        from xml.etree import ElementTree

        failures = self.failures(limits)
        names = [*(row.dataset for row in self.rows), *self.unmatched, *([""] if "" in failures else [])]
        suite = ElementTree.Element(
            "testsuite", name=f"ranksaga compare {self.metric}", tests=str(len(names)), failures=str(len(failures))
        )
        figures = {row.dataset: _figures(row) for row in self.rows}
        for name in names:
            case = ElementTree.SubElement(suite, "testcase", classname=self.metric, name=_xml(name) or "settings")
            if name in failures:
                ElementTree.SubElement(case, "failure", message=_xml("; ".join(failures[name])))
            if name in figures:
                ElementTree.SubElement(case, "system-out").text = figures[name]
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def compare_results(baseline: Path, candidate: Path, *, metric: str = PRIMARY) -> Compared:
    """Compare two models query by query.

    Args:
        baseline: the first model's results: the folder of ``ranksaga benchmark --out``, a run's folder (the model that
            it shipped), or one system of a run (``RUN/per_query/NAME``).
        candidate: the second model's.
        metric: one of those that are tested.

    Raises:
        DataError: a folder holds no per-query results or broken ones, or the two share no dataset, or measured
            one on other corpora, queries, judgments or splits.
        UsageError: the metric is not one that is tested.
    """
    if metric not in TESTED:
        raise UsageError(f"--metric {metric}: expected one of {', '.join(TESTED)}")
    before, after = _read(baseline, "baseline"), _read(candidate, "candidate")
    shared = [name for name in before if name in after]
    if not shared:
        raise DataError(
            f"{baseline} and {candidate} share no dataset ({', '.join(before)} against {', '.join(after)}); "
            "benchmark both models on the same datasets"
        )
    pairs = [(before[name], after[name]) for name in shared]
    _refuse_other_data(pairs)
    comparison = compare([first for first, _ in pairs], [second for _, second in pairs])
    rows = tuple(row for row in comparison.rows if row.metric == metric and row.system == "candidate")
    if not rows:
        raise DataError(f"{baseline} and {candidate} hold no {metric}; benchmark both models again")
    notes = _differing(pairs, NOTED)
    if unknown := [first.dataset for first, second in pairs if first.origin is None or second.origin is None]:
        notes.append(
            "not recorded by the version that measured them, so it cannot be checked that data, prompts and length are "
            f"the same: {', '.join(unknown)}"
        )
    return Compared(
        metric,
        results_table(comparison, metric),
        rows,
        tuple(sorted({*before, *after} - set(shared))),
        tuple(_differing(pairs, DECISIVE)),
        tuple(notes),
    )


def _figures(row: ComparisonRow) -> str:
    """The change, its interval, p and the number of queries."""
    if row.change_pct is None or row.interval_pct is None or row.p_holm is None:
        return f"{row.value:.4f}, n = {row.n_queries}"
    low, high = row.interval_pct
    return (
        f"{row.change_pct:+.1f}% [{low:+.1f}%, {high:+.1f}%], Holm-corrected p = {row.p_holm:.3g}, n = {row.n_queries}"
    )


def _xml(text: str) -> str:
    """A text with U+FFFD in place of what no XML 1.0 document can hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _refuse_other_data(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> None:
    for first, second in pairs:
        if first.origin and second.origin and first.origin.dataset != second.origin.dataset:
            raise DataError(
                f"{first.dataset}: the two were measured on other documents, queries or judgments (fingerprint "
                f"{first.origin.dataset} against {second.origin.dataset}); benchmark both models on the same dataset"
            )


def _differing(pairs: Sequence[tuple[Evaluation, Evaluation]], settings: Mapping[str, str]) -> list[str]:
    """One line for each of these settings and each two values of it, with the datasets that have them."""
    datasets: dict[str, list[str]] = {}
    for first, second in pairs:
        if first.origin is None or second.origin is None or not first.origin.encoder or not second.origin.encoder:
            continue
        before, after = _flat(first.origin.encoder), _flat(second.origin.encoder)
        for key, label in settings.items():
            if before.get(key) != after.get(key):
                line = f"{label} differs, {before.get(key)!r} against {after.get(key)!r}"
                datasets.setdefault(line, []).append(first.dataset)
    return [f"{line}: {', '.join(names)}" for line, names in datasets.items()]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    prompts = facts.get("prompts")
    return {**facts, **(prompts if isinstance(prompts, dict) else {})}


def _read(folder: Path, system: str) -> Mapping[str, Evaluation]:
    """The per-query values of one model."""
    place = folder / PER_QUERY
    if (folder / "recipe.yaml").is_file() and place.is_dir():
        place = place / load_recipe(folder / "recipe.yaml", environment={}).shipped
    elif not place.is_dir() and folder.parent.name == PER_QUERY:
        place = folder
    evaluations = read_evaluations(place, system, remedy="benchmark that model again")
    if not evaluations:
        raise DataError(f"{folder}: no {PER_QUERY}/*.json there; make it with: ranksaga benchmark ... --out {folder}")
    return {evaluation.dataset: evaluation for evaluation in evaluations}
