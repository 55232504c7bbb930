"""Distillation of the hybrid into the dense model: a teacher that needs no labels and no other model.

The teacher scores a document by the base model's cosine plus BM25's share. BM25 knows rare words and
the dense model does not, so on most collections the mix ranks far better than the dense model alone,
and on any text of the corpus, not only on labelled queries. The student learns the teacher's
distribution over documents (Hinton et al. 2015; for retrieval e.g. Lin et al. 2021, TCT-ColBERT).

A step takes pseudo-queries that lie near each other, so that the documents they share are hard ones,
and training queries with their labels mixed into the teacher's distribution. It asks for two
distributions: over documents that the model reads anew, and over the whole corpus as the base model
encoded it (the bank), which costs one matrix product. What keeps the model from forgetting is the
teacher itself, and an anchor that holds documents near their old vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.errors import StageError
from ranksaga.recipe import Training
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.train.batches import Bank, Batch
from ranksaga.train.pseudo import PseudoQuery

__all__ = ["DistillationBatches", "Teacher"]

PURPOSE = 7
NEARBY = 3  # pseudo-queries are drawn from this many times as many around a random one
CANDIDATES = 3  # of the teacher's best documents per query, among which the batch's are drawn


@dataclass(frozen=True)
class Teacher:
    """One dataset to learn from.

    Attributes:
        dataset: corpus and queries.
        index: BM25 over the corpus.
        share: what BM25, scaled to 1 at its best document, adds to the cosine; 0: BM25 has nothing to teach here.
        documents: (documents, d) float32 unit vectors of the base model.
        pseudo: pseudo-queries.
        pseudo_vectors: (pseudo, d) their vectors by the base model.
        train: judgments to train on.
        train_vectors: (train queries, d) by the base model, in the order of ``train.query_rows``.
    """

    dataset: Dataset
    index: LexicalIndex
    share: float
    documents: NDArray[np.float32]
    pseudo: tuple[PseudoQuery, ...]
    pseudo_vectors: NDArray[np.float32]
    train: Qrels
    train_vectors: NDArray[np.float32]

    @property
    def name(self) -> str:
        """Of the dataset."""
        return self.dataset.name

    @cached_property
    def fingerprint(self) -> str:
        """Identity of what is taught (16 hex digits)."""
        digest = hashlib.sha256(f"{self.dataset.fingerprint}|{self.share}".encode())
        for one in self.pseudo:
            digest.update(f"{one.document}|{one.text}|".encode("utf-8", "surrogatepass"))
        for array in (self.train.queries, self.train.documents):
            digest.update(array.tobytes())
        digest.update(np.round(self.documents, 3).tobytes())
        return digest.hexdigest()[:16]

    def scores(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the teacher thinks of the whole corpus, (texts, documents)."""
        scores: NDArray[np.float32] = vectors @ self.documents.T
        if self.share:
            words = self.index.scores_of_texts(texts)
            scores += self.share * words / np.maximum(words.max(axis=1, keepdims=True), 1e-6)
        return scores


class DistillationBatches:
    """The steps of a distillation, by epoch and position; a function of (sources, settings, seed).

    An epoch has as many steps as cover each dataset's pseudo-queries once, rescaled by
    ``size ** dataset_temperature``.

    Raises:
        StageError: nothing to learn from.
    """

    def __init__(self, sources: Sequence[Teacher], settings: Training, seed: int) -> None:
        if not sources or settings.distillation is None or any(len(source.pseudo) == 0 for source in sources):
            raise StageError("nothing to distil: no corpus gives pseudo-queries; set distillation: null")
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
        labelled = self._nearby(source.train_vectors, self._options.labelled, rng)
        queries = [source.pseudo[index] for index in pseudo]
        texts = [one.text for one in queries] + [source.dataset.queries.texts[rows[index]] for index in labelled]
        vectors = np.concatenate([source.pseudo_vectors[pseudo], source.train_vectors[labelled]])
        scores = source.scores(texts, vectors)
        own = np.array([one.document for one in queries], dtype=np.int64)
        positives = [source.train.positives.documents_of(int(rows[index])) for index in labelled]
        live = self._live(scores, own, positives, rng)
        ignore = np.zeros(scores.shape, dtype=bool)
        ignore[np.arange(len(own)), own] = True
        target = self._target(scores, ignore, positives, np.arange(scores.shape[1]))
        documents = [source.dataset.corpus.documents[row] for row in live]
        live_target = self._target(scores[:, live], ignore[:, live], positives, live)
        live_ignore = ignore[:, live]
        if source.share == 0:
            live = live[: max(len(live) - len(queries), len(live) // 2)]
            documents, live_target, live_ignore = self._cloze(queries, documents[: len(live)], live_target, live_ignore)
        return Batch(
            sources=(source.name,),
            queries=tuple(texts),
            documents=tuple(documents),
            target=live_target,
            ignore=live_ignore,
            bank=Bank(source.documents, target, ignore, live, self._options.bank, self._options.anchor),
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
        chosen = [int(one[rng.integers(len(one))]) for one in positives if len(one)]
        masked = scores.copy()
        masked[np.arange(len(own)), own] = -np.inf
        for row, one in enumerate(positives, start=len(own)):
            masked[row, one] = -np.inf
        depth = min(CANDIDATES, masked.shape[1])
        top = np.argpartition(-masked, depth - 1, axis=1)[:, :depth].ravel()
        rows = list(dict.fromkeys([*chosen, *rng.permutation(top).tolist()]))
        return np.array(rows[: self._options.documents], dtype=np.int64)

    def _target(
        self,
        scores: NDArray[np.float32],
        ignore: NDArray[np.bool_],
        positives: Sequence[NDArray[np.int32]],
        rows: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """The teacher's distribution over these documents, labels mixed in for training queries."""
        logits = np.where(ignore, -np.inf, self._settings.scale * scores)
        target: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
        target /= target.sum(axis=1, keepdims=True)
        first = len(scores) - len(positives)
        for row, one in enumerate(positives, start=first):
            among = np.isin(rows, one)
            if among.any():
                share = self._options.label_share
                target[row] = (1 - share) * target[row] + share * among / among.sum()
        return target

    def _cloze(
        self,
        queries: Sequence[PseudoQuery],
        documents: list[str],
        target: NDArray[np.float32],
        ignore: NDArray[np.bool_],
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_]]:
        """Where BM25 has nothing to teach, half of the pseudo-queries ask for their own document less their words."""
        count, kept = min(len(queries), self._options.documents // 2), len(documents)
        documents = documents + [one.remainder for one in queries[:count]]
        wide = np.zeros((len(target), len(documents)), dtype=np.float32)
        wide[:, :kept] = target[:, :kept]
        hidden = np.ones(wide.shape, dtype=bool)
        hidden[:, :kept] = ignore[:, :kept]
        own = np.array([one.document for one in queries[:count]])
        # A cloze query is asked among the bare documents only; copies of its own document are no negatives.
        wide[:count] = 0
        wide[np.arange(count), kept + np.arange(count)] = 1
        hidden[:count] = True
        hidden[:count, kept:] = (own[:, None] == own[None, :]) & ~np.eye(count, dtype=bool)
        sums = wide.sum(axis=1, keepdims=True)
        wide = np.divide(wide, sums, out=wide, where=sums > 0)
        return documents, wide, hidden
