"""Distillation of a teacher that needs no labels into the dense model.

The student learns the teacher's distribution over documents (Hinton et al. 2015; for retrieval e.g.
Lin et al. 2021, TCT-ColBERT), on any text of the corpus, not only on labelled queries.

A step takes pseudo-queries that lie near each other, so that the documents they share are hard ones,
and training queries, whose labels are added to what the teacher says. It asks for two
distributions: over the whole corpus as the base model encoded it (the bank), which costs one matrix
product, and over documents that the model reads anew. What keeps the model from forgetting is the
teacher itself, and an anchor that holds documents near their old vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.training import Distilled
from ranksaga.errors import StageError
from ranksaga.train.batches import Bank, Batch
from ranksaga.train.teacher import Teacher

__all__ = ["DistillationBatches"]

PURPOSE = 7
NEARBY = 3  # pseudo-queries are drawn from this many times as many around a random one
ANCHOR = 0.05  # weight of staying near the base model's document vectors, against the same spread
CANDIDATES = 3  # of the teacher's best documents per query, among which the batch's are drawn


class DistillationBatches:
    """The steps of a distillation, by epoch and position; a function of (sources, settings, seed).

    An epoch has as many steps as cover each dataset's pseudo-queries once, rescaled by
    ``size ** dataset_temperature``.

    Raises:
        StageError: nothing to learn from.
    """

    def __init__(self, sources: Sequence[Teacher], settings: Distilled, seed: int) -> None:
        wordless = [source.name for source in sources if len(source.pseudo) == 0]
        if not sources or wordless:
            raise StageError(
                f"nothing to distil: no pseudo-query can be taken from {', '.join(wordless) or 'no dataset'}, whose "
                "documents have no words; give them texts, or make the dataset a guard"
            )
        self._sources = tuple(sources)
        self._settings = settings
        self._options = settings.distillation
        self._seed = seed
        sizes = np.array([max(1, len(one.pseudo) / self._options.queries) for one in sources])
        weights = sizes**settings.dataset_temperature
        self._turns = np.maximum(1, np.round(sizes.sum() * weights / weights.sum())).astype(np.int64)

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return int(self._turns.sum())

    def get(self, epoch: int, position: int) -> Batch:
        """The batch at a position of an epoch."""
        order = np.random.default_rng([self._seed, PURPOSE, epoch]).permutation(
            np.repeat(np.arange(len(self._sources)), self._turns)
        )
        rng = np.random.default_rng([self._seed, PURPOSE, epoch, position])
        return self._build(self._sources[order[position]], rng)

    def _build(self, source: Teacher, rng: np.random.Generator) -> Batch:
        pseudo = self._nearby(source.pseudo_vectors, self._options.queries, rng)
        rows = source.train.query_rows
        labelled = rng.permutation(len(rows))[: self._options.labelled]
        queries = [source.pseudo[index] for index in pseudo]
        texts = [one.text for one in queries] + [source.dataset.queries.texts[rows[index]] for index in labelled]
        vectors = np.concatenate([source.pseudo_vectors[pseudo], source.train_vectors[labelled]])
        own = np.array([one.document for one in queries], dtype=np.int64)
        scores = source.scores(texts, vectors, np.concatenate([own, np.full(len(labelled), -1)]))
        positives = [source.train.positives.documents_of(int(rows[index])) for index in labelled]
        ignore = np.zeros(scores.shape, dtype=bool)
        ignore[np.arange(len(own)), own] = True
        corpus = np.arange(scores.shape[1])
        scale = source.scale
        taught = self._taught(scores, ignore, scale)
        if source.mix.bm25:
            live = self._live(scores, own, positives, rng)
            target = taught + self._labels(positives, len(own), corpus, len(corpus))
            live_target = self._taught(scores[:, live], ignore[:, live], scale)
            live_target += self._labels(positives, len(own), live, len(corpus))
        else:
            # Where BM25 has nothing to teach, the teacher is the base model, which only holds queries in place;
            # what documents learn, they learn from labels, among each other's positives.
            live, target = self._positives_of(positives, rng), taught
            live_target = self._labels(positives, len(own), live, len(corpus))
        if self._settings.trains == "query":
            live, live_target = live[:0], live_target[:, :0]
        return Batch(
            sources=(source.name,),
            queries=tuple(texts),
            documents=tuple(source.dataset.corpus.documents[row] for row in live),
            target=live_target,
            ignore=ignore[:, live],
            bank=Bank(source.documents, target, ignore, live, ANCHOR / source.spread),
            scale=scale,
        )

    def _nearby(self, vectors: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Rows around a random one."""
        if len(vectors) == 0 or count == 0:
            return np.empty(0, dtype=np.int64)
        pool = min(len(vectors), NEARBY * count)
        near = np.argsort(-(vectors @ vectors[rng.integers(len(vectors))]), kind="stable")[:pool]
        return rng.permutation(near)[:count].astype(np.int64)

    def _live(
        self,
        scores: NDArray[np.float32],
        own: NDArray[np.int64],
        positives: Sequence[NDArray[np.int32]],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Rows of documents that the model reads anew: a positive of each training query, then what ranks high."""
        masked = scores.copy()
        masked[np.arange(len(own)), own] = -np.inf
        for row, one in enumerate(positives, start=len(own)):
            masked[row, one] = -np.inf
        depth = min(CANDIDATES, masked.shape[1])
        top = np.argpartition(-masked, depth - 1, axis=1)[:, :depth].ravel()
        rows = list(dict.fromkeys([*self._positives_of(positives, rng).tolist(), *rng.permutation(top).tolist()]))
        return np.array(rows[: self._options.documents], dtype=np.int64)

    @staticmethod
    def _positives_of(positives: Sequence[NDArray[np.int32]], rng: np.random.Generator) -> NDArray[np.int64]:
        """A positive of each training query, each document once."""
        chosen = [int(one[rng.integers(len(one))]) for one in positives if len(one)]
        return np.array(list(dict.fromkeys(chosen)), dtype=np.int64)

    @staticmethod
    def _taught(scores: NDArray[np.float32], ignore: NDArray[np.bool_], scale: float) -> NDArray[np.float32]:
        """The teacher's distribution over these documents, each row's sum 1."""
        logits = np.where(ignore, -np.inf, scale * scores)
        target: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
        target /= target.sum(axis=1, keepdims=True)
        return target

    def _labels(
        self, positives: Sequence[NDArray[np.int32]], pseudo: int, rows: NDArray[np.int64], documents: int
    ) -> NDArray[np.float32]:
        """What labels add to the targets over these rows of so many documents, such that their loss is the mean over
        training queries."""
        target = np.zeros((pseudo + len(positives), len(rows)), dtype=np.float32)
        relevant = np.zeros(documents, dtype=bool)
        for row, one in enumerate(positives, start=pseudo):
            relevant[one] = True
            among = np.flatnonzero(relevant[rows])
            relevant[one] = False
            if len(among):
                target[row, among] = len(target) / len(positives) / len(among)
        return target
