"""The one parser of the BEIR layout: it reports every problem, with file and line, and goes on.

``check_beir`` (check.py) collects the findings for a person to repair; ``read_beir`` (beir.py) lets the
first error stop it. Both see the same problems because both run ``parse``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.beir_files import BeirFile, Finding, Report, kind_of
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.untrusted.escape import breaks_lines, shown, trec_id

__all__ = ["QRELS_HEADER", "parse", "qrels_files", "split_of"]

QRELS_HEADER = "query-id\tcorpus-id\tscore"
_MAX_GRADE = 2**31 - 1  # grades are int32
_RENAME = "no judgment can name it, and it would forge lines of other files: rename it"
_OTHER_NAMES = dict.fromkeys(("validation", "valid", "val"), "dev")


def split_of(stem: str) -> str:
    """The split that a file in ``qrels`` holds, from its name without ending: other names of dev are dev."""
    return _OTHER_NAMES.get(stem, stem)


def qrels_files(path: Path) -> list[Path]:
    """A dataset's files of judgments, by name. Hidden ones, such as macOS's ``._test.tsv``, hold none."""
    return sorted(file for file in path.glob("qrels/*.tsv") if not file.name.startswith("."))


def parse(path: Path, name: str, report: Report) -> Dataset:
    """Read a folder in BEIR layout, calling ``report`` for each problem.

    If ``report`` raises, that ends the reading. Otherwise faulty lines are left out of the
    dataset returned, which is of use only if no error was reported.
    """
    if not os.path.isdir(path):
        report(Finding("error", "missing-folder", ".", None, f"there is no folder {path}; check the path"))
    corpus = _parse_corpus(BeirFile(path, "corpus.jsonl", report))
    queries = _parse_queries(BeirFile(path, "queries.jsonl", report))
    qrels: dict[str, Qrels] = {}
    names = [file.name for file in qrels_files(path)]
    if not names:
        message = "there is no qrels/*.tsv; add qrels/test.tsv with the judgments"
        report(Finding("error", "missing-file", "qrels", None, message))
    for file_name in names:
        split = split_of(file_name.removesuffix(".tsv"))
        file = BeirFile(path, f"qrels/{file_name}", report)
        if split in qrels:
            file.error("duplicate-split", f"another file holds the split {split}, too; keep one of them")
            continue
        qrels[split] = _parse_qrels(file, corpus, queries)
    return Dataset(name, corpus, queries, qrels)


def _new_id(file: BeirFile, record: dict[str, Any], number: int, seen: dict[str, int]) -> str | None:
    """The record's id, or None if it is missing or was seen on an earlier line."""
    identifier = record.get("_id")
    if type(identifier) is not str or not identifier.strip():
        if identifier is None or type(identifier) is str:
            file.error("missing-id", "there is no _id; give each record an id of its own", number)
        else:
            file.error("type", f"_id is {kind_of(identifier)}, expected text; write it in double quotes", number)
        return None
    if breaks_lines(identifier):
        file.error("break-in-id", f"the id {shown(identifier)} has a tab or line break; {_RENAME}", number)
        return None
    first = seen.setdefault(identifier, number)
    if first != number:
        file.error("duplicate-id", f"the id {shown(identifier)} was used on line {first}; ids must differ", number)
        return None
    return identifier


def _check_spaces(file: BeirFile, ids: Sequence[str]) -> None:
    spaced = next((one for one in ids if one.split() != [one]), None)
    if spaced is not None:
        file.warning(
            "space-in-id",
            f"ids such as {shown(spaced)} hold spaces: other tools cannot read them in TREC files; avoid them",
        )
        taken = set(ids)
        for one in ids:
            if (written := trec_id(one)) != one and written in taken:
                file.error(
                    "ambiguous-id", f"the ids {shown(one)} and {shown(written)} are one in TREC files; rename one"
                )


def _check_unicode(file: BeirFile, number: int, *texts: str) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as problem:
            half = text[problem.start].encode("unicode_escape").decode()
            file.error(
                "encoding", f"the text has {half}, half of a character, which no tokenizer takes; remove it", number
            )


def _parse_corpus(file: BeirFile) -> Corpus:
    seen: dict[str, int] = {}
    ids, titles, texts = [], [], []
    for number, record in file.records():
        title = file.text(record, "title", number, optional=True)
        text = file.text(record, "text", number)
        identifier = _new_id(file, record, number, seen)
        if identifier is None:
            continue
        if not (text.strip() or title.strip()) and "text" in record:
            file.warning("empty-document", f"document {shown(identifier)} has no words; it cannot be found", number)
        # isascii is nearly free, so the costly look for half characters is rare.
        if not (text.isascii() and title.isascii() and identifier.isascii()):
            _check_unicode(file, number, identifier, title, text)
        ids.append(identifier)
        titles.append(title)
        texts.append(text)
    if file.path.is_file() and not ids:
        file.error("empty-file", "there is no document; add one JSON object a line")
    _check_spaces(file, ids)
    return Corpus(tuple(ids), tuple(titles), tuple(texts))


def _parse_queries(file: BeirFile) -> Queries:
    seen: dict[str, int] = {}
    ids, texts = [], []
    for number, record in file.records():
        text = file.text(record, "text", number)
        identifier = _new_id(file, record, number, seen)
        if identifier is None:
            continue
        if type(record.get("text")) is str and not text.strip():
            file.error("empty-query", f"query {shown(identifier)} has no words; write its text or remove it", number)
        if not (text.isascii() and identifier.isascii()):
            _check_unicode(file, number, identifier, text)
        ids.append(identifier)
        texts.append(text)
    if file.path.is_file() and not ids:
        file.error("empty-file", "there is no query; add one JSON object a line")
    _check_spaces(file, ids)
    return Queries(tuple(ids), tuple(texts))


def _parse_qrels(file: BeirFile, corpus: Corpus, queries: Queries) -> Qrels:
    grades: dict[str, int] = {}  # few distinct texts, so each is parsed once
    judged: dict[tuple[int, int], tuple[int, int]] = {}  # (query row, document row): grade, line
    has_positive = False
    for number, query, document, score in _judgments(file):
        grade = grades.get(score)
        if grade is None:
            grade = _grade(file, score, number)
            if grade is None:
                continue
            if grade >= 0:
                grades[score] = grade
        has_positive = has_positive or grade > 0
        row, column = queries.rows.get(query), corpus.rows.get(document)
        # Where a whole file is missing, that is the problem, not each line that points to it.
        if row is None and len(queries):
            file.error(
                "unknown-query", f"query {shown(query)} is not in queries.jsonl; add it or remove this line", number
            )
        if column is None and len(corpus):
            file.error(
                "unknown-document",
                f"document {shown(document)} is not in corpus.jsonl; add it or remove this line",
                number,
            )
        if row is None or column is None:
            continue
        first_grade, first = judged.setdefault((row, column), (max(grade, 0), number))
        if first != number:
            _report_duplicate(file, query, document, first, same=first_grade == max(grade, 0), number=number)
    if file.path.is_file() and not has_positive:
        file.error("no-positives", "no judgment has a score above 0; add relevant documents or remove the split")
    return _columns(judged)


def _report_duplicate(file: BeirFile, query: str, document: str, first: int, *, same: bool, number: int) -> None:
    pair = f"query {shown(query)} and document {shown(document)} were judged on line {first}"
    if same:
        file.warning("duplicate-judgment", f"{pair} with the same score; this line is ignored", number)
    else:
        file.error("duplicate-judgment", f"{pair} with another score; keep one of the two", number)


def _judgments(file: BeirFile) -> Iterator[tuple[int, str, str, str]]:
    """Line number, query id, document id and score as written; the header is checked and left out."""
    header = True
    for number, line in file.lines():
        cells = line.rstrip("\r\n").split("\t")
        if header:
            header = False
            if "\t".join(cell.strip() for cell in cells) == QRELS_HEADER:
                continue
            if not _report_header(file, cells, line, number):
                return
            if not (len(cells) == 3 and _is_integer(cells[2])):
                continue
        if len(cells) != 3:
            file.error(
                "columns", f"found {len(cells)} columns, expected 3 split by tabs: query-id, corpus-id, score", number
            )
            continue
        yield number, cells[0], cells[1], cells[2]


def _report_header(file: BeirFile, cells: list[str], line: str, number: int) -> bool:
    """Report a wrong first line; whether the rest of the file is worth reading."""
    expected = "query-id, corpus-id, score split by tabs"
    words = line.split()
    if len(words) == 4 and _is_integer(words[3]):
        file.error(
            "header",
            f"four columns as in TREC's qrels; expected the header {expected}, "
            "then three columns: drop the second one and add the header",
            number,
        )
        return False
    if len(cells) == 1 and len(words) > 1:
        file.error("header", f"the columns are not split by tabs; expected the header {expected}", number)
        return False
    if len(cells) == 3 and _is_integer(cells[2]):
        file.error("header", f"the header is missing; add a first line with {expected}", number)
    else:
        found = ", ".join(cell.strip() for cell in cells)[:80]
        file.error("header", f"wrong header ({found}); expected {expected}", number)
    return True


def _is_integer(text: str) -> bool:
    digits = text.strip().removeprefix("-")
    return digits.isascii() and digits.isdecimal()


def _grade(file: BeirFile, text: str, number: int) -> int | None:
    """The score as a grade; negative ones (two in BEIR's own TREC-COVID) are reported, for the caller to count as 0."""
    if not _is_integer(text) or len(text) > 20 or abs(int(text)) > _MAX_GRADE:
        file.error(
            "score", f"the score is {shown(text)}, expected an integer such as 0, 1 or 2 (0: not relevant)", number
        )
        return None
    grade = int(text)
    if grade < 0:
        file.warning("negative-score", f"the score {grade} is below 0; it counts as 0, not relevant", number)
    return grade


def _columns(judged: dict[tuple[int, int], tuple[int, int]]) -> Qrels:
    pairs: NDArray[np.int32] = np.array(list(judged), dtype=np.int32).reshape(-1, 2)
    scores: NDArray[np.int32] = np.array([grade for grade, _ in judged.values()], dtype=np.int32)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Qrels(pairs[order, 0], pairs[order, 1], scores[order])
