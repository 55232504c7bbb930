"""The Markdown report: the lines people look for, and nothing that breaks the page."""

from __future__ import annotations

from ranksaga.report.data import ReportData
from ranksaga.report.markdown import markdown_text


def test_the_report_says_what_was_measured(study: ReportData) -> None:
    text = markdown_text(study, selection_charts=("selection_best.png",))
    lines = text.splitlines()
    assert "- Datasets improved: 2 of 2 (2 significantly, 0 significantly worse)" in lines
    assert (
        "| alpha | best | 40 | 0.5000 | +0.2500 | +100.0% | [+0.2500, +0.2500] | 0.001 | 0.003 "
        "| improved | 40 / 0 / 0 |"
    ) in lines
    assert "| mean change | -12.5% | +56.2% |" in lines
    assert "## Recall@100 by dataset" in lines
    assert "| alpha | a near-copy in training | 12 | 40 | 9 |" in lines
    assert "![Gain against retention](selection_best.png)" in lines
    assert any(line.startswith("- † out-of-fold") for line in lines)
    assert "```yaml\nmodel: minilm\nseed: 0\n```" in text
    assert "| torch | 2.13.0 |" in lines


def test_foreign_text_cannot_become_markup(study: ReportData) -> None:
    text = markdown_text(study)
    assert "# A study of &lt;two> sets" in text.splitlines()
    assert "- v1 was capped at 100 steps \\| of 900." in text.splitlines()
    assert "selection_best.png" not in text


def test_every_table_is_rectangular(study: ReportData) -> None:
    blocks: list[list[str]] = [[]]
    for line in markdown_text(study).splitlines():
        if line.startswith("|"):
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    tables = [block for block in blocks if block]
    assert len(tables) == 7
    for table in tables:
        assert len({line.count(" | ") for line in table}) == 1, table[0]
