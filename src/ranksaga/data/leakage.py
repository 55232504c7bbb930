"""Leakage audit: training queries that equal, or nearly equal, a query that is scored.

Such a query turns a score into a test of memory. Of SciFact's 300 test claims 122 have a near-copy in training, nearly
all under the same gold document ("... correlates with low methylation" in test, "... with high methylation" in train).

The measure reads the texts alone: the share of common character trigrams. So the same queries train and are scored
whatever model is trained, and the audit needs no vectors. A cosine of the base model is no such measure: above 0.9 are
4% of cosqa's dev queries under MiniLM and 79% under E5 (docs/log/).
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ranksaga.data.words import folded

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["JACCARD", "Kind", "Leak", "LeakageExample", "LeakageFinding", "find_leaks", "near_copies", "normalised"]

# From this Jaccard similarity of their trigrams on, two queries are near-copies. Measured on three collections
# (docs/log/): of such pairs between training and test queries, 99% share a gold document in SciFact, 77% in
# NFCorpus, 69% in cosqa; at 0.5 it is 99, 68 and 47%.
JACCARD = 0.6
TRIGRAM = 3
SHARED = 4
BLOCK = 2048
PAIRS_AT_ONCE = 1 << 16

Kind = Literal["exact", "near-copy"]


@dataclass(frozen=True)
class Leak:
    """A training query (row of the first table) close to a scored query (row of the second).

    ``similarity`` is the Jaccard similarity of their trigrams, 1 for queries that are equal once normalised.
    """

    kind: Kind
    training: int
    scored: int
    similarity: float


@dataclass(frozen=True)
class LeakageExample:
    """A scored query beside the training query it resembles; the texts are left out where texts are."""

    scored: str
    training: str
    similarity: float


@dataclass(frozen=True)
class LeakageFinding:
    """Scored queries of one dataset that training came near to.

    ``kind`` says how (equal, near copy, gold document seen in training); ``queries`` of ``scored`` are touched, and
    ``dropped`` training queries were left out for it.
    """

    dataset: str
    kind: str
    queries: int
    scored: int
    dropped: int
    examples: tuple[LeakageExample, ...] = ()


def normalised(text: str) -> str:
    """Case, width, composition, punctuation and white space folded away; letters keep their marks, in any script."""
    return " ".join("".join(char if _is_word(char) else " " for char in folded(text)).split())


def find_leaks(training: Sequence[str], scored: Sequence[str]) -> list[Leak]:
    """All close pairs, each once, by training row and then by scored row.

    Args:
        training: n texts.
        scored: m texts.
    """
    left, right = [normalised(text) for text in training], [normalised(text) for text in scored]
    leaks = {(row, column): Leak("near-copy", row, column, value) for row, column, value in _similar(left, right)}
    columns: dict[str, list[int]] = {}
    for column, text in enumerate(right):
        columns.setdefault(text, []).append(column)
    for row, text in enumerate(left):
        for column in columns.get(text, ()):
            leaks[row, column] = Leak("exact", row, column, 1.0)
    return [leaks[key] for key in sorted(leaks)]


def near_copies(texts: Sequence[str]) -> list[Leak]:
    """The close pairs of rows of one table, each once, the lower row as ``training``."""
    return [leak for leak in find_leaks(texts, texts) if leak.training < leak.scored]


def _is_word(char: str) -> bool:
    # Vowel signs of Indic scripts and tone marks are no letters, and yet part of the word.
    return char.isalnum() or unicodedata.category(char).startswith("M")


def _trigrams(text: str) -> set[str]:
    """Of the text with a space at both ends, so that where a word begins and ends counts."""
    padded = f" {text} "
    return {padded[start : start + TRIGRAM] for start in range(len(padded) - TRIGRAM + 1)} if text else set()


def _similar(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int, float]]:
    """Pairs whose trigrams have a Jaccard similarity of at least ``JACCARD``.

    Only texts that share ``SHARED`` of their rarest trigrams are compared: two sets this similar must (prefix filter,
    Bayardo et al. 2007; with more than one shared, Wang et al. 2012, AdaptJoin), so common trigrams cost little.
    """
    left_sets, right_sets = [_trigrams(text) for text in left], [_trigrams(text) for text in right]
    counts = Counter(trigram for trigrams in (*left_sets, *right_sets) for trigram in trigrams)
    columns = {trigram: column for column, trigram in enumerate(sorted(counts, key=lambda one: (counts[one], one)))}
    left_rows, right_rows = (
        [sorted(columns[trigram] for trigram in trigrams) for trigrams in side] for side in (left_sets, right_sets)
    )
    left_rarest, right_rarest = (
        _matrix([row[: _prefix(len(row))] for row in side], len(columns)) for side in (left_rows, right_rows)
    )
    left_all, right_all = _matrix(left_rows, len(columns)), _matrix(right_rows, len(columns))
    left_sizes, right_sizes = (np.array([len(row) for row in side]) for side in (left_rows, right_rows))
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, len(left), BLOCK):
        candidates = (left_rarest[start : start + BLOCK] @ right_rarest.T).tocoo()
        sizes = left_sizes[candidates.row + start], right_sizes[candidates.col]
        least = JACCARD * np.maximum(*sizes) - 1e-9  # trigrams that they must have in common
        near = np.flatnonzero((np.minimum(*sizes) >= least) & (candidates.data >= np.minimum(SHARED, least)))
        for part in range(0, len(near), PAIRS_AT_ONCE):
            chosen = near[part : part + PAIRS_AT_ONCE]
            rows, others = candidates.row[chosen] + start, candidates.col[chosen]
            common = np.asarray(left_all[rows].multiply(right_all[others]).sum(axis=1)).ravel()
            jaccard = common / (left_sizes[rows] + right_sizes[others] - common)
            close = jaccard >= JACCARD
            pairs += zip(rows[close].tolist(), others[close].tolist(), jaccard[close].tolist(), strict=True)
    return pairs


def _prefix(size: int) -> int:
    """How many of a set's rarest trigrams hold ``SHARED`` of any set that is similar enough."""
    # Just below, so that rounding can only lengthen the prefix.
    return min(size, size - math.ceil(JACCARD * size - 1e-9) + SHARED)


def _matrix(rows: Sequence[Sequence[int]], width: int) -> csr_matrix:
    """Rows of columns as a sparse matrix of ones."""
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((column for row in rows for column in row), dtype=np.int64, count=int(ends[-1]))
    # Counts of common trigrams reach some hundreds: a smaller integer would overflow in silence.
    return csr_matrix((np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(rows), max(1, width)))
