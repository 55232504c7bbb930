"""A folder of Markdown, HTML, text or PDF: cut into documents, with questions about its files or without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ranksaga.data.importing.chunking import Tokens, cut, title_of
from ranksaga.data.importing.columns import Columns, assign, nearest_role, plain
from ranksaga.data.importing.extract import TEXT_SUFFIXES, extract
from ranksaga.data.importing.pairs import cell_id, cell_texts, parse_grade, split_name
from ranksaga.data.importing.rows import Chunk, Document, Judgment, Query, Source
from ranksaga.data.importing.tables import Table
from ranksaga.errors import DataError, UsageError
from ranksaga.files import files_below

__all__ = ["folder_source", "has_texts"]

_FILE = ("file", "path", "filename", "page", "source", "url", "document", "doc")
_HEADING = ("heading", "headings", "section", "title", "anchor")


@dataclass(frozen=True)
class _Part:
    """A document that was cut from a file."""

    document: Document
    chunk: Chunk


def has_texts(folder: Path) -> bool:
    """Whether a folder holds a file that :func:`folder_source` reads."""
    return any(name.lower().endswith(TEXT_SUFFIXES) for name, _ in _visible(folder))


def folder_source(
    folder: Path, tokens: Tokens, questions: Table | None, named: Columns, *, encoding: str | None = None
) -> Source:
    """The texts of a folder, cut into documents, and what a table of questions judges relevant.

    Each row of the table has a query, a file, and perhaps a heading: all documents of the file, under that heading, are
    relevant to the query.

    Args:
        folder: with all folders below it; hidden files are left out.
        tokens: how long a document may be.
        questions: none: the source has documents alone.
        named: columns of the table as the user named them; ``document`` is that of the file.
        encoding: of text files; none: found for each.

    Raises:
        DataError: there is no text, or a question names a file or heading that is not there.
        UsageError: a column is missing, or a library is not installed.
    """
    left_out: Counter[str] = Counter()
    notes: list[str] = []
    parts: list[_Part] = []
    kinds: Counter[str] = Counter()
    for name, path in _visible(folder):
        if not name.lower().endswith(TEXT_SUFFIXES):
            left_out[f"files of another kind ({PurePosixPath(name).suffix or 'no ending'})"] += 1
            continue
        try:
            cuts = _parts_of(name, path, tokens, encoding)
        except DataError as problem:
            left_out["files that cannot be read"] += 1
            notes.append(str(problem))
            continue
        if not cuts:
            left_out[
                "files without text" if path.suffix.lower() != ".pdf" else "PDF files without text (scanned?)"
            ] += 1
            continue
        kinds[PurePosixPath(name).suffix.lower()] += 1
        parts += cuts
    if not parts:
        why = f" ({notes[0]})" if notes else ""
        raise DataError(f"{folder}: no text in it{why}; expected Markdown, HTML, text or PDF files")
    form = f"folder of {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}"
    form = f"{form}, cut into {len(parts)} documents of at most {tokens.limit} tokens"
    columns = {"document": "text of a section", "title": "heading path"}
    judgments: list[Judgment] = []
    if questions is not None:
        judgments = _judgments(questions, parts, named, left_out)
        columns["query"] = questions.name
    return Source(
        str(folder),
        form,
        columns,
        [part.document for part in parts],
        [],
        judgments,
        dict(left_out),
        notes,
        chunks=[part.chunk for part in parts],
    )


def _visible(folder: Path) -> list[tuple[str, Path]]:
    return [
        (name, path)
        for name, path in files_below(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.split("/"))
    ]


def _parts_of(name: str, path: Path, tokens: Tokens, encoding: str | None) -> list[_Part]:
    text = extract(path, encoding)
    parts = []
    for section in text.sections:
        title = title_of(section.headings, tokens)
        for start, end in cut(text.text, section.start, section.end, title, tokens):
            chunk = Chunk("", name, section.headings, *text.span(start, end))
            parts.append(_Part(Document(text.text[start:end], title), chunk))
    return parts


def _judgments(questions: Table, parts: Sequence[_Part], named: Columns, left_out: Counter[str]) -> list[Judgment]:
    """Every document of the file and heading that a row names is relevant to its query."""
    file = named.document or nearest_role(questions.columns, _FILE)
    if not file:
        have = ", ".join(map(repr, questions.columns))
        raise UsageError(f"{questions.name}: no column names the file; name it with --document (it has: {have})")
    rest = [column for column in questions.columns if column != file]
    columns = assign(
        questions.name, rest, Columns(named.query, title=named.title, query_id=named.query_id), needed=("query",)
    )
    heading = named.title or nearest_role(rest, _HEADING)
    if questions.empty:
        left_out["empty questions"] += questions.empty
    judgments = []
    for record, place in zip(questions.records, questions.places, strict=True):
        where = f"{questions.name}:{place}"
        texts = cell_texts(record.get(columns.query), where, columns.query)
        wanted = cell_texts(record.get(file), where, file)
        if not texts or not wanted:
            left_out["questions without a text or a file"] += 1
            continue
        query = Query(texts[0], cell_id(record.get(columns.query_id)))
        under = " ".join(cell_texts(record.get(heading), where, heading)) if heading else ""
        split = split_name(str(record.get(columns.split) or ""), where) if columns.split else ""
        grade = parse_grade(record.get(columns.score), where) if columns.score else 1
        for name in wanted:
            relevant = _relevant(where, name, under, parts)
            judgments += [Judgment(query, part.document, grade, split) for part in relevant]
    return judgments


def _relevant(where: str, wanted: str, heading: str, parts: Sequence[_Part]) -> list[_Part]:
    wanted, _, anchor = wanted.strip().removeprefix("./").partition("#")
    heading = heading or anchor
    of_file = [part for part in parts if part.chunk.file == wanted]
    if not of_file:  # the name alone, where it is one file's
        of_file = [part for part in parts if PurePosixPath(part.chunk.file).name == PurePosixPath(wanted).name]
        if len({part.chunk.file for part in of_file}) > 1:
            files = ", ".join(sorted({part.chunk.file for part in of_file}))
            raise DataError(f"{where}: {wanted!r} may be any of {files}; write its path inside the folder")
    if not of_file:
        raise DataError(f"{where}: no text of a file {wanted!r} was taken; write its path inside the folder")
    if not heading:
        return of_file
    last = plain(heading.rpartition(">")[2])
    under = [part for part in of_file if any(plain(above) == last for above in part.chunk.headings)]
    if not under:
        have = ", ".join(dict.fromkeys(" > ".join(part.chunk.headings) for part in of_file if part.chunk.headings))
        raise DataError(f"{where}: {wanted} has no heading {heading!r}; it has: {have or 'none'}")
    return under
