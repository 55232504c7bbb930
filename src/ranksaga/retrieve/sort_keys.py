"""The order of rankings as one integer per result: higher score first, then lower tie rank.

A float32 score and a tie rank are packed into one int64 that sorts like the pair. Selecting
the largest keys is then exact at the cut-off too, where a top-k over scores alone picks
arbitrarily among equal ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTHING", "decode_keys", "encode_keys", "take_best"]

# Below every real key: its upper half is no finite score.
NOTHING: int = -(2**63)
_MAX_RANK = 2**31 - 1


def encode_keys(scores: NDArray[np.float32], ranks: NDArray[np.int32]) -> NDArray[np.int64]:
    """Keys of results with these scores and tie ranks (same shape); -inf gives ``NOTHING``."""
    # Adding zero turns -0.0 into 0.0, which are equal as scores and not as bits.
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (ordered.astype(np.int64) << 32) | (_MAX_RANK - ranks.astype(np.int64))
    return np.where(np.isneginf(scores), NOTHING, keys)


def take_best(keys: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """The ``depth`` largest keys of each row (of all where there are fewer), best first."""
    width = keys.shape[1]
    if depth < width:
        keys = np.partition(keys, width - depth, axis=1)[:, width - depth :]
    return np.sort(keys, axis=1)[:, ::-1]


def decode_keys(keys: NDArray[np.int64], ties: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Documents and scores of keys; ``NOTHING`` becomes document -1 with score -inf.

    ``ties`` is the tie rank of every corpus row (:func:`ranksaga.retrieve.rankings.tie_order`).
    """
    empty = keys == NOTHING
    by_rank = np.argsort(ties).astype(np.int32)
    ranks = np.where(empty, 0, _MAX_RANK - (keys & 0xFFFFFFFF))
    ordered = (keys >> 32).astype(np.int32)
    scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(np.float32)
    documents = by_rank[ranks] if len(by_rank) else np.empty(keys.shape, dtype=np.int32)
    return (
        np.where(empty, -1, documents).astype(np.int32),
        np.where(empty, -np.inf, scores).astype(np.float32),
    )
