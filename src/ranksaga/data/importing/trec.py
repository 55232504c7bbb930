"""TREC's files: topics, qrels (four columns) and documents in SGML, JSON lines or TSV."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ranksaga.data.importing.collections import Line, corpus_of, join, queries_of
from ranksaga.data.importing.rows import Document, Query, Source
from ranksaga.data.importing.tables import TABLE_SUFFIXES, read_table
from ranksaga.data.importing.text_files import read_text, suffix_of
from ranksaga.errors import DataError, UsageError
from ranksaga.files import files_below

__all__ = ["find_trec_files", "is_sgml", "read_qrels", "trec_source"]

_DOC = re.compile(r"<DOC\b[^>]*>(.*?)</DOC>", re.DOTALL | re.IGNORECASE)
_DOCNO = re.compile(r"<(DOCNO|DOCID)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_TITLES = re.compile(r"<(TITLE|HEADLINE|HEAD|HL|TI|DOCTITLE)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
# Parts that are no text of the document, as in TREC disks 4 and 5.
_OTHER = re.compile(r"<(DOCHDR|DOCOLDNO|DATE\d*|AUTHOR|BIBLIO|PROFILE|F)\b[^>]*>.*?</\1>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[A-Za-z/!?][^>]*>")
_TOPIC = re.compile(r"<top\b[^>]*>(.*?)</top>", re.DOTALL | re.IGNORECASE)
_XML_TOPIC = re.compile(r"<topic\b([^>]*)>(.*?)</topic>", re.DOTALL | re.IGNORECASE)
# A field of a topic ends where the next one begins: TREC's own files close none of them.
_FIELD = r"<{}>\s*(?:{}:)?(.*?)(?=<(?:num|title|desc|narr|dom|con|smry|fac|def|/)\b|</|$)"


def trec_source(documents: Path, topics: Path, qrels: Sequence[Path], *, encoding: str | None = None) -> Source:
    """A collection of TREC.

    Args:
        documents: a file, or a folder with all of whose files.
        topics: SGML (``<top>``), XML (``<topic>``), or a table with id and text.
        qrels: ``topic 0 document grade``, one file or one a split (train, dev, test in its name).
        encoding: of all; none: found for each.

    Raises:
        DataError: a file is missing or broken.
    """
    counts: Counter[str] = Counter()
    lines = [line for path in qrels for line in read_qrels(path, _split_of(path, qrels), encoding)]
    queries = _read_topics(topics, counts, encoding)
    texts = list(_read_documents(documents, counts, encoding))
    columns = {"queries": str(topics), "documents": str(documents), "judgments": ", ".join(map(str, qrels))}
    form = f"TREC collection, {len(texts)} documents"
    return join(str(documents), form, texts, queries, lines, columns=columns, left_out=counts)


def find_trec_files(folder: Path) -> tuple[Path, Path, list[Path]] | None:
    """Documents, topics and qrels of a folder that holds a collection; none if it does not.

    Raises:
        UsageError: it has qrels and topics, and which of its files are the documents is not clear.
    """
    paths = [path for name, path in files_below(folder) if path.is_file() and not name.startswith(".")]
    qrels = [path for path in paths if "qrel" in path.name.lower()]
    topics = [path for path in paths if re.match(r".*(topics|queries)", path.name.lower()) and path not in qrels]
    if not qrels or len(topics) != 1 or not all(_is_trec_qrels(path) for path in qrels):
        return None
    rest = [path for path in paths if path not in (*qrels, *topics) and path.stem.lower() not in ("readme", "license")]
    if not rest:
        raise UsageError(f"{folder}: topics and qrels are there, and no documents; add them, or name them as SOURCE")
    if len(rest) == 1:
        return rest[0], topics[0], qrels
    tops = {path.relative_to(folder).parts[0] for path in rest}
    if len(tops) == 1:
        return folder / tops.pop(), topics[0], qrels
    raise UsageError(
        f"{folder}: which of {', '.join(sorted(tops))} are the documents? Name them as SOURCE, with --topics, --qrels"
    )


def _is_trec_qrels(path: Path) -> bool:
    try:
        first = read_text(path)[0].lstrip().partition("\n")[0].split()
    except DataError:
        return False
    return len(first) == 4 and re.fullmatch(r"-?\d+", first[3]) is not None


def _split_of(path: Path, qrels: Sequence[Path]) -> str:
    if len(qrels) == 1:
        return ""
    words = re.split(r"[^a-z]+", path.name.lower())
    names = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
    split = next((names[word] for word in words if word in names), None)
    if split is None:
        raise UsageError(f"{path}: of several files with judgments, each needs train, dev or test in its name")
    return split


def read_qrels(path: Path, split: str = "", encoding: str | None = None) -> Iterator[Line]:
    """Query id, document id, grade (0 and below: 0) and split of each line.

    Raises:
        DataError: a line has not four columns, or its grade is no integer.
    """
    for number, line in enumerate(_text(path, encoding).split("\n"), 1):
        cells = line.split()
        if not cells or (number == 1 and cells == ["query-id", "corpus-id", "score"]):
            continue
        if len(cells) == 3:
            cells.insert(1, "0")  # BEIR's three columns
        if len(cells) != 4:
            raise DataError(f"{path}:{number}: {len(cells)} columns, expected 4: topic, 0, document, grade")
        if not re.fullmatch(r"[+-]?\d{1,9}(\.0+)?", cells[3], re.ASCII):
            raise DataError(f"{path}:{number}: the grade is {cells[3]!r}, expected an integer (0: not relevant)")
        yield cells[0], cells[2], max(0, int(float(cells[3]))), split


def _read_topics(path: Path, counts: Counter[str], encoding: str | None) -> list[Query]:
    if suffix_of(path) in TABLE_SUFFIXES and suffix_of(path) not in (".tsv", ".tab"):
        return list(queries_of(read_table(path, encoding=encoding), counts))
    text = _text(path, encoding)
    if topics := _TOPIC.findall(text):
        pairs = [(_field(topic, "num", "Number"), _field(topic, "title", "Topic")) for topic in topics]
        pairs = [
            (number, title or _field(topic, "desc", "Description"))
            for (number, title), topic in zip(pairs, topics, strict=True)
        ]
    elif found := _XML_TOPIC.findall(text):
        pairs = [_xml_topic(attributes, body) for attributes, body in found]
    else:
        pairs = [_tab_topic(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if pairs and re.fullmatch(r"_?(q(uery)?|topic)?[-_ ]?id", pairs[0][0], re.IGNORECASE):
            pairs.pop(0)  # a header
    for identifier, _ in pairs:
        if not identifier:
            raise DataError(f"{path}: a topic has no number; each needs one, which the qrels name")
    counts["empty queries"] += sum(not title for _, title in pairs)
    queries = [Query(title, identifier) for identifier, title in pairs if title]
    if not queries:
        raise DataError(f"{path}: there is no topic; expected <top>, <topic number=...>, or an id, a tab and the text")
    return queries


def _tab_topic(path: Path, number: int, line: str) -> tuple[str, str]:
    identifier, separator, title = line.partition("\t")
    if not separator:
        identifier, separator, title = line.partition(":")  # the Web and Million Query tracks
    if not separator:
        raise DataError(f"{path}:{number}: expected an id, a tab and the text, found {line.strip()[:40]!r}")
    return identifier.strip(), " ".join(title.split())


def _field(topic: str, name: str, label: str) -> str:
    match = re.search(_FIELD.format(name, label), topic, re.DOTALL | re.IGNORECASE)
    return _plain(match[1]) if match else ""


def _xml_topic(attributes: str, body: str) -> tuple[str, str]:
    number = re.search(r"""(?:number|id|num)\s*=\s*["']([^"']*)""", attributes, re.IGNORECASE)
    identifier = number[1].strip() if number else _element(body, "num", "number", "id")
    return identifier, _element(body, "title", "query", "question", "description", "summary") or _plain(body)


def _element(body: str, *names: str) -> str:
    for name in names:
        match = re.search(rf"<{name}\b[^>]*>(.*?)</{name}>", body, re.DOTALL | re.IGNORECASE)
        if match and _plain(match[1]):
            return _plain(match[1])
    return ""


def _read_documents(path: Path, counts: Counter[str], encoding: str | None) -> Iterator[Document]:
    if path.is_dir():
        files = [
            file for name, file in files_below(path) if file.is_file() and not name.rpartition("/")[2].startswith(".")
        ]
        if not files:
            raise DataError(f"{path}: the folder is empty; expected the collection's documents")
    else:
        files = [path]
    for file in files:
        suffix = suffix_of(file)
        if suffix in TABLE_SUFFIXES and suffix not in (".tsv", ".tab"):
            yield from corpus_of(read_table(file, encoding=encoding), counts)
            continue
        text = _text(file, encoding)
        if _DOC.search(text):
            yield from (_document(file, body, counts) for body in _DOC.findall(text))
        elif suffix in (".tsv", ".tab", ".txt") and "\t" in text:
            yield from _tab_documents(file, text)
        else:
            raise DataError(
                f"{file}: no document; expected <DOC> with <DOCNO>, JSON lines, or an id, a tab and the text"
            )


def is_sgml(path: Path) -> bool:
    """Whether a file holds documents between ``<DOC>`` and ``</DOC>``."""
    try:
        return _DOC.search(read_text(path)[0]) is not None
    except DataError:
        return False


def _document(file: Path, body: str, counts: Counter[str]) -> Document:
    number = _DOCNO.search(body)
    if number is None or not number[2].strip():
        raise DataError(
            f"{file}: a document has no DOCNO ({_plain(body)[:40]!r}); each needs one, which the qrels name"
        )
    body = _OTHER.sub(" ", _DOCNO.sub(" ", body))
    heading = _TITLES.search(body)
    title = _plain(heading[2]) if heading else ""
    text = _plain(_TITLES.sub(" ", body, count=1) if heading else body)
    if not text and not title:
        counts["documents without words, which are kept"] += 1
    return Document(text, title, number[2].strip())


def _tab_documents(file: Path, text: str) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) not in (2, 3):
            raise DataError(f"{file}:{number}: {len(cells)} columns, expected an id, perhaps a title, and the text")
        yield Document(cells[-1].strip(), cells[1].strip() if len(cells) == 3 else "", cells[0].strip())


def _plain(markup: str) -> str:
    """Text without tags, entities as characters, white space single."""
    return " ".join(html.unescape(_TAG.sub(" ", markup)).split())


def _text(path: Path, encoding: str | None) -> str:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    return read_text(path, encoding)[0]
