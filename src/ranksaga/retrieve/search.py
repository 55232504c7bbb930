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

from ranksaga.encode.device_copies import sent
from ranksaga.errors import DataError, ModelError
from ranksaga.kernels.available import compiled_kernels
from ranksaga.profile import timed
from ranksaga.retrieve.best_documents import BestDocuments
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.rough_search import best_keys
from ranksaga.retrieve.sort_keys import decode_keys

if TYPE_CHECKING:
    import torch

__all__ = ["search"]

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
    best = BestDocuments(len(queries), len(query_vectors), depth, place)
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
