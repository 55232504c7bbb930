"""Leakage audit: training queries that equal, or nearly equal, a query that is scored.

Such a query turns a score into a test of memory. On SciFact 116 of 300 test claims have a training
claim with cosine above 0.9 under MiniLM, 115 of them with the same gold document ("... correlates
with low methylation" in test, "... with high methylation" in train).
"""

from __future__ import annotations

import re
import unicodedata
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
        training_vectors: (n, d) float32 unit vectors of the base model.
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
    found = []
    for start in range(0, len(left), BLOCK):
        similarity = left[start : start + BLOCK] @ right.T
        for row, column in zip(*np.nonzero(similarity > COSINE), strict=True):
            found.append((start + int(row), int(column), float(similarity[row, column])))
    return found


def _close_words(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int, float]]:
    """Pairs whose sets of words have a Jaccard similarity of at least ``JACCARD``."""
    vocabulary: dict[str, int] = {}
    a, b = _word_matrix(left, vocabulary), _word_matrix(right, vocabulary)
    width = len(vocabulary)
    a.resize((len(left), width))
    b.resize((len(right), width))
    sizes = np.asarray(b.sum(axis=1)).ravel()
    found = []
    for start in range(0, len(left), BLOCK):
        block = a[start : start + BLOCK]
        common = (block @ b.T).tocoo()
        own = np.asarray(block.sum(axis=1)).ravel()
        jaccard = common.data / (own[common.row] + sizes[common.col] - common.data)
        for index in np.nonzero(jaccard >= JACCARD)[0]:
            found.append((start + int(common.row[index]), int(common.col[index]), float(jaccard[index])))
    return found


def _word_matrix(texts: Sequence[str], vocabulary: dict[str, int]) -> csr_matrix:
    from scipy.sparse import csr_matrix

    columns: list[int] = []
    ends = [0]
    for text in texts:
        columns += sorted({vocabulary.setdefault(word, len(vocabulary)) for word in text.split()})
        ends.append(len(columns))
    ones = np.ones(len(columns), dtype=np.float32)
    return csr_matrix((ones, np.array(columns, dtype=np.int64), ends), shape=(len(texts), max(1, len(vocabulary))))
