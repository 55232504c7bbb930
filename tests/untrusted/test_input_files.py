"""Folders with what does not belong there: FIFOs, devices, other systems' files, names that are no text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksaga.data.beir import count_beir, read_beir
from ranksaga.data.build import build, build_python
from ranksaga.data.check import check_beir
from ranksaga.data.resolve import check_name, load_dataset
from ranksaga.encode.models import load_model, locate
from ranksaga.errors import DataError, ModelError
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.evaluate.per_query import evaluation_json, evaluation_of, read_evaluations, write_evaluation
from ranksaga.files import file_name, hash_json
from ranksaga.run.model_comparison import compare_results
from ranksaga.untrusted import input_files
from ranksaga.untrusted.input_files import bounded_lines, decoded, open_regular

FUNCTION = 'def f(x):\n    """Describe the thing in words."""\n    y = x\n    return y\n'
NOT_TEXT = os.fsdecode(b"name-\xff")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "small"
    (place / "qrels").mkdir(parents=True)
    (place / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "T", "text": "one"}\n{"_id": "d2", "text": "two"}\n', encoding="utf-8"
    )
    (place / "queries.jsonl").write_text('{"_id": "q1", "text": "which"}\n', encoding="utf-8")
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", encoding="utf-8")
    return place


def test_files_of_macos_are_no_splits(folder: Path) -> None:
    expected = read_beir(folder).fingerprint, count_beir(folder)
    (folder / "qrels" / "._test.tsv").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    (folder / "qrels" / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    assert (read_beir(folder).fingerprint, count_beir(folder)) == expected
    assert [finding.code for finding in check_beir(folder)] == ["too-few-queries"]


def test_windows_line_ends_and_a_mark_change_nothing(folder: Path) -> None:
    expected = read_beir(folder).fingerprint
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_beir(folder).fingerprint == expected


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
@pytest.mark.parametrize("make", [_fifo, _device, _folder])
def test_a_dataset_is_of_regular_files(make: Callable[[Path], None], name: str, folder: Path) -> None:
    make(folder / name)
    with pytest.raises(DataError, match="expected a regular file"):
        read_beir(folder)
    with pytest.raises(DataError, match=r"expected a regular file|the file is missing"):
        count_beir(folder)
    assert any(finding.level == "error" for finding in check_beir(folder))


LINES = {
    "a tab in an id": (b'{"_id": "d1\\t1\\t9", "text": "x"}', "tab or line break"),
    "a line end in an id": (b'{"_id": "d1\\nq2 Q0 d7 1 9 x", "text": "x"}', "tab or line break"),
    "a key twice": (b'{"_id": "d3", "text": "x", "text": "y"}', "'text' stands twice"),
    "NaN": (b'{"_id": "d3", "text": "x", "n": NaN}', "NaN"),
    "digits": (b'{"_id": "d3", "text": "x", "n": ' + b"9" * 5000 + b"}", "5000 digits"),
    "depth": (b'{"_id": "d3", "text": "x", "n": ' + b"[" * 50_000 + b"}", "nested"),
    "half a character": (b'{"_id": "d3", "text": "\\ud800"}', "half of a character"),
    "half a character in an id": (b'{"_id": "\\ud800", "text": "x"}', "half of a character"),
    "Latin-1": (b'{"_id": "d3", "text": "\xe9"}', "0xe9"),
    "a number as a title": (b'{"_id": "d3", "title": 1, "text": "x"}', "title is a number"),
    "a long id": (b'{"_id": "' + b"d" * 9999 + b'"}', "there is no text"),
    "one id in TREC files": (b'{"_id": "a b", "text": "x"}\n{"_id": "a%20b", "text": "x"}', "one in TREC files"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_hostile_line_is_one_short_message(case: str, folder: Path) -> None:
    line, message = LINES[case]
    with (folder / "corpus.jsonl").open("ab") as stream:
        stream.write(line + b"\n")
    with pytest.raises(DataError) as caught:
        read_beir(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_utf_16_is_said(folder: Path) -> None:
    text = (folder / "queries.jsonl").read_text()
    (folder / "queries.jsonl").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match=r"queries.jsonl:1: this is UTF-16"):
        read_beir(folder)


def test_a_line_without_end_does_not_fill_the_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"ab\n" + b"x" * 11)
    with open_regular(path) as stream:
        assert list(bounded_lines(stream, 11)) == [b"ab\n", b"x" * 11]
    with open_regular(path) as stream, pytest.raises(ValueError, match="more than"):
        list(bounded_lines(stream, 10))
    monkeypatch.setattr(input_files.bounded_lines, "__defaults__", (50,))
    (folder / "corpus.jsonl").open("a").write("x" * 60)
    with pytest.raises(DataError, match=r"corpus.jsonl:3: a line of more than"):
        read_beir(folder)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@pytest.mark.slow
@given(
    st.lists(
        st.fixed_dictionaries({}, optional={"_id": JSON_LIKE, "title": JSON_LIKE, "text": JSON_LIKE, "x": JSON_LIKE})
        | JSON_LIKE,
        max_size=4,
    ),
    st.binary(max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_any_corpus_is_read_as_python_reads_it_or_refused(records: list[Any], noise: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "drawn")
        (place / "qrels").mkdir(parents=True)
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        for content in (lines, lines + noise):
            (place / "corpus.jsonl").write_bytes(content)
            (place / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n')
            first = next(
                (one["_id"] for one in records if isinstance(one, dict) and isinstance(one.get("_id"), str)), ""
            )
            (place / "qrels" / "test.tsv").write_bytes(f"query-id\tcorpus-id\tscore\nq\t{first}\t1\n".encode())
            try:
                dataset = read_beir(place)
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017
                continue
            theirs = [json.loads(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()]
            ours = zip(dataset.corpus.ids, dataset.corpus.titles, dataset.corpus.texts, strict=True)
            assert list(ours) == [(one["_id"], one.get("title") or "", one["text"]) for one in theirs]


@given(st.binary(max_size=60) | st.text(st.sampled_from('q1d\t\r\n "-2x\ufeff')).map(lambda text: text.encode()))
@settings(max_examples=60, deadline=None)
def test_any_judgments_are_read_as_lines_of_three_cells_or_refused(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "drawn")
        (place / "qrels").mkdir(parents=True)
        (place / "corpus.jsonl").write_text('{"_id": "d", "text": "x"}\n{"_id": "1", "text": "x"}\n')
        (place / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n{"_id": "1", "text": "x"}\n')
        content = b"query-id\tcorpus-id\tscore\n1\t1\t1\n" + content
        (place / "qrels" / "test.tsv").write_bytes(content)
        try:
            dataset = read_beir(place)
        except DataError:
            return
        rows = [line.rstrip("\r\n").split("\t") for line in decoded(content).split("\n")[1:] if line.strip()]
        expected = {(query, document): max(int(score), 0) for query, document, score in rows}
        judged = dataset.qrels["test"]
        columns = zip(judged.queries, judged.documents, judged.scores.tolist(), strict=True)
        assert {(dataset.queries.ids[q], dataset.corpus.ids[d]): score for q, d, score in columns} == expected


def test_a_source_tree_with_special_files_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    tree = tmp_path / "tree"
    (tree / NOT_TEXT).mkdir(parents=True)
    (tree / "good.py").write_text(FUNCTION)
    expected = build_python(tree).fingerprint
    os.mkfifo(tree / "f.py")
    (tree / "zero.py").symlink_to("/dev/zero")
    (tree / "gone.py").symlink_to("nowhere.py")
    (tree / f"{NOT_TEXT}.py").write_text(FUNCTION)
    (tree / NOT_TEXT / "a.py").write_text(FUNCTION)
    (tree / "._good.py").write_bytes(b"\x00\x05\x16\x07")
    (tree / "codec.py").write_text("# coding: zlib_codec\n" + FUNCTION)
    (tree / "utf7.py").write_text("# coding: utf-7\n" + FUNCTION.replace("y = x", "y = '+2AA-'"))
    (tree / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    (tree / "chain.py").write_text("if a:\n  pass\n" + "elif a:\n  pass\n" * 3000)
    assert build_python(tree).fingerprint == expected
    assert build(f"python:{tree}").fingerprint == expected


@pytest.mark.parametrize("name", [NOT_TEXT, "a\0b", "a\nb", "\x1b[2J", "a\u2028b"])
def test_a_name_that_cannot_be_written_is_refused_before_anything_is_done(name: str, folder: Path) -> None:
    for refused in (load_dataset, check_name):
        with pytest.raises(DataError, match="UTF-8 text without control characters"):
            refused(name)
    with pytest.raises(ModelError, match="UTF-8 text without control characters"):
        locate(name)
    if "\0" not in name:
        place = folder.rename(folder.with_name(name))
        with pytest.raises(DataError, match="rename the folder"):
            read_beir(place)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_a_long_name_is_one_short_line(name: str) -> None:
    for refused, error in ((load_dataset, DataError), (check_name, DataError), (locate, ModelError)):
        if refused is locate and "/" not in name:
            continue  # it could be one of the hub
        with pytest.raises(error) as caught:
            refused(name)
        assert len(str(caught.value)) < 2000


def test_names_of_files_fit_a_file_system_and_differ() -> None:
    names = ["é" * 100, "中" * 100, "中" * 101, "\udcff", "a/b", "..", "a" * 300]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(len(f"rankings.{one}.json".encode()) <= 255 for one in made)
    assert file_name("plain-1.0_x") == "plain-1.0_x"
    assert hash_json("\udcff") != hash_json("\udcfe")


def test_a_model_folder_holds_regular_files_and_its_own_modules(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match=r"'tokenizer.json' is a FIFO"):
        load_model(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    for path in ("/", "../other", "a/../../b"):
        (tmp_path / "modules.json").write_text(json.dumps([{"path": path, "type": "x"}]))
        with pytest.raises(ModelError, match="outside the model's folder"):
            load_model(str(tmp_path))


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "null", '{"a": NaN}', "\udcff", '{"model_type": []}'])
@pytest.mark.parametrize("name", ["config.json", "modules.json", "config_sentence_transformers.json"])
def test_a_hostile_configuration_is_one_line(content: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def evaluation() -> Evaluation:
    return Evaluation("a", "test", "s", ("q1", "q2"), {"ndcg_at_10": np.array([0.5, 1.0])})


@pytest.mark.parametrize(
    "change",
    [
        {"query_ids": "ab"},
        {"query_ids": ["q1", "q\n2"]},
        {"query_ids": ["q1", "\ud800"]},
        {"query_ids": []},
        {"dataset": "a\x1b[2J"},
        {"dataset": ["a"]},
        {"out_of_fold": "no"},
        {"out_of_fold": 1},
        {"values": {}},
        {"values": {"ndcg_at_10": ["0.5", "1"]}},
        {"values": {"ndcg_at_10": [True, False]}},
        {"values": {"ndcg_at_10": [[0.5], [1]]}},
        {"values": {"ndcg_at_10": {"0": 1}}},
        {"values": {"ndcg_at_10": [10**400, 0]}},
        {"values": {"a\nb": [0.5, 1]}},
        {"values": [["ndcg_at_10", [0.5, 1]]]},
        {"dataset_fingerprint": 5},
        {"encoder": "x", "dataset_fingerprint": "f"},
    ],
)
def test_results_of_other_types_are_no_results(change: dict[str, object]) -> None:
    stored = {**evaluation_json(evaluation()), **change}
    with pytest.raises(ValueError, match=r"."):
        evaluation_of(stored)


@given(JSON_LIKE | st.fixed_dictionaries(dict.fromkeys(evaluation_json(evaluation()), JSON_LIKE)))
@settings(max_examples=60, deadline=None)
def test_any_json_is_an_evaluation_or_a_value_error(stored: Any) -> None:
    try:
        read = evaluation_of(stored)
    except ValueError:
        return
    assert evaluation_json(read)["query_ids"] == stored["query_ids"]


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b"1", b'"x"', b"{}", b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}', b"{", b"", "{}".encode("utf-16")],
)
def test_compare_on_other_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a" / "per_query", evaluation())
    (tmp_path / "b" / "per_query").mkdir(parents=True)
    (tmp_path / "b" / "per_query" / "a.json").write_bytes(content)
    with pytest.raises(DataError, match="benchmark that model again") as caught:
        compare_results(tmp_path / "a", tmp_path / "b")
    assert "\n" not in str(caught.value)


def test_compare_leaves_macos_files_and_refuses_fifos(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation())
    (tmp_path / "._a.json").write_bytes(b"\x00\x05\x16\x07")
    assert len(read_evaluations(tmp_path, "s", remedy="-")) == 1
    os.mkfifo(tmp_path / "b.json")
    with pytest.raises(DataError, match="FIFO"):
        read_evaluations(tmp_path, "s", remedy="-")
