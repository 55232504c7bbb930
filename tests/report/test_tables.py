"""Figures as text, and the tables cell by cell."""

from __future__ import annotations

from ranksaga.report.data import ReportData
from ranksaga.report.summary import headline_sentence, summary_lines, summary_table
from ranksaga.report.tables import (
    csv_text,
    groups_table,
    interval,
    metric_label,
    p_value,
    percent,
    points,
    results_table,
    score,
    selection_table,
)


def test_how_figures_are_written() -> None:
    assert [metric_label(name) for name in ("ndcg_at_10", "map_at_100", "mrr_at_10", "odd")] == [
        "nDCG@10",
        "MAP@100",
        "MRR@10",
        "odd",
    ]
    assert (score(0.64509), score(None)) == ("0.6451", "–")
    assert [points(value) for value in (0.01234, -0.01234, 0.00001, -0.00001)] == [
        "+0.0123",
        "-0.0123",
        "0.0000",
        "0.0000",
    ]
    assert [percent(value) for value in (12.34, -3.26, -0.04, None)] == ["+12.3%", "-3.3%", "0.0%", "–"]
    assert [p_value(value) for value in (0.00099, 0.001, 0.04996, None)] == ["<0.001", "0.001", "0.050", "–"]
    assert (interval(-0.01, 0.02), interval(None, 0.02)) == ("[-0.0100, +0.0200]", "–")


def test_the_csv_is_tidy_and_exact(study: ReportData) -> None:
    lines = csv_text(study.comparison).splitlines()
    assert lines[0] == (
        "dataset,role,system,metric,n_queries,value,ci_low,ci_high,change,change_pct,p,p_holm,verdict,out_of_fold,"
        "wins,ties,losses,effect_size,detectable"
    )
    # Three datasets, four systems, two metrics.
    assert len(lines) == 1 + 3 * 4 * 2
    assert "alpha,trained,baseline,ndcg_at_10,40,0.250000,0.250000,0.250000,,,,,,false,,,,," in lines
    # All 40 queries gain 0.25: p = 1 / 1000, times two for Holm, since alpha and beta both have it and guarded has 1.
    assert (
        "alpha,trained,best,ndcg_at_10,40,0.500000,0.250000,0.250000,0.250000,100.000000,0.001000,0.003000,improved,"
        "false,40,0,0,,"
    ) in lines
    assert (
        "beta,trained,best,ndcg_at_10,40,0.562500,0.062500,0.062500,0.062500,12.500000,0.001000,0.003000,improved,"
        "true,40,0,0,,"
    ) in lines
    assert (
        "guarded,guard,best,ndcg_at_10,40,0.500000,0.000000,0.000000,0.000000,0.000000,1.000000,1.000000,no evidence,"
        "false,0,40,0,,"
    ) in lines


def test_the_results_table(study: ReportData) -> None:
    table = results_table(study.comparison, "ndcg_at_10")
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [column.label for column in table.columns][:4] == ["dataset", "system", "queries", "value"]
    assert rows[0] == ["alpha", "baseline", "40", "0.2500", *["–"] * 7]
    assert rows[2] == [
        *("alpha", "v1", "40", "0.1875", "-0.0625", "-25.0%", "[-0.0625, -0.0625]", "0.001", "0.003", "regressed"),
        "0 / 0 / 40",
    ]
    assert rows[7][3] == "0.5625†"
    assert rows[11][0] == "guarded (guard)"
    tones = {(row[0].text, row[1].text): row[5].tone for row in table.rows}
    assert (tones["alpha", "v1"], tones["alpha", "best"], tones["guarded (guard)", "best"]) == ("bad", "good", "")
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_summary_over_all_datasets(study: ReportData) -> None:
    table = summary_table(study)
    assert [column.label for column in table.columns] == ["over the trained datasets", "v1", "best"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["datasets improved", "0 of 2", "2 of 2"],
        ["… significantly", "0", "2"],
        ["datasets regressed significantly", "1", "0"],
        ["mean change", "-12.5%", "+56.2%"],
        ["best dataset", "0.0% (beta)", "+100.0% (alpha)"],
        ["worst dataset", "-25.0% (alpha)", "+12.5% (beta)"],
        ["guards, mean change", "0.0%", "0.0%"],
        ["guards regressed significantly", "0", "0"],
    ]


def test_the_summary_in_lines(study: ReportData) -> None:
    assert summary_lines(study.comparison.summary("best")) == (
        "Datasets improved: 2 of 2 (2 significantly, 0 significantly worse)",
        "Mean change: +56.2%",
        "Best change: +100.0% (alpha)",
        "Worst change: +12.5% (beta)",
        "Guards, mean change: 0.0% (0 of 1 significantly worse)",
    )


def test_the_headline_is_honest(study: ReportData, nothing_shipped: ReportData) -> None:
    assert headline_sentence(study) == (
        "best improved nDCG@10 on 2 of 2 datasets, 2 of them significantly (mean change +56.2%)."
    )
    assert headline_sentence(nothing_shipped) == (
        "No fine-tuned model qualified: the base model ships unchanged. Every weight lost on beta. "
        "v1 improved nDCG@10 on none of 2 datasets (mean change -12.5%). It is significantly worse on alpha."
    )


def test_groups_and_selection(study: ReportData) -> None:
    rows = [[cell.text for cell in row] for row in groups_table(study.comparison).rows]
    assert rows[2] == ["alpha", "clean", "best", "2", "0.2500", "0.5000", "+0.2500", "+100.0%", "[+0.2500, +0.2500]"]
    table = selection_table(study.selections[0])
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["1", "0.5", "+2.0%", "-0.2%", "+3.0%", "+1.0%", "-0.2%", "chosen"],
        ["1", "1", "+3.0%", "-4.0%", "+5.0%", "+1.0%", "-4.0%", "does not qualify"],
    ]
