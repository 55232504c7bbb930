"""What every reader of a source hands over: documents, queries and judgments, and what was left out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches

from ranksaga.errors import UsageError

__all__ = ["Chunk", "Document", "Judgment", "Query", "Source", "needs_import_extra", "unknown_name"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document; ``id`` is empty where the source gives none."""

    text: str
    title: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """A query; ``id`` is empty where the source gives none."""

    text: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Judgment:
    """A document judged for a query: grade 0 is not relevant. ``split`` is empty where the source names none."""

    query: Query
    document: Document
    grade: int = 1
    split: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a document was cut from.

    Attributes:
        id: of the document.
        file: path inside the folder that was imported, ``/`` between parts.
        headings: the headings above it, outermost first.
        start: first character in the file's text (see :func:`ranksaga.data.importing.extract.extract`).
        end: one after the last.
    """

    id: str
    file: str
    headings: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Source:
    """A source as it was understood.

    Attributes:
        name: of the source, as the user gave it.
        format: what it is, in words, with encoding and delimiter.
        columns: what each role (query, document ...) is read from.
        documents: all documents; those that no judgment names, too.
        queries: all queries.
        judgments: in the order of the source.
        left_out: what was not taken, in words, and how often.
        notes: what else a reader of the result has to know.
        ids_decide: equal ids are one document, and equal texts under two ids are two (a published collection);
            False: equal texts are one.
        chunks: of a folder of texts, where each document was cut from.
    """

    name: str
    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    documents: Sequence[Document] = ()
    queries: Sequence[Query] = ()
    judgments: Sequence[Judgment] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    ids_decide: bool = False
    chunks: Sequence[Chunk] = ()


@contextmanager
def needs_import_extra(what: str) -> Iterator[None]:
    """Turn a missing library into one line that says how to install it.

    Raises:
        UsageError: a library that is imported inside is not installed.
    """
    try:
        yield
    except ImportError as problem:
        missing = (problem.name or "a library").partition(".")[0]
        raise UsageError(f'{what} needs {missing}, which is not installed: pip install "ranksaga[import]"') from problem


def unknown_name(source: str, kind: str, wanted: str, names: Sequence[str]) -> UsageError:
    """The error about a name that a source does not have, with the nearest one and all of them."""
    near = get_close_matches(wanted.lower(), {name.lower(): None for name in names}, n=1, cutoff=0.5)
    hint = next((f"; did you mean {name!r}?" for name in names if near and name.lower() == near[0]), ";")
    have = ", ".join(map(repr, names)) or "none"
    return UsageError(f"{source}: there is no {kind} {wanted!r}{hint} It has: {have}")
