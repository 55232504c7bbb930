"""TREC run files: one line a result, ``query-id Q0 document-id rank score tag``.

Columns are separated by tabs. Readers split at any white space, so an id that has some is percent-encoded; one
with a control character is refused when a dataset is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ranksaga.files import atomic_open
from ranksaga.retrieve.rankings import Rankings
from ranksaga.untrusted.escape import trec_id

__all__ = ["write_run"]


def write_run(
    path: Path, rankings: Rankings, query_ids: Sequence[str], document_ids: Sequence[str], *, tag: str
) -> None:
    """Write rankings atomically. ``query_ids`` and ``document_ids`` are those of the dataset, by row.

    Nine significant digits give every float32 score back exactly.
    """
    with atomic_open(path) as stream:
        for query, documents, scores in zip(rankings.queries, rankings.documents, rankings.scores, strict=True):
            head = f"{trec_id(query_ids[query])}\tQ0\t"
            count = int(np.count_nonzero(documents >= 0))
            stream.writelines(
                f"{head}{trec_id(document_ids[document])}\t{rank}\t{score:.9g}\t{tag}\n"
                for rank, (document, score) in enumerate(
                    zip(documents[:count].tolist(), scores[:count].tolist(), strict=True), start=1
                )
            )
