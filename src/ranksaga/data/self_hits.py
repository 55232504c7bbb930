"""Documents that are a query themselves, and so are no answer to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset
from ranksaga.data.words import tokens

__all__ = ["count_self_hits", "describe_self_hits", "self_hits"]


def self_hits(dataset: Dataset) -> NDArray[np.int32]:
    """For each query the corpus row that is left out of its rankings, or -1 (int32, one a query row).

    BEIR and MTEB leave out the document whose id is the query's: in ArguAna or Quora queries are documents, and each
    would find itself first. Two exceptions, both where ids are equal by chance, as row numbers are:

    - A document that is judged relevant to the query, in any split, is never left out: no model could reach its
      grade, as with 13 documents of CISI, Cranfield and Cystic Fibrosis.
    - Where such a judgment shows that a dataset numbers queries and documents independently, the other equal ids mean
      nothing, either: there a document is left out only if its title, its text or both are the query's text.
    """
    rows = dataset.corpus.rows
    same = np.array([rows.get(identifier, -1) for identifier in dataset.queries.ids], dtype=np.int32)
    relevant = _judged_relevant(dataset, same)
    if relevant.any():
        for query in np.flatnonzero((same >= 0) & ~relevant).tolist():
            if not _is_text_of(dataset, query, int(same[query])):
                same[query] = -1
    same[relevant] = -1
    return same


def count_self_hits(dataset: Dataset) -> int:
    """Judged queries whose rankings leave a document out."""
    judged = [qrels.query_rows for qrels in dataset.qrels.values()]
    return int((self_hits(dataset)[np.unique(np.concatenate(judged))] >= 0).sum()) if judged else 0


def describe_self_hits(count: int) -> str:
    """One line for the user."""
    queries = "1 query has" if count == 1 else f"{count} queries have"
    return f"{queries} the id of a document, which is left out of their rankings, as BEIR does"


def _judged_relevant(dataset: Dataset, same: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(queries,) whether the document of the query's id is judged relevant to it."""
    relevant = np.zeros(len(same), dtype=bool)
    for qrels in dataset.qrels.values():
        positives = qrels.positives
        relevant[positives.queries[same[positives.queries] == positives.documents]] = True
    return relevant


def _is_text_of(dataset: Dataset, query: int, document: int) -> bool:
    """Whether a document's title, its text or both have the query's words."""
    corpus = dataset.corpus
    words = tokens(dataset.queries.texts[query])
    return words in map(tokens, (corpus.texts[document], corpus.titles[document], corpus.documents[document]))
