"""Exact dense search, streamed over the corpus.

Every query is scored against every document, yet only a tile of scores is ever in memory.
The k-th best score of each query so far is a threshold: of later tiles only the few scores
that reach it are kept, so the selection costs little beside the matrix product. (In a corpus
of random order about ``k ln(N / k)`` of N documents ever pass.) Where a large corpus is at hand
as one array and the processor is fast in bf16, a rough first pass finds candidates (see ``rough``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.self_hits import self_hits
from ranksaga.encode.transfer import sent
from ranksaga.errors import DataError, ModelError
from ranksaga.kernels.available import compiled_kernels
from ranksaga.profile import timed
from ranksaga.retrieve.order import NOTHING, decode_keys
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.rough import best_keys

if TYPE_CHECKING:
    import torch

__all__ = ["search", "self_hits"]

# Documents of one tile, and queries scored against it at once: 256 x 32768 float32 scores
# are 32 MiB on a CPU, 512 MiB on a GPU, which needs more work at a time to be busy.
_TILE = 32768
_QUERIES_AT_ONCE = {"cpu": 256, "cuda": 4096}
# Matrix products round the rows of a remainder differently. With whole multiples, equal
# documents get equal scores wherever they stand.
_MULTIPLE = 64
# A rough first pass is taken from this many products on, and where it leaves few documents of many.
_LARGE = 5e10
_SHALLOW = 32


def search(
    query_vectors: NDArray[np.float32],
    document_blocks: Iterable[tuple[int, NDArray[np.float32]]],
    *,
    query_rows: NDArray[np.int32],
    ties: NDArray[np.int32],
    depth: int = 1000,
    exclude: NDArray[np.int32] | None = None,
    device: str | torch.device | None = None,
) -> Rankings:
    """The ``depth`` documents with the largest inner product for each query, exactly.

    The result does not depend on how the corpus is cut into blocks, but for the last bits of scores where a large
    corpus is given as one (see ``rough``). Memory: a tile of documents, a tile of scores, and the results; there
    also the candidates, which are bounded.

    Args:
        query_vectors: (n, d) float32.
        document_blocks: (first corpus row, (m, d) float32) in corpus order, without gaps.
        query_rows: (n,) rows of the queries in the dataset, kept in the result.
        ties: tie rank of every corpus row, from ``tie_order``.
        depth: results a query, fewer where the corpus is smaller.
        exclude: (n,) one corpus row a query that is not ranked, or -1.
        device: where to compute; None means CUDA where there is one, else the CPU.

    Raises:
        DataError: the blocks are not the whole corpus in order.
        ModelError: a vector holds NaN or infinity.
    """
    import torch

    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _check_finite(query_vectors, "query", 0)
    own = np.full(len(query_rows), -1, dtype=np.int64) if exclude is None else exclude.astype(np.int64)
    whole = _whole(document_blocks, (len(ties), query_vectors.shape[1]))
    if whole is not None and place.type == "cpu" and _pays(len(query_rows), whole, depth):
        _check_finite(whole, "document", 0)
        keys = _in_two_passes(query_vectors, whole, ties, depth, own, place)
    else:
        keys = _in_one_pass(query_vectors, document_blocks, ties, min(depth, len(ties)), own, place)
    return Rankings(query_rows.astype(np.int32), *decode_keys(keys, ties))


def _whole(blocks: Iterable[tuple[int, NDArray[np.float32]]], shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The corpus, where it is at hand as one array of this shape."""
    if not isinstance(blocks, Sequence) or len(blocks) != 1:
        return None
    first, vectors = blocks[0]
    return vectors if first == 0 and vectors.shape == shape and vectors.dtype == np.float32 else None


def _pays(queries: int, documents: NDArray[np.float32], depth: int) -> bool:
    """Whether a rough first pass is worth its while."""
    large = queries * documents.size >= _LARGE and 0 < _SHALLOW * depth <= len(documents)
    return large and compiled_kernels() is not None


def _in_two_passes(
    query_vectors: NDArray[np.float32],
    documents: NDArray[np.float32],
    ties: NDArray[np.int32],
    depth: int,
    own: NDArray[np.int64],
    place: torch.device,
) -> NDArray[np.int64]:
    """Keys (n, depth) of the best documents, best first."""
    kernels = compiled_kernels()
    assert kernels is not None
    with timed("search", 2.0 * len(query_vectors) * documents.size):
        asked, documents = (np.ascontiguousarray(one, dtype=np.float32) for one in (query_vectors, documents))
        keys, uncertain = best_keys(asked, documents, ties, depth, own, kernels)
    if len(uncertain):
        blocks = ((first, documents[first : first + _TILE]) for first in range(0, len(documents), _TILE))
        keys[uncertain] = _in_one_pass(query_vectors[uncertain], blocks, ties, depth, own[uncertain], place)
    return keys


def _in_one_pass(
    query_vectors: NDArray[np.float32],
    document_blocks: Iterable[tuple[int, NDArray[np.float32]]],
    ties: NDArray[np.int32],
    depth: int,
    own: NDArray[np.int64],
    place: torch.device,
) -> NDArray[np.int64]:
    """Keys (n, depth) of the best documents, best first."""
    import torch

    queries = torch.from_numpy(_padded(query_vectors)).to(place)
    best = _Best(len(queries), len(query_vectors), depth, place)
    tie_keys = torch.from_numpy(0x7FFFFFFF - np.append(ties, np.zeros(_MULTIPLE)).astype(np.int64)).to(place)
    chunk = _QUERIES_AT_ONCE.get(place.type, 256)
    room = min(chunk, len(queries)) * _TILE
    scratch, mask = torch.empty(room, device=place), torch.empty(room, dtype=torch.bool, device=place)
    seen = 0
    flops = 2.0 * query_vectors.size * len(ties)
    with torch.inference_mode(), _full_precision(), timed("search", flops):
        for first, size, tile in _tiles(document_blocks, query_vectors.shape[1]):
            seen = first + size
            if seen > len(ties):
                break
            documents = sent(tile, place)
            for start in range(0, len(queries), chunk):
                asked = queries[start : start + chunk]
                scores = scratch[: len(asked) * len(tile)].view(len(asked), len(tile))
                torch.mm(asked, documents.T, out=scores)
                scores[:, size:] = float("-inf")
                _remove(scores, own[start : start + chunk] - first)
                best.update(slice(start, start + chunk), scores, tie_keys[first : first + len(tile)], mask)
    if seen != len(ties):
        raise DataError(
            f"the document vectors cover {seen} rows and the corpus has {len(ties)}; encode the whole corpus"
        )
    return best.sorted(len(query_vectors))


class _Best:
    """The best results so far of every query, as unsorted keys (see ``order``), on the device.

    Queries behind ``real`` are padding and get no results.
    """

    def __init__(self, queries: int, real: int, depth: int, device: torch.device) -> None:
        import torch

        self.keys = torch.full((queries, depth), NOTHING, dtype=torch.int64, device=device)
        # What a score must reach. The least finite number lets all pass but -inf, which is no result.
        self.thresholds = torch.full((queries, 1), torch.finfo(torch.float32).min, device=device)
        self.thresholds[real:] = float("inf")
        self._begun: set[int] = set()  # first rows of the slices that have seen a tile

    def update(self, rows: slice, scores: torch.Tensor, tie_keys: torch.Tensor, mask: torch.Tensor) -> None:
        """Merge scores (queries, m) of m further documents.

        ``tie_keys`` (m,) is the lower half of their keys, ``mask`` room for a flag a score.
        """
        import torch

        kept, thresholds = self.keys[rows], self.thresholds[rows]
        depth, width = kept.shape[1], scores.shape[1]
        if depth == 0:
            return
        if width > depth and rows.start not in self._begun:
            # The first tile would pass whole. Its own k-th score is a lower bound of the final one.
            torch.maximum(thresholds, scores.topk(depth, sorted=False).values.amin(dim=1, keepdim=True), out=thresholds)
        self._begun.add(rows.start)
        # Equal to the threshold passes: there the tie rank decides.
        passed, counts, most = _where(torch.ge(scores, thresholds, out=mask[: scores.numel()].view(scores.shape)))
        if most == 0:
            return
        query = passed // width
        keys = _score_keys(scores.view(-1)[passed]) | tie_keys[passed - query * width]
        place = torch.arange(depth, depth + len(passed), device=passed.device) - (counts.cumsum(0) - counts)[query]
        pool = torch.full((len(kept), depth + most), NOTHING, device=passed.device)
        pool[:, :depth] = kept
        pool[query, place] = keys
        torch.topk(pool, depth, sorted=False, out=(kept, torch.empty_like(kept)))
        worst = kept.amin(dim=1, keepdim=True)
        torch.where(worst == NOTHING, thresholds, _scores_of(worst), out=thresholds)

    def sorted(self, queries: int) -> NDArray[np.int64]:
        """The keys of the first queries, best first."""
        keys: NDArray[np.int64] = self.keys[:queries].sort(dim=1, descending=True).values.cpu().numpy()
        return keys


def _where(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Flat positions of the true values, ascending; how many each row has, and the most that one has.

    A GPU is waited for once. On a CPU NumPy's search is several times faster than torch's.
    """
    import torch

    if mask.device.type == "cpu":
        passed = torch.from_numpy(np.flatnonzero(mask.numpy()))
        counts = torch.bincount(passed // mask.shape[1], minlength=len(mask))
        return passed, counts, int(counts.max()) if len(passed) else 0
    counts = mask.sum(dim=1)
    total, most = torch.stack([counts.sum(), counts.max()]).tolist()
    return mask.view(-1).nonzero_static(size=total)[:, 0], counts, most


def _score_keys(scores: torch.Tensor) -> torch.Tensor:
    """Upper half of the keys of finite scores, as ``order.encode_keys`` makes it."""
    import torch

    bits = (scores + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32


def _scores_of(keys: torch.Tensor) -> torch.Tensor:
    """The scores that keys hold."""
    import torch

    ordered = (keys >> 32).int()
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _tiles(
    blocks: Iterable[tuple[int, NDArray[np.float32]]], width: int
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Recut blocks into tiles (first row, rows, vectors padded with zeros).

    Where tiles begin and end depends on the corpus rows alone. The product of two tiles is
    rounded in one way only, so results are equal to the last bit for any block size.
    """
    first, filled, tile = 0, 0, np.zeros((_TILE, width), dtype=np.float32)
    for begin, block in blocks:
        if begin != first + filled or block.ndim != 2 or block.shape[1] != width:
            raise DataError(
                f"document block at row {begin} of shape {block.shape} does not follow row {first + filled} "
                f"with {width} columns; give blocks in corpus order, encoded by the model of the queries"
            )
        _check_finite(block, "document", begin)
        taken = 0
        while taken < len(block):
            step = min(len(block) - taken, len(tile) - filled)
            tile[filled : filled + step] = block[taken : taken + step]
            taken, filled = taken + step, filled + step
            if filled == len(tile):
                yield first, filled, tile
                first, filled = first + filled, 0
                tile = np.zeros((_TILE, width), dtype=np.float32)
    if filled:
        yield first, filled, tile[: -(-filled // _MULTIPLE) * _MULTIPLE]


def _padded(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """A float32 copy with rows of zeros up to a whole multiple."""
    rows = -(-len(vectors) // _MULTIPLE) * _MULTIPLE
    result = np.zeros((rows, vectors.shape[1]), dtype=np.float32)
    result[: len(vectors)] = vectors
    return result


def _remove(scores: torch.Tensor, columns: NDArray[np.integer[Any]]) -> None:
    """Set one column a row to -inf, where the column lies in this tile."""

    rows = np.flatnonzero((columns >= 0) & (columns < scores.shape[1]))
    if len(rows):
        places = (sent(one.astype(np.int64), scores.device) for one in (rows, columns[rows]))
        scores[tuple(places)] = float("-inf")


def _check_finite(vectors: NDArray[np.float32], kind: str, first: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(vectors.sum(axis=1)))  # a sum takes less time than a flag a number
    bad = ~np.isfinite(vectors[suspects]).all(axis=1)
    if bad.any():
        raise ModelError(
            f"the vector of {kind} {first + int(suspects[bad.argmax()])} holds NaN or infinity; "
            "encode in fp32, or check the model's weights"
        )


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products in real float32: a trainer may have allowed TF32 or bf16 for the whole process."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
