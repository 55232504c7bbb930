"""Hard negatives: documents that the base model ranks high and that are no answers.

The search is exact. Among what ranks high are many unlabelled answers, so a negative must score at most a given share
of its positive's score (the relative margin of NV-Retriever, Moreira et al. 2024, "TopK-PercPos"). Both are counted
from the query's mean similarity to the corpus: where a model's cosines all lie between 0.75 and 0.9, 95% of a cosine is
below nearly all of them. Whatever is known to be relevant is left out. Which of the mined ones a batch uses is drawn
anew each epoch (``TrainingPairs.columns``). Documents that the data judge not relevant (0) come before mined ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Qrels
from ranksaga.errors import DataError
from ranksaga.retrieve.search import search
from ranksaga.train.pairs import NO_DOCUMENT, TrainingPairs, first_equal

__all__ = ["mine_negatives", "with_given_negatives"]


def mine_negatives(
    pairs: TrainingPairs,
    query_vectors: NDArray[np.float32],
    document_vectors: NDArray[np.float32],
    *,
    margin: float,
    pool: int = 16,
    depth: int = 256,
) -> TrainingPairs:
    """The pairs with up to ``pool`` mined negatives each, hardest first.

    A pair whose positive ranks so low that all of the top ``depth`` score above the margin
    gets none: there the labels, not the model, are in doubt.

    Args:
        pairs: what to mine for.
        query_vectors: (queries, d) float32, one row a query text of ``pairs``.
        document_vectors: (documents, d) float32, one row a document text of ``pairs``.
        margin: a negative scores at most this share of the positive's score above the query's mean, 0 to 1.
        pool: most negatives kept per pair.
        depth: how many of each query's top documents are looked at.

    Raises:
        DataError: the vectors do not fit the texts.
    """
    for kind, vectors, texts in (
        ("query", query_vectors, pairs.queries),
        ("document", document_vectors, pairs.documents),
    ):
        if len(vectors) != len(texts):
            raise DataError(
                f"{pairs.name}: {len(vectors)} {kind} vectors for {len(texts)} texts; encode all of them, in order"
            )
    rows, place = np.unique(pairs.example_queries, return_inverse=True)
    ranked = search(
        query_vectors[rows],
        [(0, document_vectors)],
        query_rows=rows.astype(np.int32),
        ties=np.arange(len(document_vectors), dtype=np.int32),
        depth=depth,
    )
    usable = ~_among(ranked.queries, ranked.documents, pairs.not_negative, len(pairs.documents))
    # Of documents with equal text only the first is in the tables of what is known.
    first = first_equal(pairs.documents)
    usable &= first[ranked.documents] == ranked.documents
    asked = query_vectors[pairs.pairs[:, 0]]
    positive = np.einsum("nd,nd->n", asked, document_vectors[pairs.pairs[:, 1]])
    # |s| keeps the bound below the positive where that scores less than the mean.
    bound = positive - (1.0 - margin) * np.abs(positive - asked @ document_vectors.mean(axis=0))
    mined = np.full((len(pairs), pool), NO_DOCUMENT, dtype=np.int32)
    for index, row in enumerate(place):
        kept = ranked.documents[row][usable[row] & (ranked.scores[row] <= bound[index])][:pool]
        mined[index, : len(kept)] = kept
    return pairs.with_negatives(mined)


def with_given_negatives(pairs: TrainingPairs, judged: Qrels, wanted: int) -> TrainingPairs:
    """The pairs, those of queries with documents judged 0 with these as negatives.

    A pair with fewer of them than ``wanted`` keeps as many mined ones beside them as are missing, hardest first.

    Args:
        pairs: with mined negatives (n, pool), or none.
        judged: grades by row of the dataset's queries and documents; 0 is a given negative.
        wanted: negatives of a pair in a batch.
    """
    first = first_equal(pairs.documents)
    same_query = first_equal(pairs.queries)
    given: dict[int, list[int]] = {}
    for query, document in zip(judged.queries[judged.scores == 0], judged.documents[judged.scores == 0], strict=True):
        row, negative = int(same_query[query]), int(first[document])
        if pairs.documents[negative].strip() and negative not in pairs.known.get(row, ()):
            given.setdefault(row, []).append(negative)
    if not given:
        return pairs
    mined = np.empty((len(pairs), 0), dtype=np.int32) if pairs.negatives is None else pairs.negatives
    width = max(mined.shape[1], wanted, *map(len, given.values()))
    pool = np.full((len(pairs), width), NO_DOCUMENT, dtype=np.int32)
    pool[:, : mined.shape[1]] = mined
    for index, query in enumerate(pairs.example_queries.tolist()):
        if query in given:
            own = list(dict.fromkeys(given[query]))
            more = [row for row in mined[index].tolist() if row != NO_DOCUMENT and row not in own]
            taken = own + more[: max(0, wanted - len(own))]
            pool[index] = taken + [NO_DOCUMENT] * (width - len(taken))
    return pairs.with_negatives(pool)


def _among(
    queries: NDArray[np.int32], documents: NDArray[np.int32], known: NDArray[np.int32], corpus: int
) -> NDArray[np.bool_]:
    """Which of ``documents`` (n, k) are known for their query (n,), or no document at all."""
    keys = queries.astype(np.int64)[:, None] * corpus + documents
    found: NDArray[np.bool_] = np.isin(keys, known[:, 0].astype(np.int64) * corpus + known[:, 1])
    found |= documents == NO_DOCUMENT
    return found
