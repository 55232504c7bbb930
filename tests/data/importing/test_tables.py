"""Encodings are found and said, and what is wrong with a table is one line that says where and what to do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ranksaga.data.importing.assemble import assemble
from ranksaga.data.importing.columns import Columns, assign
from ranksaga.data.importing.importer import Options, describe, understand
from ranksaga.data.importing.tables import read_table
from ranksaga.data.importing.text_files import decode
from ranksaga.errors import RankSagaError, UsageError

TEXT = "question,answer\nWo ist Köln?,Am Rhein – weit\n"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (TEXT.encode(), "UTF-8"),
        (TEXT.encode("utf-8-sig"), "UTF-8 with BOM"),
        (TEXT.encode("utf-16"), "UTF-16"),
        (TEXT.encode("utf-16-be"), "UTF-16 without BOM"),
        (TEXT.encode("utf-32"), "UTF-32"),
        (TEXT.encode("cp1252"), "Windows-1252 (cp1252), as line 2 is not UTF-8"),
        (gzip.compress(TEXT.encode()), "UTF-8"),
    ],
    ids=("utf-8", "bom", "utf-16", "utf-16-be", "utf-32", "cp1252", "gzip"),
)
def test_an_encoding_is_found_and_said(raw: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(raw)
    table = read_table(tmp_path / "x.csv")
    assert table.columns == ("question", "answer")
    assert table.records == [{"question": "Wo ist Köln?", "answer": "Am Rhein – weit"}]
    assert table.format == f"CSV, {said}, comma between cells"


def test_an_encoding_is_given() -> None:
    assert decode("Łódź".encode("cp1250"), "x", "cp1250") == ("Łódź", "cp1250")


def test_blank_rows_are_counted_and_quotes_in_tabs_are_text(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('q\ta\n5" disk\t"yes" she said\n\n \t\nlast\tone\n')
    table = read_table(tmp_path / "x.tsv")
    assert [dict(record) for record in table.records] == [
        {"q": '5" disk', "a": '"yes" she said'},
        {"q": "last", "a": "one"},
    ]
    assert table.empty == 2
    assert list(table.places) == ["2", "5"]
    assert table.format.endswith("quotation marks as text")


def test_excels_line_about_the_delimiter_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("sep=;\nq;a,b\n1;2\n")
    table = read_table(tmp_path / "x.csv")
    assert (table.columns, table.records, list(table.places)) == (("q", "a,b"), [{"q": "1", "a,b": "2"}], ["3"])


def test_what_is_shown_commands_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"question": "a\\u001b[2Jb", "answer": "\\ud800c", "x\\ny": "d"}]')
    shown = describe(understand(str(tmp_path / "x.json"), Options(tokens=lambda: pytest.fail("nothing is cut"))))
    assert "query: a\\x1b[2Jb" in shown
    assert "relevant: \\ud800c" in shown
    assert "columns not used: x\\ny" in shown
    assert shown.encode()


def test_a_cell_of_many_lines_keeps_the_number_of_its_first(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('q,a\r\n"one\r\ntwo",x\r\nthree,y\r\n', newline="")
    table = read_table(tmp_path / "x.csv")
    assert list(table.places) == ["2", "4"]
    assert table.records[0]["q"] == "one\r\ntwo"


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "missing column": ("x.csv", b"frage,antwort\na,b\n", "no column looks like the query; name it with --query"),
    "empty": ("x.csv", b"", "is empty"),
    "blank": ("x.csv", b" \n\n", "is empty"),
    "header only": ("x.csv", b"question,answer\n", "a header and no row"),
    "two of a name": ("x.csv", b"question,question,answer\na,b,c\n", "two columns are called 'question'"),
    "too many cells": ("x.csv", b"question,answer\na,b\nc,d,e\n", "x.csv:3: 3 cells, and the header has 2"),
    "open quotation": ("x.csv", b'question,answer\na,"b\nc,d\n', "x.csv:2: unexpected end of data"),
    "a workbook by name only": ("x.csv", b"PK\x03\x04....", "an Excel workbook"),
    "zero bytes": ("x.csv", b"question,answer\na,\0\0\0b\n", "zero bytes"),
    "no encoding": ("x.csv", b"question,answer\na,\x81\n", "x.csv:2: byte 0x81 is neither UTF-8 nor Windows-1252"),
    "cut gzip": ("x.csv.gz", gzip.compress(b"question,answer\na,b\n")[:-9], "broken gzip"),
    "no pair": ("x.csv", b"question,answer\na,\n,b\n", "no row has both"),
    "score": ("x.csv", b"question,answer,score\na,b,0.7\n", "x.csv:2: the score is '0.7', expected an integer"),
    "huge score": ("x.csv", b"question,answer,score\na,b,1e30\n", "expected an integer"),
    "split": ("x.csv", b"question,answer,split\na,b,train\nc,d,later\n", "x.csv:3: the split is 'later'"),
    "broken JSON": ("x.json", b'[{"question": "a", ]', "x.json:1: broken JSON"),
    "broken line": ("x.jsonl", b'{"question": "a", "answer": "b"}\n{"question": \n', "x.jsonl:2: broken JSON"),
    "deep JSON": ("x.json", b"[" * 200_000, "broken JSON"),
    "a number": ("x.json", b"7", "found int, expected a list of objects"),
    "list of texts": ("x.json", b'["a", "b"]', "item 1: found str, expected one object"),
    "objects in a cell": (
        "x.json",
        b'[{"question": "a", "answer": [{"text": "b"}]}]',
        "answer holds objects (answer.text)",
    ),
    "two queries a row": ("x.json", b'[{"question": ["a", "b"], "answer": "c"}]', "expected one query a row"),
    "no Parquet": ("x.parquet", b"PAR1nothing", "no Parquet file that can be read"),
    "no workbook": ("x.xlsx", b"PK\x03\x04nothing", "no workbook that can be read"),
    "id of two texts": (
        "x.csv",
        b"id,question,answer\n1,a,b\n1,c,d\n",
        "the document id '1' names two texts ('b' and 'd')",
    ),
    "ending": ("x.docx", b"PK\x03\x04....", "a file of this ending cannot be imported"),
    "one text": ("x.md", b"# Words\n", "name the folder"),
    "no qrels": ("x.sgml", b"<DOC><DOCNO>1</DOCNO>a</DOC>", "--topics and --qrels"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_source_is_one_line(case: str, tmp_path: Path) -> None:
    name, raw, said = BROKEN[case]
    if name.endswith("xlsx"):
        pytest.importorskip("openpyxl")
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(RankSagaError) as raised:
        assemble(understand(str(tmp_path / name), Options(tokens=lambda: pytest.fail("nothing is cut"))), "x")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("name", ["gone.csv", "irds", "./gone"])
def test_what_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RankSagaError, match="there is no such file or folder"):
        understand(name, Options(tokens=lambda: pytest.fail("nothing is cut")))


def test_a_column_that_is_not_there_names_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as raised:
        assign("x.csv", ["Frage", "Antwort"], Columns(query="frag"), needed=("query",))
    assert str(raised.value) == "x.csv: there is no column 'frag'; did you mean 'Frage'? It has: 'Frage', 'Antwort'"


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("Question|Answer", ("Question", "Answer", "", "")),
        ("_id|query|positive|negative", ("query", "positive", "", "_id")),
        ("sentence1|sentence2|label", ("sentence1", "sentence2", "", "")),
        ("User Query|Doc ID|title|text", ("User Query", "text", "title", "Doc ID")),
        ("question|context|answers.text|answers.answer_start", ("question", "answers.text", "", "")),
    ],
)
def test_columns_are_detected(names: str, roles: tuple[str, ...]) -> None:
    columns = assign("x", names.split("|"), Columns(), needed=("query", "document"))
    assert (columns.query, columns.document, columns.title, columns.id) == roles


SHAPES: dict[str, Callable[[list[dict[str, str]]], object]] = {
    "list": lambda rows: rows,
    "data": lambda rows: {"version": 2, "data": rows},
    "columns": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "by key": lambda rows: {f"k{number}": row for number, row in enumerate(rows)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_of_json(shape: str, tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "b\u2028c"}, {"question": "d", "answer": "e"}]
    (tmp_path / "x.json").write_text(json.dumps(SHAPES[shape](rows), ensure_ascii=False))
    table = read_table(tmp_path / "x.json")
    assert [{name: row[name] for name in ("question", "answer")} for row in table.records] == rows
