"""The answer in words: one recommendation with the figures that decided it, the three comparisons, and what is not
proven safe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from ranksaga.compare.recommendation import Action, Answer, Caution, Contrast, MeanChange, cautions
from ranksaga.compare.results import BASELINE, BASELINE_HYBRID, HYBRID, ComparisonRow
from ranksaga.report.data import ReportData
from ranksaga.report.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    metric_label,
    p_value,
    percent,
    percent_cell,
    percent_interval,
    score_cell,
    verdict_cell,
)

__all__ = [
    "Light",
    "answer_json",
    "answer_lines",
    "answer_sentences",
    "answer_table",
    "caution_text",
    "contrast_label",
    "contrast_table",
    "effect_text",
    "light",
    "shown_cautions",
]

Light = Literal["good", "warn", "bad", "neutral"]

_TO_DO: dict[Action, str] = {
    "keep": "Keep what you have",
    "ship the base hybrid": "Ship the hybrid with the base model, no training needed",
    "ship the model": "Ship the model {model}",
    "ship the hybrid": "Ship the hybrid with the trained model {model}",
}
_NAMES = {BASELINE: "the base model", BASELINE_HYBRID: "BM25 + the untrained base", HYBRID: "the trained hybrid"}


def answer_sentences(answer: Answer, metric: str) -> tuple[str, ...]:
    """What to do and the figures that decided it: the first sentence is the recommendation."""
    found = answer.recommendation
    to_do = _TO_DO[found.action].format(model=answer.model)
    because = list(found.because)
    if found.action == "keep":
        first = f"{to_do}: nothing is proven to be better than the base model without a loss somewhere."
    else:
        against = because.pop(0)
        measured = f"{_NAMES.get(found.system, found.system)} changes {metric_label(metric)} against the base model by"
        first = f"{to_do}: {measured} {_figures(against)}."
    rest = (f"{_capital(contrast_label(answer, one))}: {_figures(one)}." for one in because)
    return (first, *_not_shipped(answer), *rest)


def _not_shipped(answer: Answer) -> tuple[str, ...]:
    """Why a trained model that gained is not recommended: figures of folds are those of other models."""
    return () if answer.ships else (f"Selection kept the base model, so there is no {answer.model} to ship.",)


def answer_lines(answer: Answer, metric: str) -> tuple[str, ...]:
    """For the terminal: the recommendation, the three comparisons, what is not proven safe."""
    first = answer_sentences(answer, metric)[0]
    compared = (f"- {contrast_label(answer, one)}: {_figures(one)}" for one in answer.verdict)
    warned = (f"caution: {caution_text(one)}" for one in answer.recommendation.cautions)
    return (first, *_not_shipped(answer), *compared, *warned)


def answer_json(answer: Answer, metric: str) -> dict[str, Any]:
    """For programs."""
    found = answer.recommendation

    def figures(contrast: Contrast) -> dict[str, Any]:
        mean = contrast.mean
        measured = {} if mean is None else {**asdict(mean), "verdict": mean.verdict, "unresolved": mean.unresolved}
        worse = [row.dataset for row in contrast.regressed]
        pair = {"system": contrast.system, "reference": contrast.reference}
        return {**pair, **measured, "regressed": worse, "missing": list(contrast.missing)}

    return {
        "recommendation": {
            "action": found.action,
            "system": found.system,
            "text": " ".join(answer_sentences(answer, metric)),
            "cautions": [asdict(one) for one in found.cautions],
        },
        "comparisons": [figures(one) for one in (*answer.verdict, *answer.others)],
    }


def answer_table(answer: Answer, *, others: bool = False) -> Table:
    """The three comparisons; with ``others`` those that only the choice between systems needs."""
    labels = ("datasets", "mean change", "95% interval", "p (Holm)")
    columns = (
        Column("comparison", numeric=False),
        *(Column(label) for label in labels),
        Column("verdict", numeric=False),
        Column("worst dataset", numeric=False),
        Column("guards"),
    )
    contrasts = answer.others if others else answer.verdict
    caption = "The other comparisons" if others else "The three comparisons"
    return Table(caption, columns, tuple(_answer_row(answer, one) for one in contrasts))


def _answer_row(answer: Answer, contrast: Contrast) -> tuple[Cell, ...]:
    mean = contrast.mean
    label = Cell(_capital(contrast_label(answer, contrast)))
    trained = [row for row in contrast.rows if row.role == "trained" and row.change_pct is not None]
    worst = min(trained, key=lambda row: row.change_pct or 0.0, default=None)
    end = (
        Cell(NOTHING if worst is None else f"{percent(worst.change_pct)} ({worst.dataset})"),
        percent_cell(contrast.guards_pct),
    )
    if mean is None:
        return (label, *(Cell(NOTHING, tone="muted") for _ in range(5)), *end)
    return (
        label,
        Cell(str(mean.datasets), mean.datasets),
        percent_cell(mean.change_pct, mean.verdict),
        Cell(percent_interval((mean.ci_low, mean.ci_high)), mean.ci_low),
        Cell(p_value(mean.p_holm), mean.p_holm),
        verdict_cell(mean.verdict, mean.detectable_pct, unresolved=mean.unresolved),
        *end,
    )


def contrast_table(answer: Answer, contrast: Contrast, metric: str) -> Table:
    """One system against another, dataset by dataset."""
    columns = (
        Column("dataset", numeric=False),
        Column("queries"),
        Column(contrast.reference),
        Column(contrast.system),
        *(Column(label) for label in ("change %", "95% interval", "p (Holm)")),
        Column("verdict", numeric=False),
    )
    caption = f"{metric_label(metric)}: {contrast_label(answer, contrast)}"
    return Table(caption, columns, tuple(_contrast_row(row) for row in contrast.rows))


def _contrast_row(row: ComparisonRow) -> tuple[Cell, ...]:
    interval = row.interval_pct
    return (
        Cell(f"{row.dataset} (guard)" if row.role == "guard" else row.dataset),
        Cell(str(row.n_queries), row.n_queries),
        score_cell(row.value - (row.change or 0.0)),
        score_cell(row.value),
        percent_cell(row.change_pct, row.verdict),
        Cell(percent_interval(interval), interval[0] if interval else None),
        Cell(p_value(row.p_holm), row.p_holm),
        verdict_cell(row.verdict, row.detectable_pct, unresolved=row.unresolved),
    )


def contrast_label(answer: Answer, contrast: Contrast) -> str:
    """Who is compared with whom, in words."""
    system, reference = (_NAMES.get(name, name) for name in (contrast.system, contrast.reference))
    if contrast.system == answer.model:
        system = f"the model alone ({answer.model})"
    if contrast.reference == answer.model:
        reference = f"the model alone ({answer.model})"
    added = " (what training added)" if (contrast.system, contrast.reference) == (HYBRID, BASELINE_HYBRID) else ""
    return f"{system} against {reference}{added}"


def effect_text(mean: MeanChange) -> str:
    """A mean change with its interval."""
    return f"{percent(mean.change_pct)} {percent_interval((mean.ci_low, mean.ci_high))}"


def _figures(contrast: Contrast) -> str:
    """What a contrast measured, and what stands against it."""
    mean = contrast.mean
    if mean is None:
        return "no relative change is defined"
    proven = mean.verdict != "no evidence"
    test = f"p {p_value(mean.p_holm)}" if proven else _unproven(mean)
    parts = [f"{effect_text(mean)} in the mean of {mean.datasets} dataset{'s' * (mean.datasets > 1)}, {test}"]
    if contrast.regressed:
        parts.append(f"significantly worse on {', '.join(row.dataset for row in contrast.regressed)}")
    if contrast.missing:
        parts.append(f"not measured on {', '.join(contrast.missing)}")
    return "; ".join(parts)


def _unproven(mean: MeanChange) -> str:
    return verdict_cell(mean.verdict, mean.detectable_pct, unresolved=mean.unresolved).text


def shown_cautions(data: ReportData) -> tuple[Caution, ...]:
    """Of the system that is recommended; without an answer of the headline system, if it ships."""
    if data.answer is not None:
        return data.answer.recommendation.cautions
    if data.shipped == BASELINE:
        return ()
    comparison = data.comparison
    rows = [comparison.row(name, data.headline) for name in comparison.datasets]
    return cautions([row for row in rows if row is not None])


def caution_text(caution: Caution) -> str:
    """Why a dataset is not proven safe."""
    where = f"{caution.dataset} (guard)" if caution.role == "guard" else caution.dataset
    parts = []
    if caution.loses:
        lost = f"{percent(caution.change_pct)}, " if caution.change_pct is not None else ""
        parts.append(f"{where} loses ({lost}not proven)")
    if caution.unresolved:
        queries = f"with {caution.n_queries} {'queries' if caution.n_queries != 1 else 'query'}"
        smallest = caution.detectable_pct
        size = "of any size" if smallest is None else f"under {smallest:.{0 if smallest >= 10 else 1}f}%"
        parts.append(f"{queries} no loss {size} can be seen" + ("" if caution.loses else f" on {where}"))
    return "; ".join(parts)


def light(data: ReportData) -> Light:
    """Green where something is recommended and proven safe everywhere, amber where it is not proven, red where what is
    recommended (or, where nothing is, the headline system) is significantly worse somewhere."""
    keeps = data.shipped == BASELINE
    system = data.headline
    if data.answer is not None:
        system = data.answer.recommendation.system
        keeps = system == BASELINE
    if data.comparison.regressions(data.headline if system == BASELINE else system):
        return "bad"
    if keeps:
        return "neutral"
    if shown_cautions(data):
        return "warn"
    summary = data.comparison.summary(system)
    return "good" if summary.datasets and summary.improved == summary.datasets and summary.confirmed else "neutral"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
