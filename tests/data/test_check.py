from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ranksaga.data.beir import count_beir, read_beir
from ranksaga.data.check import check_beir
from ranksaga.errors import DataError

HEADER = "query-id\tcorpus-id\tscore\n"


def append(name: str, text: str | bytes) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        with (folder / name).open("ab") as stream:
            stream.write(text if isinstance(text, bytes) else text.encode())

    return act


def write(name: str, text: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return act


def remove(*names: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return act


# What is broken: (how, code, the line that a person reads after the folder's path).
BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no corpus": (
        remove("corpus.jsonl"),
        "missing-file",
        "corpus.jsonl: there is no such file; a dataset needs corpus.jsonl and queries.jsonl",
    ),
    "no queries": (
        remove("queries.jsonl"),
        "missing-file",
        "queries.jsonl: there is no such file; a dataset needs corpus.jsonl and queries.jsonl",
    ),
    "no qrels": (
        remove("qrels/test.tsv", "qrels/train.tsv"),
        "missing-file",
        "qrels: there is no qrels/*.tsv; add qrels/test.tsv with the judgments",
    ),
    "empty corpus": (
        write("corpus.jsonl", "\n"),
        "empty-file",
        "corpus.jsonl: there is no document; add one JSON object a line",
    ),
    "empty queries file": (
        write("queries.jsonl", ""),
        "empty-file",
        "queries.jsonl: there is no query; add one JSON object a line",
    ),
    "broken JSON": (
        append("corpus.jsonl", '{"_id": "d4", "text": "cut off'),
        "json",
        "corpus.jsonl:4: broken JSON (Unterminated string starting at: line 1 column 23 (char 22)); "
        "write one JSON object a line",
    ),
    "endless nesting": (
        append("corpus.jsonl", "[" * 100_000),
        "json",
        "corpus.jsonl:4: broken JSON (maximum recursion depth exceeded",
    ),
    "not an object": (
        append("queries.jsonl", '["q4", "text"]\n'),
        "json",
        "queries.jsonl:4: found a list, expected one JSON object with an _id a line",
    ),
    "not UTF-8": (
        append("corpus.jsonl", b'{"_id": "d4", "text": "caf\xe9"}\n'),
        "encoding",
        "corpus.jsonl:4: byte 0xe9 at position 26 is not UTF-8; save the file as UTF-8",
    ),
    "half a character": (
        append("queries.jsonl", '{"_id": "q4", "text": "sun \\ud83c"}\n'),
        "encoding",
        "queries.jsonl:4: the text has \\ud83c, half of a character, which no tokenizer takes; remove it",
    ),
    "duplicate document": (
        append("corpus.jsonl", '{"_id": "d2", "title": "", "text": "again"}\n'),
        "duplicate-id",
        "corpus.jsonl:4: the id 'd2' was used on line 2; ids must differ",
    ),
    "duplicate query": (
        append("queries.jsonl", '{"_id": "q1", "text": "again"}\n'),
        "duplicate-id",
        "queries.jsonl:4: the id 'q1' was used on line 1; ids must differ",
    ),
    "no id": (
        append("corpus.jsonl", '{"id": "d4", "text": "x"}\n'),
        "missing-id",
        "corpus.jsonl:4: there is no _id; give each record an id of its own",
    ),
    "a number for an id": (
        append("queries.jsonl", '{"_id": 4, "text": "x"}\n'),
        "type",
        "queries.jsonl:4: _id is a number, expected text; write it in double quotes",
    ),
    "no text": (
        append("corpus.jsonl", '{"_id": "d4", "title": "x"}\n'),
        "missing-field",
        "corpus.jsonl:4: there is no text; add it",
    ),
    "a list for a text": (
        append("corpus.jsonl", '{"_id": "d4", "text": ["x"]}\n'),
        "type",
        "corpus.jsonl:4: text is a list, expected text; write it in double quotes",
    ),
    "empty query": (
        append("queries.jsonl", '{"_id": "q4", "text": "  "}\n'),
        "empty-query",
        "queries.jsonl:4: query 'q4' has no words; write its text or remove it",
    ),
    "unknown document": (
        append("qrels/test.tsv", "q2\td9\t1\n"),
        "unknown-document",
        "qrels/test.tsv:4: document 'd9' is not in corpus.jsonl; add it or remove this line",
    ),
    "unknown query": (
        append("qrels/test.tsv", "q9\td1\t1\n"),
        "unknown-query",
        "qrels/test.tsv:4: query 'q9' is not in queries.jsonl; add it or remove this line",
    ),
    "fractional score": (
        append("qrels/test.tsv", "q2\td1\t0.5\n"),
        "score",
        "qrels/test.tsv:4: the score is '0.5', expected an integer such as 0, 1 or 2 (0: not relevant)",
    ),
    "score in words": (
        append("qrels/test.tsv", "q2\td1\tyes\n"),
        "score",
        "qrels/test.tsv:4: the score is 'yes', expected an integer such as 0, 1 or 2 (0: not relevant)",
    ),
    "huge score": (
        append("qrels/test.tsv", f"q2\td1\t{2**31}\n"),
        "score",
        f"qrels/test.tsv:4: the score is '{2**31}', expected an integer such as 0, 1 or 2 (0: not relevant)",
    ),
    "two columns": (
        append("qrels/test.tsv", "q2\td1\n"),
        "columns",
        "qrels/test.tsv:4: found 2 columns, expected 3 split by tabs: query-id, corpus-id, score",
    ),
    "header missing": (
        write("qrels/test.tsv", "q1\td1\t1\n"),
        "header",
        "qrels/test.tsv:1: the header is missing; add a first line with query-id, corpus-id, score split by tabs",
    ),
    "wrong header": (
        write("qrels/test.tsv", "qid\tpid\trel\nq1\td1\t1\n"),
        "header",
        "qrels/test.tsv:1: wrong header (qid, pid, rel); expected query-id, corpus-id, score split by tabs",
    ),
    "TREC columns": (
        write("qrels/test.tsv", "q1 0 d1 1\nq2 0 d1 1\n"),
        "header",
        "qrels/test.tsv:1: four columns as in TREC's qrels; expected the header query-id, corpus-id, score split by "
        "tabs, then three columns: drop the second one and add the header",
    ),
    "commas": (
        write("qrels/test.tsv", "query-id corpus-id score\nq1 d1 1\n"),
        "header",
        "qrels/test.tsv:1: the columns are not split by tabs; expected the header query-id, corpus-id, score "
        "split by tabs",
    ),
    "no positives": (
        write("qrels/test.tsv", HEADER + "q1\td1\t0\n"),
        "no-positives",
        "qrels/test.tsv: no judgment has a score above 0; add relevant documents or remove the split",
    ),
    "judged twice, differently": (
        append("qrels/test.tsv", "q1\td1\t0\n"),
        "duplicate-judgment",
        "qrels/test.tsv:4: query 'q1' and document 'd1' were judged on line 2 with another score; keep one of the two",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_dataset_gives_one_clear_line(case: str, folder: Path) -> None:
    act, code, line = BROKEN[case]
    act(folder)
    with pytest.raises(DataError, match=re.escape(f"{folder}/{line}")) as caught:
        read_beir(folder)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    errors = [finding for finding in check_beir(folder) if finding.level == "error"]
    assert errors[0].code == code
    assert str(errors[0]).startswith(line)


def test_a_sound_dataset_has_no_findings(folder: Path) -> None:
    assert check_beir(folder) == []


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; check the path"):
        read_beir(tmp_path / "nowhere")
    assert check_beir(tmp_path / "nowhere")[0].code == "missing-folder"


WARNINGS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "empty document": (
        append("corpus.jsonl", '{"_id": "d4", "title": "", "text": " "}\n'),
        "empty-document",
        "corpus.jsonl:4: document 'd4' has no words; it cannot be found",
    ),
    "spaces in an id": (
        append("corpus.jsonl", '{"_id": "d 4", "title": "", "text": "words"}\n'),
        "space-in-id",
        "corpus.jsonl: ids such as 'd 4' hold spaces: other tools cannot read them in TREC files; avoid them",
    ),
    "judged twice, alike": (
        append("qrels/test.tsv", "q1\td1\t1\n"),
        "duplicate-judgment",
        "qrels/test.tsv:4: query 'q1' and document 'd1' were judged on line 2 with the same score; "
        "this line is ignored",
    ),
    "negative score": (
        append("qrels/test.tsv", "q2\td1\t-1\n"),
        "negative-score",
        "qrels/test.tsv:4: the score -1 is below 0; it counts as 0, not relevant",
    ),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_warnings_do_not_stop_the_reader(case: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    act, code, line = WARNINGS[case]
    act(folder)
    (finding,) = check_beir(folder)
    assert (finding.level, finding.code, str(finding)) == ("warning", code, line)
    assert len(read_beir(folder).split("test").positives) == 2
    assert line in caplog.text


def test_every_problem_is_listed_with_its_line(folder: Path) -> None:
    append("corpus.jsonl", '{"_id": "d1", "text": "again"}\n{"_id": "d5"}\nnonsense\n')(folder)
    append("queries.jsonl", '{"_id": "q4", "text": ""}\n{"text": "no id"}\n')(folder)
    append("qrels/test.tsv", "q9\td9\t1\nq1\td2\tx\nq4\td5\t1\n")(folder)
    write("qrels/train.tsv", "q1\td1\t0\n")(folder)
    assert [(f.file, f.line, f.code) for f in check_beir(folder)] == [
        ("corpus.jsonl", 4, "duplicate-id"),
        ("corpus.jsonl", 5, "missing-field"),
        ("corpus.jsonl", 6, "json"),
        ("queries.jsonl", 4, "empty-query"),
        ("queries.jsonl", 5, "missing-id"),
        ("qrels/test.tsv", 4, "unknown-query"),
        ("qrels/test.tsv", 4, "unknown-document"),
        ("qrels/test.tsv", 5, "score"),
        ("qrels/train.tsv", 1, "header"),
        ("qrels/train.tsv", None, "no-positives"),
    ]


def test_a_missing_corpus_is_one_finding_not_one_per_judgment(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    assert [finding.code for finding in check_beir(folder)] == ["missing-file"]


def judge(folder: Path, **splits: str) -> None:
    """Give the dataset these splits: pairs of query and document, such as ``q1 d1, q2 d2``."""
    for file in (folder / "qrels").iterdir():
        file.unlink()
    for split, pairs in splits.items():
        lines = ["\t".join([*pair.split(), "1"]) for pair in pairs.split(", ")]
        (folder / "qrels" / f"{split}.tsv").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("split", ["train", "dev", "validation", "eval"])
def test_without_a_test_split_a_dataset_is_not_good(split: str, folder: Path) -> None:
    judge(folder, **{split: "q1 d1, q2 d2, q3 d3"})
    errors = [str(finding) for finding in check_beir(folder) if finding.level == "error"]
    have = "dev" if split == "validation" else split
    assert errors == [f"qrels: there is no split test (found: {have}), and a run scores no other; add qrels/test.tsv"]
    assert list(read_beir(folder).qrels) == [have]  # it can be read: benchmark --split scores it


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_other_names_of_dev_are_dev(name: str, folder: Path) -> None:
    judge(folder, **{name: "q1 d1", "test": "q2 d2"})
    assert sorted(read_beir(folder).qrels) == ["dev", "test"]
    assert sorted(count_beir(folder).splits) == ["dev", "test"]
    assert check_beir(folder) == []


def test_two_names_of_one_split_are_refused(folder: Path) -> None:
    judge(folder, dev="q1 d1", val="q3 d1", test="q2 d2")
    with pytest.raises(DataError, match=r"qrels/val\.tsv: another file holds the split dev, too; keep one"):
        read_beir(folder)


USES = {
    "unused-split": ({"eval": "q1 d1", "train": "q3 d3", "test": "q2 d2"}, "the split 'eval' takes no part in a run"),
    "nothing-trains": ({"train": "q2 d1", "test": "q2 d2"}, "all 1 queries of train and dev are judged in test, too"),
    "too-few-queries": ({"test": "q1 d1, q2 d2"}, "2 distinct test queries and no train or dev: too few for 3 folds"),
}


@pytest.mark.parametrize("code", USES)
def test_what_may_surprise_in_a_run_is_said(code: str, folder: Path) -> None:
    splits, said = USES[code]
    judge(folder, **splits)
    (finding,) = check_beir(folder)
    assert (finding.level, finding.code) == ("warning", code)
    assert said in finding.message


def test_documents_that_are_the_query_itself_are_counted(folder: Path) -> None:
    queries = (folder / "queries.jsonl").read_text(encoding="utf-8").replace('"q1"', '"d3"')
    (folder / "queries.jsonl").write_text(queries, encoding="utf-8")
    judge(folder, train="q3 d1", test="d3 d1, q2 d2")
    (finding,) = check_beir(folder)
    assert str(finding) == "qrels: 1 query has the id of a document, which is left out of their rankings, as BEIR does"
    judge(folder, train="q3 d1", test="d3 d3, q2 d2")
    assert check_beir(folder) == []
