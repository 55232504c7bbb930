"""Files of a report on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ranksaga.errors import DataError
from ranksaga.report.data import ReportData
from ranksaga.report.write import write_report


def test_all_files_are_written_and_nothing_else(study: ReportData, tmp_path: Path) -> None:
    paths = write_report(study, tmp_path / "run")
    assert [path.name for path in paths] == [
        "comparison_visualization.png",
        "selection_best.png",
        "comparison_table.csv",
        "comparison_report.md",
        "report.html",
    ]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(path.name for path in paths)
    first = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in write_report(study, tmp_path / "again")} == first


@pytest.mark.parametrize("change", [{"headline": "v3"}, {"shipped": "v3"}])
def test_an_unknown_system_is_refused_before_anything_is_written(
    study: ReportData, tmp_path: Path, change: dict[str, str]
) -> None:
    broken = replace(study, headline=change.get("headline", "best"), shipped=change.get("shipped", "best"))
    with pytest.raises(DataError, match=r"'v3' was not compared .found: "):
        write_report(broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_no_two_selections_share_a_chart(study: ReportData, tmp_path: Path) -> None:
    names = ("best fold 1", "best_fold_1", "best/fold 1", "best")
    selections = tuple(replace(study.selections[0], system=name) for name in names)
    write_report(replace(study, selections=selections), tmp_path)
    charts = {path.name for path in tmp_path.glob("selection_*.png")}
    assert len(charts) == len(names)
    assert {"selection_best.png", "selection_best_fold_1.png"} <= charts
    report = (tmp_path / "comparison_report.md").read_text(encoding="utf-8")
    assert all(f"({chart})" in report for chart in charts)
