"""The HTML report: whole in one file, silent on the network, and safe with foreign text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ranksaga.report.data import ReportData
from ranksaga.report.html import html_text

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Collects what the tests ask about and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action"):
                self.addresses.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def source(study: ReportData) -> str:
    return html_text(study)


def test_the_page_is_well_formed_and_asks_for_nothing(source: str) -> None:
    page = Page(source)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    # The only addresses are names of the SVG vocabulary, which nobody fetches.
    assert set(re.findall(r"https?://[^\s\"'<)]+", source)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in source
    assert not re.search(r"@import|url\((?!#)", source)


def test_the_page_has_every_part(source: str) -> None:
    page = Page(source)
    assert page.tags["svg"] == 3
    assert page.tags["h1"] == 1
    for words in (
        "best improved nDCG@10 on 2 of 2 datasets, 2 of them significantly (mean change +56.2%).",
        "Results by dataset",
        "Leakage audit",
        "scored one",
        "The largest gain that keeps the guard.",
        "Largest wins",
        "v1 was capped at 100 steps | of 900.",
        "2.13.0",
    ):
        assert words in page.text


def test_foreign_text_stays_text(source: str) -> None:
    page = Page(source)
    assert page.tags["script"] == 1
    assert "what is <script>alert(1)</script> & why" in page.text
    assert "A study of <two> sets" in page.text


def test_texts_can_be_left_out(study: ReportData) -> None:
    page = Page(html_text(replace(study, texts=False)))
    for words in ("what is", "scored one", "seen"):
        assert words not in page.text
    assert "Largest wins" in page.text
    assert "a near-copy in training" in page.text


def test_an_empty_section_is_not_shown(study: ReportData) -> None:
    bare = replace(study, leakage=(), selections=(), notes=(), recipe="", facts=())
    page = Page(html_text(bare))
    assert page.tags["svg"] == 2
    for words in ("Leakage", "Selection", "Recipe"):
        assert words not in page.text


@pytest.mark.slow
def test_the_verdict_is_not_painted_green_when_the_base_ships(study: ReportData, nothing_shipped: ReportData) -> None:
    assert '<section class="verdict good"' in html_text(study)
    assert '<section class="verdict bad"' in html_text(nothing_shipped)
    assert '<section class="verdict neutral"' in html_text(replace(study, shipped="baseline"))
