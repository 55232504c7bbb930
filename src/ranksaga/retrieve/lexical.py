"""BM25, the lexical baseline: bm25s' index in Lucene's variant, with Anserini's parameters for BEIR.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009);
Lù, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring" (2024);
k1 = 0.9, b = 0.4, stopwords and the Porter stemmer as in Anserini's BEIR baselines
(Kamalloo et al., "Resources for Brewing BEIR", 2023). Other languages have stop words and a Snowball
stemmer of their own, and scripts without blanks are cut into pairs of characters (see ``languages``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset
from ranksaga.data.self_hits import self_hits
from ranksaga.data.words import is_lone_character
from ranksaga.profile import timed
from ranksaga.retrieve.languages import Analyzer
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.retrieve.sort_keys import NOTHING, decode_keys, encode_keys, take_best

__all__ = ["LexicalIndex", "bm25_rankings"]

_K1 = 0.9
_B = 0.4


@dataclass(frozen=True)
class LexicalIndex:
    """BM25 over one dataset: for each term its documents (ascending rows) with their scores.

    The postings of term t are ``documents[starts[t]:starts[t + 1]]`` and the same slice of
    ``weights``. Build with :meth:`of`, once a dataset.
    """

    dataset: Dataset
    analyzer: Analyzer
    terms: Mapping[str, int]
    starts: NDArray[np.int64]
    documents: NDArray[np.int32]
    weights: NDArray[np.float32]
    ties: NDArray[np.int32]

    @staticmethod
    def of(dataset: Dataset) -> LexicalIndex:
        """Index the corpus (title and text as one field)."""
        import bm25s

        # It logs each step at DEBUG through a handler of its own.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        ties = tie_order(dataset.corpus.ids)
        analyzer = Analyzer.of(dataset.corpus.documents)
        tokens = analyzer.terms(dataset.corpus.documents)
        if not any(tokens):
            nothing = np.empty(0)
            return LexicalIndex(
                dataset, analyzer, {}, np.zeros(1, np.int64), nothing.astype(np.int32), nothing.astype(np.float32), ties
            )
        # Sorted terms: an index that is equal in every process.
        terms = {term: number for number, term in enumerate(sorted(set().union(*tokens)))}
        bm25 = bm25s.BM25(k1=_K1, b=_B, method="lucene")
        ids = [[terms[token] for token in document] for document in tokens]
        bm25.index((ids, dict(terms)), show_progress=False)  # it may add an empty term to what it is given
        return LexicalIndex(
            dataset,
            analyzer,
            terms,
            np.asarray(bm25.scores["indptr"], dtype=np.int64),
            np.asarray(bm25.scores["indices"], dtype=np.int32),
            np.asarray(bm25.scores["data"], dtype=np.float32),
            ties,
        )

    def rankings(self, query_rows: NDArray[np.int32], depth: int = 1000) -> Rankings:
        """The best documents of each query that share a term with it; self-hits removed."""
        own = self_hits(self.dataset)[query_rows]
        depth = min(depth, len(self.ties))
        best = np.full((len(query_rows), depth), NOTHING, dtype=np.int64)
        for keys, exclude, scores in zip(best, own, self._all_scores(query_rows), strict=True):
            if exclude >= 0:
                scores[exclude] = 0
            found = np.flatnonzero(scores)
            ordered = take_best(encode_keys(scores[found], self.ties[found])[None], depth)[0]
            keys[: len(ordered)] = ordered
        return Rankings(query_rows.astype(np.int32), *decode_keys(best, self.ties))

    def scores(self, query_rows: NDArray[np.int32], documents: NDArray[np.int32]) -> NDArray[np.float32]:
        """BM25 of given pairs: (n,) query rows and (n, k) corpus rows to (n, k); -1 gives -inf.

        A document that shares no term with its query scores 0.
        """
        rows = [
            np.where(wanted < 0, -np.inf, scores[wanted])
            for wanted, scores in zip(documents, self._all_scores(query_rows), strict=True)
        ]
        return np.array(rows, dtype=np.float32).reshape(documents.shape)

    @timed("BM25")
    def scores_of_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """BM25 of any texts with the whole corpus, (n, documents)."""
        rows = np.empty((len(texts), len(self.ties)), dtype=np.float32)
        for row, scores in zip(rows, self._scores(texts), strict=True):
            row[:] = scores
        return rows

    def _all_scores(self, query_rows: NDArray[np.int32]) -> Iterator[NDArray[np.float32]]:
        return self._scores([self.dataset.queries.texts[row] for row in query_rows])

    def _scores(self, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Per text the scores of the whole corpus; the array is reused by the next text."""
        scores = np.empty(len(self.ties), dtype=np.float32)
        for tokens in self.analyzer.terms(texts):
            scores[:] = 0
            # Sorted, so that equal bags of words sum in one order. A repeated term counts again, as in Lucene.
            for token in sorted(tokens):
                for term in self._matching(token):
                    postings = slice(self.starts[term], self.starts[term + 1])
                    scores[self.documents[postings]] += self.weights[postings]
            yield scores

    def _matching(self, token: str) -> list[int]:
        """The terms that a query's token asks for: itself; for one character where terms are pairs, all with it."""
        if is_lone_character(token):
            return [number for term, number in self.terms.items() if token in term]
        return [self.terms[token]] if token in self.terms else []


@timed("BM25")
def bm25_rankings(dataset: Dataset, query_rows: NDArray[np.int32], depth: int = 1000) -> Rankings:
    """Index the dataset and rank; keep a :class:`LexicalIndex` to rank more than once."""
    return LexicalIndex.of(dataset).rankings(query_rows, depth)
