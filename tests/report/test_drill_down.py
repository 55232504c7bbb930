"""Single queries in the page: which are kept, what they hold, and that nothing in them can leave the script."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ranksaga.report.data import ReportData
from ranksaga.report.drill_down import QueryDetail, SystemDetail, drill_down
from ranksaga.report.html import html_text


def detail(query: str, base: float, best: float, *, dataset: str = "alpha", text: str = "what?") -> QueryDetail:
    systems = (SystemDetail("baseline", base, ("d1", "d2")), SystemDetail("best", best, ("d2", "d3")))
    return QueryDetail(dataset, query, text, ("d2",), systems)


DETAILS = (detail("q1", 0.5, 0.625), detail("q2", 0.5, 0.25, dataset="beta"), detail("q3", 0.5, 0.5))
DOCUMENTS = {("alpha", "d1"): "one", ("alpha", "d2"): "two", ("beta", "d2"): "another two", ("gone", "d9"): "unused"}


def test_the_queries_that_changed_most_come_first_with_all_that_is_shown() -> None:
    found = drill_down(DETAILS, DOCUMENTS)
    assert (found.shown, found.total, found.datasets, found.systems) == (3, 3, ("alpha", "beta"), ("baseline", "best"))
    assert json.loads(found.json) == {
        "datasets": ["alpha", "beta"],
        "systems": ["baseline", "best"],
        "queries": [
            [1, "q2", "what?", ["d2"], {"0": [0.5, ["d1", "d2"]], "1": [0.25, ["d2", "d3"]]}],
            [0, "q1", "what?", ["d2"], {"0": [0.5, ["d1", "d2"]], "1": [0.625, ["d2", "d3"]]}],
            [0, "q3", "what?", ["d2"], {"0": [0.5, ["d1", "d2"]], "1": [0.5, ["d2", "d3"]]}],
        ],
        "documents": {"0 d1": "one", "0 d2": "two", "1 d2": "another two"},
    }


@pytest.mark.parametrize("cap", [300, 2_000, 20_000])
def test_the_size_is_bounded_and_what_is_left_out_is_counted(cap: int) -> None:
    many = [detail(f"q{row}", 0.5, row / 100, text="word " * 99) for row in range(100)]
    found = drill_down(many, DOCUMENTS, cap=cap)
    assert len(found.json) <= cap
    assert found.total == 100
    assert found.shown < 100
    kept = json.loads(found.json)["queries"]
    assert len(kept) == found.shown
    assert all(len(query[2]) <= 300 for query in kept)
    if kept:
        assert kept[0][1] == "q0"  # from 0.5 to 0


def test_without_texts_only_ids_and_figures_stay() -> None:
    found = drill_down(DETAILS, DOCUMENTS, texts=False)
    assert "what?" not in found.json
    assert json.loads(found.json)["documents"] == {}
    assert found.shown == 3


HOSTILE = "</script><script>alert(1)</script><!-- & \u2028 \u2029 ' \" \\ \x00 é"


def test_foreign_text_cannot_leave_the_script(study: ReportData) -> None:
    odd = replace(detail(HOSTILE, 0.5, 0.75, text=HOSTILE, dataset=HOSTILE), gold=(HOSTILE,))
    source = html_text(replace(study, details=(odd,), documents={(HOSTILE, "d1"): HOSTILE}))

    class Scripts(HTMLParser):
        count = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.count += tag == "script"

    page = Scripts()
    page.feed(source)
    assert page.count == 1
    match = re.search(r"const DETAILS = (.*);", source)
    assert match is not None
    stored = match[1]
    assert not set("<>&") & set(stored)
    assert stored.isascii()
    read = json.loads(stored)
    assert read["queries"][0][1] == HOSTILE
    assert read["documents"]["0 d1"] == " ".join(HOSTILE.split())


def test_a_page_says_how_many_queries_it_leaves_out(study: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    assert '<section id="explore"' not in html_text(study)
    whole = html_text(replace(study, details=DETAILS, documents=DOCUMENTS))
    assert "queries that changed most are in this page" not in whole
    monkeypatch.setattr(drill_down, "__kwdefaults__", {"texts": True, "cap": 300})
    part = html_text(replace(study, details=DETAILS, documents=DOCUMENTS))
    assert re.search(r"The [12] of 3 queries that changed most are in this page", part)
