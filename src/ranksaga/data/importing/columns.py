"""Which column of a table plays which role: as the user says, else by the names that the field uses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from ranksaga.data.importing.rows import unknown_name
from ranksaga.errors import UsageError

__all__ = ["Columns", "assign", "nearest_role", "plain"]

# By role, the names that are taken for it, the likeliest first; case and marks do not matter.
QUERY = (
    *("query", "question", "anchor", "queries", "querytext", "userquery", "searchquery", "instruction", "prompt"),
    *("search", "searchterm", "q", "faq", "sentence1", "input"),
)
DOCUMENT = (
    *("document", "positive", "pos", "answer", "passage", "text", "content", "body", "documenttext", "docs", "doc"),
    *("answers", "answerstext", "positives", "passages", "context", "response", "reply", "output", "description"),
    *("positivetext", "sentence2", "abstract", "article", "chunk", "a"),
)
NEGATIVE = re.compile(r"(hard)?neg(ative)?s?(text)?\d*|negatives?\d+")
TITLE = ("title", "documenttitle", "doctitle", "heading", "headline", "subject", "section", "name")
DOCUMENT_ID = (
    *("documentid", "docid", "corpusid", "passageid", "pid", "docno", "did", "answerid", "positiveid"),
    *("id", "uid", "uuid", "key"),
)
QUERY_ID = ("queryid", "qid", "questionid", "topicid")
SCORE = ("score", "relevance", "rel", "grade", "label", "relevant", "judgment", "judgement", "islabel", "isrelevant")
SPLIT = ("split", "subset", "partition", "fold")


@dataclass(frozen=True)
class Columns:
    """The column of each role; empty for a role that the user named none for, or that no column plays.

    ``negatives`` may be several.
    """

    query: str = ""
    document: str = ""
    title: str = ""
    id: str = ""
    query_id: str = ""
    negatives: tuple[str, ...] = ()
    score: str = ""
    split: str = ""

    @property
    def any(self) -> bool:
        """Whether one is named."""
        return any(getattr(self, field.name) for field in fields(self))

    def shown(self) -> dict[str, str]:
        """Role and column, of the roles that are played."""
        roles = {"document id": self.id, "query id": self.query_id}
        plain_roles = {role: getattr(self, role) for role in ("query", "document", "title")}
        rest = {"negatives": ", ".join(self.negatives), "score": self.score, "split": self.split}
        return {role: column for role, column in {**plain_roles, **roles, **rest}.items() if column}


def plain(name: str) -> str:
    """A column's name without case and marks."""
    return re.sub(r"[^\w]|_", "", name.lower())


def assign(source: str, names: Sequence[str], named: Columns, *, needed: Sequence[str]) -> Columns:
    """The columns of a table by role.

    Args:
        source: what the table is called, for messages.
        names: of all its columns.
        named: what the user said; the rest is detected.
        needed: roles that a column must play.

    Raises:
        UsageError: a column that was named is not there, one is named for two roles, or a needed role has none.
    """
    given: dict[str, str] = {}
    for role in ("query", "document", "title", "id", "query_id", "score", "split"):
        if wanted := getattr(named, role):
            given[role] = _column(source, names, wanted)
    negatives = tuple(_column(source, names, wanted) for wanted in named.negatives)
    taken = [*given.values(), *negatives]
    doubled = next((column for index, column in enumerate(taken) if column in taken[:index]), None)
    if doubled is not None and not (doubled == given.get("id") == given.get("query_id")):
        raise UsageError(f"{source}: the column {doubled!r} is named for two roles; name another for one of them")
    free = [name for name in names if name not in taken]
    detected: dict[str, str] = {}
    known: Mapping[str, Sequence[str]] = {
        "query": QUERY,
        "query_id": QUERY_ID,
        "document": DOCUMENT,
        "title": TITLE,
        "score": SCORE,
        "split": SPLIT,
        "id": DOCUMENT_ID,
    }
    for role, aliases in known.items():
        if role not in given:
            column = _detect(aliases, free)
            if column:
                detected[role] = column
                free.remove(column)
    if not negatives:
        negatives = tuple(name for name in free if NEGATIVE.fullmatch(plain(name)))
    columns = {**detected, **given}
    for role in needed:
        if role not in columns:
            have = ", ".join(map(repr, names))
            raise UsageError(
                f"{source}: no column looks like the {role}; name it with --{role.replace('_', '-')} (it has: {have})"
            )
    return Columns(**columns, negatives=negatives)


def nearest_role(names: Sequence[str], aliases: Sequence[str]) -> str:
    """The column that plays a role by its name; empty if none does."""
    return _detect(aliases, names)


def _detect(aliases: Sequence[str], names: Sequence[str]) -> str:
    by_plain = {plain(name): name for name in reversed(names)}
    return next((by_plain[alias] for alias in aliases if alias in by_plain), "")


def _column(source: str, names: Sequence[str], wanted: str) -> str:
    if wanted in names:
        return wanted
    folded = [name for name in names if name.lower() == wanted.strip().lower()]
    if len(folded) == 1:
        return folded[0]
    raise unknown_name(source, "column", wanted, names)
