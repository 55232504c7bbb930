"""TREC run files: one line a result, ``query-id Q0 document-id rank score tag``.

Columns are separated by tabs, which trec_eval and pytrec_eval read like spaces, and which
ids of the BEIR layout cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranksaga.errors import DataError
from ranksaga.files import atomic_open
from ranksaga.retrieve.order import NOTHING, decode_keys, encode_keys
from ranksaga.retrieve.rankings import Rankings

__all__ = ["read_run", "write_run"]


def write_run(
    path: Path, rankings: Rankings, query_ids: Sequence[str], document_ids: Sequence[str], *, tag: str
) -> None:
    """Write rankings atomically. ``query_ids`` and ``document_ids`` are those of the dataset, by row.

    Nine significant digits give every float32 score back exactly.
    """
    with atomic_open(path) as stream:
        for query, documents, scores in zip(rankings.queries, rankings.documents, rankings.scores, strict=True):
            head = f"{query_ids[query]}\tQ0\t"
            count = int(np.count_nonzero(documents >= 0))
            stream.writelines(
                f"{head}{document_ids[document]}\t{rank}\t{score:.9g}\t{tag}\n"
                for rank, (document, score) in enumerate(
                    zip(documents[:count].tolist(), scores[:count].tolist(), strict=True), start=1
                )
            )


def read_run(
    path: Path, query_rows: Mapping[str, int], document_rows: Mapping[str, int], ties: NDArray[np.int32]
) -> Rankings:
    """Read a run file of any tool; the order is made from the scores, as trec_eval does, not from the ranks.

    Args:
        path: the run file.
        query_rows: row of each query id (``dataset.queries.rows``).
        document_rows: row of each document id (``dataset.corpus.rows``).
        ties: tie rank of every corpus row, from ``tie_order``.

    Raises:
        DataError: a line is malformed, an id is not of the dataset, or a document stands twice for a query.
    """
    found: dict[int, dict[int, float]] = {}
    with path.open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            query, document, score = _parse(line, f"{path}:{number}", query_rows, document_rows)
            results = found.setdefault(query, {})
            if document in results:
                raise DataError(f"{path}:{number}: a document stands twice for one query; keep one line")
            results[document] = score
    queries = np.array(sorted(found), dtype=np.int32)
    keys = np.full((len(queries), max(map(len, found.values()), default=0)), NOTHING, dtype=np.int64)
    for row, query in zip(keys, queries.tolist(), strict=True):
        documents = np.fromiter(found[query], dtype=np.int32)
        scores = np.fromiter(found[query].values(), dtype=np.float32)
        row[: len(documents)] = -np.sort(-encode_keys(scores, ties[documents]))
    return Rankings(queries, *decode_keys(keys, ties))


def _parse(
    line: str, place: str, query_rows: Mapping[str, int], document_rows: Mapping[str, int]
) -> tuple[int, int, float]:
    """Query row, document row and score of one line."""
    fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
    if len(fields) != 6:
        raise DataError(f"{place}: found {len(fields)} columns, expected 6: query-id Q0 document-id rank score tag")
    query, _, document, _, score, _ = fields
    if query not in query_rows:
        raise DataError(f"{place}: query {query!r} is not in the dataset; read the run with the dataset it ranks")
    if document not in document_rows:
        raise DataError(f"{place}: document {document!r} is not in the dataset; read the run with the dataset it ranks")
    try:
        value = float(score)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{place}: score {score!r} is not a finite number")
    return query_rows[query], document_rows[document], value
