"""Leakage audit: training queries that equal, or nearly equal, a query that is scored.

Such a query turns a score into a test of memory. On SciFact 116 of 300 test claims have a training
claim with cosine above 0.9 under MiniLM, 115 of them with the same gold document ("... correlates
with low methylation" in test, "... with high methylation" in train).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["COSINE", "JACCARD", "Kind", "Leak", "find_leaks", "near_copies", "normalised"]

# Above this cosine of the base model two queries are near-copies.
COSINE = 0.9
# Above this share of common words, too; short queries that differ in one word stay below it.
JACCARD = 0.8
BLOCK = 2048

Kind = Literal["exact", "lexical", "embedding"]


@dataclass(frozen=True)
class Leak:
    """A training query (row of the first table) close to a scored query (row of the second)."""

    kind: Kind
    training: int
    scored: int
    similarity: float


def normalised(text: str) -> str:
    """Case, width, punctuation and white space folded away."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def find_leaks(
    training: Sequence[str],
    training_vectors: NDArray[np.float32],
    scored: Sequence[str],
    scored_vectors: NDArray[np.float32],
) -> list[Leak]:
    """All close pairs, each once, under the strictest of its kinds.

    Args:
        training: n texts.
        training_vectors: (n, d) float32 vectors of the base model, of any length.
        scored: m texts.
        scored_vectors: (m, d) likewise.
    """
    left, right = [normalised(text) for text in training], [normalised(text) for text in scored]
    found: dict[tuple[int, int], Leak] = {}
    for row, column, value in _close_vectors(training_vectors, scored_vectors):
        found[row, column] = Leak("embedding", row, column, value)
    for row, column, value in _close_words(left, right):
        found[row, column] = Leak("lexical", row, column, value)
    places: dict[str, list[int]] = {}
    for column, text in enumerate(right):
        places.setdefault(text, []).append(column)
    for row, text in enumerate(left):
        for column in places.get(text, ()):
            found[row, column] = Leak("exact", row, column, 1.0)
    return [found[key] for key in sorted(found)]


def near_copies(texts: Sequence[str], vectors: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs of rows (low, high) of one table that are close."""
    leaks = find_leaks(texts, vectors, texts, vectors)
    return [(leak.training, leak.scored) for leak in leaks if leak.training < leak.scored]


def _close_vectors(left: NDArray[np.float32], right: NDArray[np.float32]) -> list[tuple[int, int, float]]:
    left, right = _unit(left), _unit(right)
    found = []
    for top in range(0, len(left), BLOCK):
        for side in range(0, len(right), BLOCK):
            similarity = left[top : top + BLOCK] @ right[side : side + BLOCK].T
            for row, column in zip(*np.nonzero(similarity > COSINE), strict=True):
                found.append((top + int(row), side + int(column), float(similarity[row, column])))
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; rows of zeros stay. Models made for the dot product give other lengths."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _close_words(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int, float]]:
    """Pairs whose sets of words have a Jaccard similarity of at least ``JACCARD``.

    Only texts that share one of their rarest words are compared: two sets this similar must
    (prefix filter; Chaudhuri et al. 2006, Bayardo et al. 2007), so common words cost nothing.
    """
    a_words, b_words = [set(text.split()) for text in left], [set(text.split()) for text in right]
    counts = Counter(word for words in (*a_words, *b_words) for word in words)
    columns = {word: column for column, word in enumerate(sorted(counts, key=lambda word: (counts[word], word)))}
    a, b = ([sorted(columns[word] for word in words) for words in side] for side in (a_words, b_words))
    a_rarest, b_rarest = (_matrix([row[: _prefix(len(row))] for row in side], len(columns)) for side in (a, b))
    found = []
    for start in range(0, len(a), BLOCK):
        candidates = (a_rarest[start : start + BLOCK] @ b_rarest.T).tocoo()
        for row, column in zip((candidates.row + start).tolist(), candidates.col.tolist(), strict=True):
            common = len(a_words[row] & b_words[column])
            jaccard = common / (len(a_words[row]) + len(b_words[column]) - common)
            if jaccard >= JACCARD:
                found.append((row, column, jaccard))
    return found


def _prefix(size: int) -> int:
    """How many of a set's rarest words another set must meet to be similar enough."""
    # Just below, so that rounding can only lengthen the prefix.
    return size - math.ceil(JACCARD * size - 1e-9) + 1 if size else 0


def _matrix(rows: Sequence[Sequence[int]], width: int) -> csr_matrix:
    """Rows of columns as a sparse matrix of ones."""
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((column for row in rows for column in row), dtype=np.int64, count=int(ends[-1]))
    return csr_matrix((np.ones(len(columns), dtype=np.float32), columns, ends), shape=(len(rows), max(1, width)))
