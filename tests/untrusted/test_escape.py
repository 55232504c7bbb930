"""Foreign text on its way out, read back by a parser of each kind of output."""

from __future__ import annotations

import csv
import io
import re
import runpy
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksaga.compare.comparison import compare
from ranksaga.data.leakage import LeakageExample, LeakageFinding
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.report.data import CurvePoint, Facts, ReportData, Selection
from ranksaga.report.html import html_text
from ranksaga.report.markdown import markdown_text
from ranksaga.report.tables import csv_text
from ranksaga.report.write import write_report
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.trec import write_run
from ranksaga.untrusted.escape import (
    code_block,
    csv_cell,
    markdown,
    one_line,
    printable,
    public_url,
    trec_id,
    without_secrets,
)
from ranksaga.untrusted.yaml_input import dump_yaml, read_yaml

HOSTILE: tuple[str, ...] = runpy.run_path(str(Path(__file__).with_name("hostile_texts.py")))["HOSTILE"]
# Drawing a chart of all of them would take long, so some stand in one name.
NAMES = (*HOSTILE[:8], *(" ".join(HOSTILE[8 + row :: 3]) for row in range(3)))
ACTS = {"Cc", "Cs", "Zl", "Zp"}
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
ANY = st.text() | st.sampled_from(HOSTILE) | st.tuples(st.sampled_from(HOSTILE), st.text()).map("".join)


def acts(character: str) -> bool:
    """Whether a character does something on a terminal, by the Unicode database."""
    if character in "\t\n":
        return False
    return unicodedata.category(character) in ACTS or unicodedata.bidirectional(character) in BIDI


@given(ANY | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
@settings(max_examples=100, deadline=None)
def test_nothing_printed_acts(text: str) -> None:
    shown = printable(text)
    assert not any(map(acts, shown))
    shown.encode()
    assert len(one_line(text).splitlines()) <= 1
    if not any(map(acts, text)) and not any(unicodedata.category(one) == "Cf" for one in text):
        assert shown == text


def test_every_character_of_unicode_that_acts_is_shown_as_an_escape() -> None:
    for code in range(0x110000):
        if acts(chr(code)):
            assert printable(chr(code)).isascii(), hex(code)


@given(ANY)
@settings(max_examples=100, deadline=None)
def test_markdown_shows_the_text(text: str) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for page in (markdown(text), f"# {markdown(text)}", f"| a | b |\n|---|---|\n| {markdown(text)} | x |"):
        tokens = parser.parse(page)
        inline = [token for token in tokens if token.type == "inline"]
        kinds = {child.type for token in inline for child in token.children or ()}
        assert kinds <= {"text", "text_special"}, (page, kinds)
        blocks = {token.type for token in tokens} - {"inline"}
        expected = {"paragraph", "heading", "table", "thead", "tbody", "tr", "th", "td"}
        assert {block.rsplit("_", 1)[0] for block in blocks} <= expected, (page, blocks)
        shown = (
            "".join(child.content for child in (inline[-2 if "|" in page[:1] else -1].children or ())) if inline else ""
        )
        assert shown == printable(" ".join(text.split())), page


@given(ANY, st.sampled_from(["", "yaml"]))
@settings(max_examples=100, deadline=None)
def test_no_text_closes_a_block_of_code(text: str, language: str) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    tokens = markdown_it.MarkdownIt("commonmark").parse(f"{code_block(text, language)}\n\nafter")
    assert [token.type for token in tokens][:2] == ["fence", "paragraph_open"]
    assert tokens[0].content.rstrip() == printable(text).rstrip()


@given(ANY)
@settings(max_examples=100, deadline=None)
def test_no_cell_is_a_formula_and_each_comes_back(text: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow([csv_cell(text), "1"])
    ((cell, other),) = csv.reader(io.StringIO(stream.getvalue()))
    assert other == "1"
    assert cell[:1] not in set("=+-@\t\r\n＝＋－＠")
    assert cell.removeprefix("'") == one_line(text)


@given(st.lists(ANY.filter(str.strip), min_size=2, max_size=6, unique_by=trec_id))
@settings(max_examples=100, deadline=None)
def test_no_id_forges_a_line_of_a_run(ids: list[str]) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval is not installed (extra [dev])")
    import tempfile

    ids = [one.encode("utf-8", "replace").decode() for one in ids]
    if len(set(map(trec_id, ids))) < len(ids):
        return
    count = len(ids)
    rankings = Rankings(
        np.array([0], dtype=np.int32),
        np.arange(count, dtype=np.int32)[None],
        -np.arange(count, dtype=np.float32)[None],
    )
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder, "a.trec"), rankings, ids, ids, tag="x")
        with Path(folder, "a.trec").open(encoding="utf-8") as stream:
            read = pytrec_eval.parse_run(stream)
    assert read == {trec_id(ids[0]): {trec_id(one): -float(row) for row, one in enumerate(ids)}}
    for one in ids:
        assert trec_id(one) == one or unquote(trec_id(one)) == one


def hostile_report(texts: tuple[str, ...]) -> ReportData:
    """A report in which everything that can come from outside is hostile."""

    def measured(system: str, level: float) -> list[Evaluation]:
        ids = tuple(f"{text}{row}" for row, text in enumerate(HOSTILE))
        values = {"ndcg_at_10": np.full(len(ids), level), "recall_at_100": np.full(len(ids), 0.5)}
        return [Evaluation(name, "test", system, ids, values) for name in texts]

    comparison = compare(measured("baseline", 0.25), [*measured("best", 0.5)], guards={texts[0]}, rounds=99)
    all_texts = " ".join(HOSTILE)
    return ReportData(
        title=all_texts,
        comparison=comparison,
        headline="best",
        shipped="baseline",
        shipped_reason=all_texts,
        selections=(
            Selection("best", (CurvePoint(1, 0.5, None, 1.0, None, dict.fromkeys(texts, 1.0), {}),), all_texts),
        ),
        leakage=tuple(LeakageFinding(text, text, 1, 2, 3, (LeakageExample(text, text, 0.9),)) for text in texts),
        notes=texts,
        recipe=dump_yaml({"prompts": list(HOSTILE)}),
        facts=(Facts("Model", tuple((text, text) for text in texts)),),
        query_texts={(name, f"{text}{row}"): text for name in texts for row, text in enumerate(HOSTILE)},
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_report_full_of_hostile_texts_is_a_report(tmp_path: Path) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    plain = hostile_report(tuple(f"name {row}" for row in range(len(NAMES))))
    plain = replace(plain, title="t", shipped_reason="r", recipe="", query_texts=dict.fromkeys(plain.query_texts, "x"))
    data = hostile_report(NAMES)
    write_report(data, tmp_path)

    page, ordinary = Page(), Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    ordinary.feed(html_text(plain))
    assert sum(tag == "script" for tag, _ in page.tags) == sum(tag == "script" for tag, _ in ordinary.tags)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in ordinary.tags} | {"pre", "code"}
    assert not any(name.startswith("on") or name in ("srcdoc", "src") for _, found in page.tags for name in found)
    shown = "".join(page.texts)
    for text in HOSTILE:
        assert printable(text) in shown

    text = (tmp_path / "comparison_report.md").read_text(encoding="utf-8")
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close", "image"}
    images = [child for token in tokens for child in token.children or () if child.type == "image"]
    assert {image.attrs["src"] for image in images} == {"comparison_visualization.png", "selection_best.png"}
    assert [token.info for token in tokens if token.type == "fence"] == ["yaml"]
    expected = [token.type for token in parser.parse(markdown_text(plain, selection_charts=("selection_best.png",)))]
    assert [token.type for token in tokens if token.type.startswith("tr")].count("tr_open") == expected.count("tr_open")
    assert [token.type for token in tokens].count("heading_open") == expected.count("heading_open") + 1  # the recipe

    with (tmp_path / "comparison_table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["dataset"].removeprefix("'") for row in rows} == {one_line(text) for text in NAMES}
    assert {None} not in [set(row) for row in rows]
    assert all(float(row["value"]) in (0.25, 0.5) for row in rows)
    assert csv_text(data.comparison).count("\n") == len(rows) + 1
    for name in ("report.html", "comparison_report.md", "comparison_table.csv"):
        assert not any(map(acts, (tmp_path / name).read_text(encoding="utf-8"))), name


def test_front_matter_cannot_be_forged() -> None:
    for text in HOSTILE:
        head = dump_yaml({"base_model": text, "tags": [text]})
        values = {"base_model": text, "tags": [text]}
        assert read_yaml(head).value == yaml.safe_load(head) == values
        assert not re.search(r"^(---|\.\.\.)", head, re.MULTILINE)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a", "https://host/a"),
        ("https://user:pass@host:80/a", "https://***@host:80/a"),
        ("https://token@host/a?sig=s#f", "https://***@host/a?***"),
        ("http://[::1", "***"),
        ("https://u:p@x@host/", "https://***@host/"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert public_url(url) == shown


def test_messages_are_without_secrets() -> None:
    environment = {"HF_TOKEN": "hf_abcdefgh", "MY_PASSWORD": "p4ssw0rdp4ss", "PATH": "/usr/local", "API_TOKEN": "x"}
    text = "hf_abcdefgh at https://me:p4ssw0rd@host/x?token=1, /usr/local, p4ssw0rdp4ss, python:stdlib?limit=1 x"
    assert without_secrets(text, environment) == (
        "*** at https://***@host/x?***, /usr/local, ***, python:stdlib?limit=1 x"
    )
