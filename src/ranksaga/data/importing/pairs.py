"""Tables of pairs to judgments: a query and its document a row, lists of them, and given negatives.

FlagEmbedding's ``query, pos, neg`` and triplets (``anchor, positive, negative``) are such tables.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ranksaga.data.importing.columns import Columns, assign
from ranksaga.data.importing.rows import Document, Judgment, Query, Source
from ranksaga.data.importing.tables import Table
from ranksaga.errors import DataError

__all__ = ["cell_id", "cell_texts", "pairs_source", "parse_grade", "split_name"]

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_YES, _NO = ("true", "yes", "relevant"), ("false", "no", "irrelevant", "not relevant")
_MAX_GRADE = 2**31 - 1
# What FlagEmbedding's files hold besides texts: scores of a teacher, and a prompt.
_UNUSED = ("pos_scores", "neg_scores", "prompt", "type")


def pairs_source(table: Table, named: Columns, *, split: str = "") -> Source:
    """Judgments of a table of pairs.

    Args:
        table: whose rows have a query and a document, or several.
        named: columns as the user named them.
        split: that all rows belong to, where no column says so; empty: none.

    Raises:
        UsageError: a column is missing.
        DataError: a cell is no text, or a score no integer.
    """
    columns = assign(table.name, table.columns, named, needed=("query", "document"))
    left_out: Counter[str] = Counter()
    if table.empty:
        left_out["empty rows"] = table.empty
    documents: list[Document] = []
    queries: list[Query] = []
    judgments: list[Judgment] = []
    for record, place in zip(table.records, table.places, strict=True):
        where = f"{table.name}:{place}"
        query, relevant, negatives = _texts(record, columns, where)
        documents += [*relevant, *negatives]
        if query is None:
            left_out["queries of rows that have none (documents kept)" if relevant or negatives else "empty rows"] += 1
            continue
        if not relevant and not negatives:
            left_out["rows without a document"] += 1
            continue
        queries.append(query)
        grade = parse_grade(record.get(columns.score), where) if columns.score else 1
        part = split
        if columns.split:
            part = split_name(str(record.get(columns.split) or ""), where)
        judgments += [Judgment(query, document, grade, part) for document in relevant]
        judgments += [Judgment(query, document, 0, part) for document in negatives]
    if not judgments:
        raise DataError(
            f"{table.name}: no row has both a query ({columns.query}) and a document ({columns.document}); "
            "name other columns with --query and --document"
        )
    used = {columns.query, columns.document, columns.title, columns.id, columns.query_id, columns.score, columns.split}
    unused = [name for name in table.columns if name not in used and name not in columns.negatives]
    notes = [f"columns not used: {', '.join(unused)}"] if unused else []
    form = f"{table.format}, {len(table.records)} rows"
    return Source(table.name, form, columns.shown(), documents, queries, judgments, dict(left_out), notes)


def _texts(
    record: Mapping[str, Any], columns: Columns, where: str
) -> tuple[Query | None, list[Document], list[Document]]:
    """The query, its relevant documents (with title and id where there is one), and its negatives."""
    asked = cell_texts(record.get(columns.query), where, columns.query)
    if len(asked) > 1:
        raise DataError(f"{where}: {columns.query} is a list of {len(asked)}; expected one query a row")
    query = Query(asked[0], cell_id(record.get(columns.query_id))) if asked else None
    texts = cell_texts(record.get(columns.document), where, columns.document)
    titles = cell_texts(record.get(columns.title), where, columns.title) if columns.title else []
    title = " ".join(titles)
    identifier = cell_id(record.get(columns.id)) if columns.id and len(texts) == 1 else ""
    relevant = [Document(text, title, identifier) for text in texts]
    negatives = [
        Document(text) for column in columns.negatives for text in cell_texts(record.get(column), where, column)
    ]
    return query, relevant, negatives


def cell_texts(cell: Any, where: str, column: str) -> list[str]:
    """The texts of a cell, stripped; none where it is blank.

    Raises:
        DataError: it holds an object.
    """
    if isinstance(cell, (list, tuple)):
        return [text for part in cell for text in cell_texts(part, where, column)]
    if isinstance(cell, Mapping):
        inner = ", ".join(f"{column}.{key}" for key in cell)
        raise DataError(f"{where}: {column} holds objects ({inner}), expected text; write each as a column of its own")
    if isinstance(cell, bytes):
        raise DataError(f"{where}: {column} holds bytes, expected text; decode it")
    text = _plain(cell)
    return [text] if text else []


def cell_id(cell: Any) -> str:
    """A cell as an id: a whole number without a fraction; empty where it is blank."""
    return _plain(cell)


def _plain(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    return str(cell).strip()


def parse_grade(cell: Any, where: str) -> int:
    """A score as a grade: an integer, 0 and below being not relevant; true and false are 1 and 0.

    Raises:
        DataError: it is none.
    """
    text = _plain(cell)
    if text.lower() in _YES:
        return 1
    if text.lower() in _NO:
        return 0
    try:
        value = float(text)
        if value.is_integer() and value <= _MAX_GRADE:
            return max(0, int(value))
    except ValueError:
        pass
    raise DataError(
        f"{where}: the score is {text!r}, expected an integer such as 0, 1 or 2 (0: not relevant); "
        "write grades, or name another column with --score"
    )


def split_name(text: str, where: str) -> str:
    """A split's name as ours: train, dev or test.

    Raises:
        DataError: it is none of them.
    """
    name = _SPLITS.get(text.strip().lower())
    if name is None:
        raise DataError(f"{where}: the split is {text!r}, expected train, dev (validation) or test")
    return name
