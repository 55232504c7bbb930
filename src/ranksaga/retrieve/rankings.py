"""Rankings: per query the best documents with their scores, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rankings", "tie_order"]


@dataclass(frozen=True)
class Rankings:
    """For each ranked query the best documents, best first.

    ``queries`` (n,) int32: rows of the dataset's queries. ``documents`` (n, k) int32: rows of
    the corpus, -1 behind the last result. ``scores`` (n, k) float32, -inf behind the last result.
    Equal scores stand in descending order of document id, as in trec_eval.
    """

    queries: NDArray[np.int32]
    documents: NDArray[np.int32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def depth(self) -> int:
        """Number of columns, k."""
        return int(self.documents.shape[1])


def tie_order(ids: tuple[str, ...]) -> NDArray[np.int32]:
    """Rank of each document in descending order of id: among equal scores the lower rank comes first.

    trec_eval breaks ties so (by ``strcmp``, hence by UTF-8 bytes); an own rule would give other figures.
    """
    order = sorted(range(len(ids)), key=lambda row: ids[row].encode("utf-8"), reverse=True)
    ranks = np.empty(len(ids), dtype=np.int32)
    ranks[np.array(order, dtype=np.int64)] = np.arange(len(ids), dtype=np.int32)
    return ranks
