"""The answer in words, with the figures that decided it, in every form of the report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranksaga.compare.comparison import compare
from ranksaga.compare.recommendation import Answer, Caution, Contrast, MeanChange, answer_of
from ranksaga.compare.results import Comparison
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.report.data import ReportData
from ranksaga.report.html import html_text
from ranksaga.report.markdown import markdown_text
from ranksaga.report.recommendation_text import (
    answer_json,
    answer_lines,
    answer_sentences,
    answer_table,
    caution_text,
    light,
)
from ranksaga.report.summary import summary_table

METRIC = "ndcg_at_10"
# Every query of a dataset alike, in binary fractions: figures are exact, intervals of one dataset are points.
LEVELS = {"baseline": 0.5, "best": 0.625, "baseline_hybrid": 0.75, "hybrid": 0.8125}


def measured(dataset: str, levels: dict[str, float], queries: int = 40) -> list[Evaluation]:
    ids = tuple(f"q{row}" for row in range(queries))
    return [Evaluation(dataset, "test", name, ids, {METRIC: np.full(queries, at)}) for name, at in levels.items()]


def report(*evaluations: Evaluation, guards: tuple[str, ...] = (), ships: bool = True) -> ReportData:
    base = [one for one in evaluations if one.system == "baseline"]
    rest = [one for one in evaluations if one.system != "baseline"]
    comparison = compare(base, rest, guards=guards, rounds=999)
    answer = answer_of(comparison, "best", ships=ships, rounds=999)
    return ReportData("A run", comparison, "best", "best" if ships else "baseline", answer=answer)


def sentences(data: ReportData) -> tuple[str, ...]:
    assert data.answer is not None
    return answer_sentences(data.answer, METRIC)


def test_each_recommendation_is_a_sentence_with_its_figures() -> None:
    one = "in the mean of 1 dataset, p 0.006"
    assert sentences(report(*measured("faq", LEVELS))) == (
        "Ship the hybrid with the trained model best: the trained hybrid changes nDCG@10 against the base model by "
        f"+62.5% [+62.5%, +62.5%] {one}.",
        f"The trained hybrid against BM25 + the untrained base (what training added): +8.3% [+8.3%, +8.3%] {one}.",
        f"The trained hybrid against the model alone (best): +30.0% [+30.0%, +30.0%] {one}.",
    )
    none = sentences(report(*measured("faq", {**LEVELS, "hybrid": 0.75})))
    assert none[0] == (
        "Ship the hybrid with the base model, no training needed: BM25 + the untrained base changes nDCG@10 against "
        f"the base model by +50.0% [+50.0%, +50.0%] {one}."
    )
    assert none[2] == (
        "The trained hybrid against BM25 + the untrained base (what training added): 0.0% [0.0%, 0.0%] in the mean of "
        "1 dataset, no evidence."
    )
    alone = sentences(report(*measured("faq", {"baseline": 0.5, "best": 0.625})))
    assert alone == (
        "Ship the model best: best changes nDCG@10 against the base model by +25.0% [+25.0%, +25.0%] in the mean of 1 "
        "dataset, p 0.001.",
    )
    assert sentences(report(*measured("faq", {"baseline": 0.5, "best": 0.5}))) == (
        "Keep what you have: nothing is proven to be better than the base model without a loss somewhere.",
        "The model alone (best) against the base model: 0.0% [0.0%, 0.0%] in the mean of 1 dataset, no evidence.",
    )


def test_what_stands_against_a_gain_is_said() -> None:
    gained, lost = measured("faq", {"baseline": 0.5, "best": 0.75}), measured("old", {"baseline": 0.5, "best": 0.25})
    data = report(*gained, *lost, guards=("old",))
    assert sentences(data)[1] == (
        "The model alone (best) against the base model: +50.0% [+50.0%, +50.0%] in the mean of 1 dataset, p 0.001; "
        "significantly worse on old."
    )
    assert light(data) == "bad"
    kept = report(*gained, ships=False)
    assert sentences(kept)[:2] == (
        "Keep what you have: nothing is proven to be better than the base model without a loss somewhere.",
        "Selection kept the base model, so there is no best to ship.",
    )
    assert light(kept) == "neutral"
    assert answer_lines(kept.answer, METRIC)[1].startswith("Selection kept")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("caution", "text"),
    [
        (Caution("g", "guard", 60, -2.0, True, False, 3.0), "g (guard) loses (-2.0%, not proven)"),
        (Caution("g", "guard", 9, 1.0, False, True, 15.2), "with 9 queries no loss under 15% can be seen on g (guard)"),
        (Caution("t", "trained", 9, 1.0, False, True, 5.2), "with 9 queries no loss under 5.2% can be seen on t"),
        (Caution("g", "guard", 1, 1.0, False, True, None), "with 1 query no loss of any size can be seen on g (guard)"),
        (
            Caution("g", "guard", 9, -2.0, True, True, 15.2),
            "g (guard) loses (-2.0%, not proven); with 9 queries no loss under 15% can be seen",
        ),
    ],
)
def test_a_caution_in_words(caution: Caution, text: str) -> None:
    assert caution_text(caution) == text


def nine(values: tuple[float, ...]) -> tuple[list[Evaluation], list[Evaluation]]:
    guard = [replace(one, dataset="g") for one in measured("x", {"baseline": 0.5, "best": 0.5}, queries=len(values))]
    return measured("faq", {"baseline": 0.5, "best": 0.75}), [
        replace(one, values={METRIC: np.array(values) if one.system == "best" else one.values[METRIC]}) for one in guard
    ]


def test_a_guard_that_is_too_small_or_loses_unproven_is_amber() -> None:
    gained, small = nine((0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.75))
    data = report(*gained, *small, guards=("g",))
    # sd of the nine differences: sqrt(2 * 0.0625 / 8) = 0.125; 2.8016 * 0.125 / 3 = 0.1167, 23% of 0.5.
    said = "with 9 queries no loss under 23% can be seen on g (guard)"
    assert light(data) == "warn"
    assert f"- Caution: {said}." in markdown_text(data).splitlines()
    assert f"<li>{said}</li>" in html_text(data)
    assert data.answer is not None
    assert f"caution: {said}" in answer_lines(data.answer, METRIC)
    assert "cannot be resolved (sees 23.3% or more)" in markdown_text(data)
    _, loses = nine((0.5,) * 99 + (0.25,))
    losing = report(*gained, *loses, guards=("g",))
    assert light(losing) == "warn"
    assert "g (guard) loses (-0.5%, not proven)" in html_text(losing)
    _, safe = nine((0.5,) * 100)
    assert light(report(*gained, *safe, guards=("g",))) == "good"


def test_the_recommendation_is_the_first_sentence_everywhere() -> None:
    data = report(*measured("faq", LEVELS))
    first = sentences(data)[0]
    assert markdown_text(data).splitlines()[2] == f"**{first}**"
    page = html_text(data)
    assert page.index(first) < page.index('class="figures"')
    assert page.index(f'<p class="sentence">{first}</p>') < page.index("best improved nDCG@10")
    assert data.answer is not None
    assert answer_lines(data.answer, METRIC)[0] == first
    written = answer_json(data.answer, METRIC)
    assert written["recommendation"]["text"].startswith(first)
    assert (written["recommendation"]["action"], written["recommendation"]["system"]) == ("ship the hybrid", "hybrid")
    assert [(one["system"], one["reference"]) for one in written["comparisons"][:3]] == [
        ("best", "baseline"),
        ("hybrid", "baseline_hybrid"),
        ("hybrid", "baseline"),
    ]


def test_the_table_of_the_three_comparisons() -> None:
    data = report(*measured("faq", LEVELS), *measured("g", dict.fromkeys(LEVELS, 0.5)), guards=("g",))
    assert data.answer is not None
    rows = [[cell.text for cell in row] for row in answer_table(data.answer).rows]
    assert rows[1] == [
        "The trained hybrid against BM25 + the untrained base (what training added)",
        *("1", "+8.3%", "[+8.3%, +8.3%]", "0.006", "improved", "+8.3% (faq)", "0.0%"),
    ]
    assert len(rows) == 3
    assert len(answer_table(data.answer, others=True).rows) == 3
    intervals = [cell.text for cell in summary_table(data).rows[4]]
    assert intervals == [
        "… 95% interval, over datasets and queries",
        *("[+25.0%, +25.0%]", "[+50.0%, +50.0%]", "[+62.5%, +62.5%]"),
    ]


def test_a_system_of_which_no_mean_is_defined_is_no_crash() -> None:
    contrast = Contrast("best", "baseline", (), None, ("alpha",))
    answer = Answer("best", True, (contrast,))
    text = "The model alone (best) against the base model: no relative change is defined."
    assert answer_sentences(answer, METRIC)[1] == text
    assert answer_table(answer).rows[0][1].text == "–"
    odd = replace(contrast, mean=MeanChange(1, 9, 3.0, -1.0, 7.0, 0.2, 0.2, 6.0))
    assert "no evidence" not in answer_sentences(replace(answer, contrasts=(odd,)), METRIC)[1]
    assert "cannot be resolved (sees 6.0% or more); not measured on alpha." in " ".join(
        answer_sentences(replace(answer, contrasts=(odd,)), METRIC)
    )


def test_both_hybrids_are_in_the_forest_plot_and_every_table() -> None:
    from ranksaga.report.charts import bars_svg, change_svg
    from ranksaga.report.tables import csv_text, results_table

    data = report(*measured("faq", LEVELS))
    comparison: Comparison = data.comparison
    shown = (change_svg(data), bars_svg(data), csv_text(comparison), markdown_text(data), html_text(data))
    for text in shown:
        assert "baseline_hybrid" in text
        assert text.replace("baseline_hybrid", "").count("hybrid") > 0
    assert [row[1].text for row in results_table(comparison, METRIC).rows] == list(LEVELS)
    assert data.contenders == ("best", "baseline_hybrid", "hybrid")
