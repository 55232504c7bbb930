"""The pictures: equal data gives equal bytes, and the SVGs fit into a page."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from xml.etree import ElementTree

from ranksaga.report.charts import (
    _PALETTE,
    _REFERENCES,
    _colour,
    _dataset_label,
    _labelled,
    bars_svg,
    change_svg,
    comparison_png,
    selection_png,
    selection_svg,
)
from ranksaga.report.data import ReportData


def test_the_png_is_a_picture_and_the_same_each_time(study: ReportData) -> None:
    picture = comparison_png(study)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (2480, 832)
    assert comparison_png(study) == picture
    assert selection_png(study.selections[0])[:4] == b"\x89PNG"


def test_the_svgs_name_what_they_show_and_follow_the_page(study: ReportData) -> None:
    for svg in (change_svg(study), bars_svg(study)):
        root = ElementTree.fromstring(svg)
        words = " ".join("".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))
        assert "alpha" in words
        assert "guarded" in words
        assert "(guard)" in words
        assert "var(--ink)" in svg
        assert "#1b1f24" not in svg


def test_references_are_bars_but_no_contenders(study: ReportData) -> None:
    assert "bm25" in bars_svg(study)
    assert "bm25" not in change_svg(study)


def test_pictures_on_one_page_share_no_ids(study: ReportData) -> None:
    pictures = [change_svg(study), bars_svg(study), selection_svg(study.selections[0])]
    ids = [identifier for svg in pictures for identifier in re.findall(r' id="([^"]*)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))


def test_without_guards_the_selection_goes_by_weight(study: ReportData) -> None:
    selection = study.selections[0]
    bare = replace(selection, points=tuple(replace(point, kept=None, retention={}) for point in selection.points))
    assert "gain by weight" in selection_svg(bare)
    assert "gain against retention" in selection_svg(selection)


def test_a_name_is_no_formula(study: ReportData) -> None:
    """Between two dollar signs matplotlib reads TeX, and fails where it is none."""
    name = r"a$\frac{b$ c_d^e\$"

    def renamed(dataset: str) -> str:
        return name if dataset == "alpha" else dataset

    comparison = replace(
        study.comparison,
        rows=tuple(replace(row, dataset=renamed(row.dataset)) for row in study.comparison.rows),
    )
    odd = replace(study, comparison=comparison)
    assert name in odd.comparison.datasets
    for svg in (change_svg(odd), bars_svg(odd)):
        root = ElementTree.fromstring(svg)
        texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert name in texts
    assert comparison_png(odd)[:4] == b"\x89PNG"
    selection = replace(study.selections[0], system=name)
    assert name in selection_svg(selection)


def test_no_two_series_share_a_colour(study: ReportData) -> None:
    for palette in (_PALETTE, _REFERENCES):
        assert len({_colour(place, palette) for place in range(24)}) == 24


def test_a_long_name_is_cut_into_lines_and_a_short_one_is_left(study: ReportData) -> None:
    def label(name: str) -> str:
        rows = tuple(replace(row, dataset=name) for row in study.comparison.rows if row.dataset == "guarded")
        return _dataset_label(replace(study.comparison, rows=rows), name)

    assert label("cisi") == "cisi\n(guard)"
    assert label("python:stdlib?limit=1000") == "python:stdlib?limit=\n1000\n(guard)"
    lines = label("a" * 200).splitlines()
    assert (len(lines), max(map(len, lines)), lines[2]) == (4, 20, "…")


def test_weights_are_written_beside_the_chosen_epoch_alone_and_never_over_each_other(study: ReportData) -> None:
    point = replace(study.selections[0].points[0], chosen=False)
    points = [replace(point, epoch=epoch, weight=weight, gain=4 * weight) for epoch in (1, 2) for weight in (0.5, 1.0)]
    points += [
        replace(point, epoch=2, weight=0.75, gain=3.0, chosen=True),
        replace(point, epoch=2, weight=0.8, gain=3.1),
    ]
    selection = replace(study.selections[0], points=tuple(points))
    found = _labelled(selection, points, guarded=False)
    assert [(one.epoch, one.weight, place) for one, place in found] == [
        (2, 0.75, (0.75, 3.0)),
        (2, 0.5, (0.5, 2.0)),
        (2, 1.0, (1.0, 4.0)),
    ]
