"""Exact dense search in two passes, for processors whose bf16 matrix products are much faster than fp32.

The first pass scores every document in bf16, with a bound on its error. What can be among the best by that bound
is scored again in float32. So the best are those of float32, with its scores, whose last bits may differ from those of
a single pass as between any two orders of summation. Documents are read once for every ``GROUP`` of queries and those
of the second pass again, which asks for all of them at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranksaga.retrieve.order import NOTHING, encode_keys, take_best

if TYPE_CHECKING:
    import torch

__all__ = ["best_keys"]

_T = TypeVar("_T")

TILE, CHUNK = 4096, 512  # documents and queries of one product, whose result stays in the processor's cache
GROUP = 8 * CHUNK  # queries whose candidates are in memory together, over all threads
AGAIN = 4  # queries scored a second time at once
MULTIPLE = 64  # so that every row is rounded the same way, see ``search``
SAMPLE = (8192, 65536)  # documents, at least and at most, that tell where a query's best ones begin
SAMPLED = 32  # of the best ones that the sample should hold
SPREAD = 2.5  # standard deviations of that number; what still goes wrong is searched exactly at once
UNIT = 1 / 256  # rounding to bf16 takes at most this share of a number
MOST = 8  # times as many candidates as results; a query with more is left to one pass, which is then faster
HOPELESS = 0.1  # share of such queries from which on all are


def best_keys(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    ties: NDArray[np.int32],
    depth: int,
    own: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Keys (n, depth) of the best documents, best first, and the rows (m,) of queries for which they are not certain.

    ``None`` where bf16 says too little of these vectors to gain anything.

    Args:
        queries: (n, d) float32, finite.
        documents: (m, d) float32, finite, with m at least ``depth``.
        ties: (m,) tie ranks.
        depth: results a query.
        own: (n,) a document a query that is no result, or -1.
    """
    import torch

    with torch.inference_mode():
        asked = torch.from_numpy(np.array(queries))
        rough = asked.bfloat16()
        slack = _slack(asked, rough, documents)
        begins = _begins(rough, documents, depth, slack)
    if float(begins.isposinf().float().mean()) > HOPELESS:
        return None
    keys = np.full((len(queries), depth), NOTHING, dtype=np.int64)

    def work(group: slice) -> list[int]:
        uncertain: list[int] = []
        with torch.inference_mode():  # a thread's own
            found = _candidates(rough[group], documents, begins[group])
            for start, parts in zip(range(group.start, group.stop, CHUNK), found, strict=True):
                rows = slice(start, min(group.stop, start + CHUNK))
                kept, least = _by_query(*parts, depth, own[rows])
                cut = _surely_below(torch.from_numpy(least), slack[rows])
                uncertain += (start + np.flatnonzero(~(cut >= begins[rows, 0].float()).numpy())).tolist()
                chosen = [columns[scores >= least] for (columns, scores), least in zip(kept, cut.numpy(), strict=True)]
                keys[rows] = _again(asked[rows], documents, chosen, ties, depth)
        return uncertain

    found = _side_by_side(work, len(queries))
    return keys, np.array([row for rows in found for row in rows], dtype=np.int64)


def _side_by_side(work: Callable[[slice], _T], count: int) -> list[_T]:
    """Groups of queries (slices of ``count``), each by one thread: half of the work would not use more."""
    import torch

    threads = torch.get_num_threads()
    rounds = -(-count // GROUP)
    size = max(CHUNK, -(-count // (rounds * threads)))
    groups = [slice(first, min(count, first + size)) for first in range(0, count, size)]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, groups))
    finally:
        torch.set_num_threads(threads)  # the pool's threads have also changed what all share


def _slack(asked: torch.Tensor, rough: torch.Tensor, documents: NDArray[np.float32]) -> torch.Tensor:
    """(n,) how far a score of rounded vectors can be from that of the exact ones: Cauchy-Schwarz on what rounding
    took from both, and sums in float32."""
    import torch

    longest = furthest = 0.0
    for start in range(0, len(documents), TILE):
        exact = torch.from_numpy(np.array(documents[start : start + TILE]))  # a copy: torch wants to be able to write
        longest = max(longest, float(exact.norm(dim=1).max()))
        furthest = max(furthest, float((exact - exact.bfloat16().float()).norm(dim=1).max()))
    norms = asked.norm(dim=1)
    lost = (asked - rough.float()).norm(dim=1) * longest + rough.float().norm(dim=1) * furthest
    sums = 2 * asked.shape[1] * torch.finfo(torch.float32).eps * norms * longest
    slack: torch.Tensor = (lost + sums) * 1.001
    return slack


def _surely_below(scores: torch.Tensor, slack: torch.Tensor) -> torch.Tensor:
    """What no rough score falls below if its exact one is at least the exact one behind a rough score of ``scores``."""
    exact: torch.Tensor = scores - slack - UNIT * (scores.abs() + slack)
    rough: torch.Tensor = exact - slack - UNIT * (exact.abs() + slack)
    return rough


def _begins(rough: torch.Tensor, documents: NDArray[np.float32], depth: int, slack: torch.Tensor) -> torch.Tensor:
    """(n, 1) bf16, from which score on documents are looked at, by a sample; infinity where that is too many."""
    import torch

    count = len(documents)
    size = min(count, int(np.clip(SAMPLED * count // depth, *SAMPLE)))
    rows = np.sort(np.random.default_rng(0).choice(count, size, replace=False))
    sample = torch.from_numpy(documents[rows]).bfloat16().T
    expected = depth * size / count
    place = min(size, max(1, int(np.ceil(expected + SPREAD * expected**0.5 + 1))))
    begins = torch.empty(len(rough), 1, dtype=torch.bfloat16)

    def work(group: slice) -> None:
        with torch.inference_mode():
            for start in range(group.start, group.stop, CHUNK):
                rows = slice(start, min(group.stop, start + CHUNK))
                scores = rough[rows] @ sample
                least = _surely_below(scores.topk(place, dim=1).values[:, -1].float(), slack[rows])
                part = begins[rows]
                part[:, 0] = least.bfloat16()
                part[(scores >= part).sum(dim=1) * (count / size) > MOST * depth] = float("inf")

    _side_by_side(work, len(rough))
    return begins


def _candidates(
    rough: torch.Tensor, documents: NDArray[np.float32], begins: torch.Tensor
) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.float32]]]:
    """For each chunk of queries what passes: rows within the chunk, documents, rough scores; in no order."""
    import torch

    chunks = range(0, len(rough), CHUNK)
    found: list[list[tuple[NDArray[np.uint16], NDArray[np.int32], torch.Tensor]]] = [[] for _ in chunks]
    scratch, mask = torch.empty(CHUNK * TILE, dtype=torch.bfloat16), torch.empty(CHUNK * TILE, dtype=torch.bool)
    for first in range(0, len(documents), TILE):
        tile = torch.from_numpy(np.array(documents[first : first + TILE])).bfloat16()
        for parts, start in zip(found, chunks, strict=True):
            asked, least = rough[start : start + CHUNK], begins[start : start + CHUNK]
            room = len(asked) * len(tile)
            scores, flags = (one[:room].view(len(asked), len(tile)) for one in (scratch, mask))
            torch.mm(asked, tile.T, out=scores)
            passed = _reach(scores, least, flags)
            rows, columns = np.divmod(passed, len(tile))
            parts.append(
                (rows.astype(np.uint16), (columns + first).astype(np.int32), scratch[torch.from_numpy(passed)])
            )
    for parts in found:
        rows_of, columns_of, scores_of = zip(*parts, strict=True)
        parts.clear()
        yield np.concatenate(rows_of), np.concatenate(columns_of), torch.cat(scores_of).float().numpy()


def _reach(scores: torch.Tensor, least: torch.Tensor, out: torch.Tensor) -> NDArray[np.int64]:
    """Places in ``scores`` (n, m), flattened, of those that reach their row's ``least`` (n, 1); both bf16."""
    import torch

    if bool((least > 0).all()):
        # Beside positive numbers bf16 is in the order of its bits, and NumPy compares integers five times as fast.
        bits, bound = (one.view(torch.int16).numpy() for one in (scores, least))
        np.greater_equal(bits, bound, out=out.numpy())
    else:
        torch.ge(scores, least, out=out)
    return np.flatnonzero(out.numpy())


def _by_query(
    rows: NDArray[np.uint16],
    columns: NDArray[np.int32],
    scores: NDArray[np.float32],
    depth: int,
    own: NDArray[np.int64],
) -> tuple[list[tuple[NDArray[np.int32], NDArray[np.float32]]], NDArray[np.float32]]:
    """The candidates of each query of a chunk, without its own document; and its ``depth``-th score, -inf where there
    are fewer, or far more than the sample had said."""
    others = columns != own[rows]
    rows, columns, scores = rows[others], columns[others], scores[others]
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows, minlength=len(own)))[:-1]
    kept = list(zip(np.split(columns[order], ends), np.split(scores[order], ends), strict=True))
    kept = [one if len(one[0]) <= 2 * MOST * depth else (one[0][:0], one[1][:0]) for one in kept]
    least = [-np.inf if len(one) < depth else np.partition(one, len(one) - depth)[len(one) - depth] for _, one in kept]
    return kept, np.array(least, dtype=np.float32)


def _again(
    asked: torch.Tensor,
    documents: NDArray[np.float32],
    chosen: list[NDArray[np.int32]],
    ties: NDArray[np.int32],
    depth: int,
) -> NDArray[np.int64]:
    """Keys (n, depth) of candidates, best first, from float32 scores."""
    import torch

    found = []
    most = max(depth, max(map(len, chosen)) + MULTIPLE)
    room = torch.empty(AGAIN * most, documents.shape[1])  # used again: fresh memory would cost as much as reading
    for first in range(0, len(chosen), AGAIN):
        part = chosen[first : first + AGAIN]
        width = max(depth, -(-max(map(len, part)) // MULTIPLE) * MULTIPLE)
        rows = np.zeros((len(part), width), dtype=np.int64)
        real = np.arange(width) < np.array([len(one) for one in part])[:, None]
        rows[real] = np.concatenate(part)
        vectors = _read(documents, rows.ravel(), room).view(len(part), width, -1)
        scores = torch.bmm(vectors, asked[first : first + AGAIN, :, None])[:, :, 0].numpy()
        found.append(take_best(np.where(real, encode_keys(scores, ties[rows]), NOTHING), depth))
    return np.concatenate(found)


def _read(documents: NDArray[np.float32], rows: NDArray[np.int64], room: torch.Tensor) -> torch.Tensor:
    """Some vectors, in ``room``; on all cores where torch may see the array."""
    import torch

    read = room[: len(rows)]
    if documents.flags.writeable:
        return torch.index_select(torch.from_numpy(documents), 0, torch.from_numpy(rows), out=read)
    np.take(documents, rows, axis=0, out=read.numpy(), mode="clip")  # rows are in range; "raise" would copy
    return read
