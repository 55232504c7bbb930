"""Rankings of a corpus in shards, merged into those of the whole corpus.

A shard is a range of corpus rows that is searched by itself, on another machine or when its file's turn comes. The
merge looks at ``shards x depth`` results a query, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranksaga.errors import DataError
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.sort_keys import decode_keys, encode_keys, take_best

__all__ = ["merge_rankings", "shard_ties"]


def shard_ties(ties: NDArray[np.int32], first: int, count: int) -> NDArray[np.int32]:
    """Tie ranks (count,) of a shard's rows among themselves, from those of the whole corpus.

    Args:
        ties: (documents,) from ``tie_order`` over the whole corpus.
        first: the shard's first corpus row.
        count: its rows.
    """
    ranks = np.empty(count, dtype=np.int32)
    ranks[np.argsort(ties[first : first + count], kind="stable")] = np.arange(count, dtype=np.int32)
    return ranks


def merge_rankings(shards: Sequence[tuple[int, Rankings]], ties: NDArray[np.int32], *, depth: int) -> Rankings:
    """The ``depth`` best documents of each query over all shards, equal scores in the order of the whole corpus.

    The result is that of one search over the whole corpus, to the last bit where shards begin at multiples of the
    search's tile (32,768 rows): a product of other shape may round a score differently.

    Args:
        shards: (first corpus row, rankings whose documents are rows of the shard), each at least ``depth`` deep or
            as deep as the shard is large.
        ties: (documents,) tie rank of every row of the whole corpus, from ``tie_order``.
        depth: results a query; fewer where the shards hold fewer.

    Raises:
        DataError: no shard, or shards that rank different queries.
    """
    if not shards:
        raise DataError("no shard was given; search at least one")
    queries = shards[0][1].queries
    keys = []
    for first, part in shards:
        if not np.array_equal(part.queries, queries):
            raise DataError(
                f"the shard at row {first} ranks other queries than the first one; search all shards with the same"
            )
        found = part.documents >= 0
        ranks = ties[np.where(found, part.documents + first, 0)]
        keys.append(encode_keys(np.where(found, part.scores, np.float32(-np.inf)), ranks))
    documents, scores = decode_keys(take_best(np.concatenate(keys, axis=1), depth), ties)
    return Rankings(queries, documents, scores)
