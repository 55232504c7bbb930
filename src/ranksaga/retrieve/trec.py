"""TREC run files: one line a result, ``query-id Q0 document-id rank score tag``.

Columns are separated by tabs, which trec_eval and pytrec_eval read like spaces, and which
ids of the BEIR layout cannot hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ranksaga.files import atomic_open
from ranksaga.retrieve.rankings import Rankings

__all__ = ["write_run"]


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
