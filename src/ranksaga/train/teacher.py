"""A teacher that needs no labels and no other model: the base model's own scores, corrected.

Four corrections, each of which ranks better than the base model alone on some kind of text, and each
of which the student can learn without a label:

- *bm25*: BM25 knows rare words, the dense model does not;
- *feedback*: the query is moved towards the documents that rank first (Rocchio 1971; for dense
  vectors Yu et al. 2021, ANCE-PRF, without their training);
- *hubness*: a document that is near to everything is the answer to little, so its mean similarity to
  its neighbours is taken off (CSLS, Conneau et al. 2018);
- *passages*: a document counts as near as its nearest passage.

How much of each is chosen per dataset on its training queries.

Models differ in the range of their cosines: E5's lie between 0.75 and 0.9, MiniLM's between -0.1 and 0.7. So nothing
here meets a cosine as it is. What is added to similarities, and the temperature at which they become a distribution,
are in units of their *spread*: a query's standard deviation of them over the corpus, as the base model has it on this
dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Corpus, Dataset, Qrels
from ranksaga.data.words import word_count
from ranksaga.evaluate.metrics import evaluate
from ranksaga.files import hash_json
from ranksaga.retrieve.blend import FEEDBACK_DOCUMENTS, hubness, towards
from ranksaga.retrieve.lexical import LexicalIndex
from ranksaga.retrieve.rankings import tie_order
from ranksaga.retrieve.search import search
from ranksaga.train.pseudo_queries import PseudoQuery, code_parts, sentences

__all__ = ["Mix", "Passages", "Teacher", "choose_mix", "passages_of"]

# Inverse temperature of teacher and student, times the spread: 20 where that is 0.1, as MiniLM's is on SciFact.
SHARPNESS = 2.0

# What is tried, and by what factor it must lift nDCG@10 of the training queries to be taken: BM25 changes the
# ranking most and is taken only where it clearly helps.
CHOICES: Mapping[str, tuple[float, ...]] = {
    "bm25": (0.5, 1.0, 2.0, 3.0, 5.0),
    "feedback": (0.2, 0.4, 0.6),
    "hubness": (0.1, 0.2, 0.3),
    "passages": (0.1, 0.2, 0.3),
}
LEAST_GAIN = {"bm25": 1.02, "feedback": 1.0, "hubness": 1.0, "passages": 1.0}
CHOOSING_QUERIES = 300


@dataclass(frozen=True)
class Mix:
    """How much of each correction; all 0 is the base model.

    Attributes:
        bm25: what BM25, scaled to 1 at its best document, adds to the similarity, in spreads.
        feedback: length of the step towards the first documents, the query's own vector having length 1.
        hubness: share of a document's mean similarity to its neighbours that is taken off.
        passages: share of the best passage's similarity that is added.
    """

    bm25: float = 0.0
    feedback: float = 0.0
    hubness: float = 0.0
    passages: float = 0.0


# The mix where no training query is there to choose by.
UNCHOSEN: Mapping[str, float] = {"bm25": 3.0, "feedback": 0.4, "hubness": 0.1}


@dataclass(frozen=True)
class Passages:
    """Vectors (n, d) float32 of passages, and the corpus rows (n,) that they are from, ascending."""

    vectors: NDArray[np.float32]
    documents: NDArray[np.int64]


@dataclass(frozen=True)
class Teacher:
    """One dataset to learn from.

    Attributes:
        dataset: corpus and queries.
        index: BM25 over the corpus.
        mix: how much of each correction.
        documents: (documents, d) float32 unit vectors of the base model.
        pseudo: pseudo-queries.
        pseudo_vectors: (pseudo, d) their vectors by the base model.
        train: judgments to train on.
        train_vectors: (train queries, d) by the base model, in the order of ``train.query_rows``.
        passages: where the mix asks for them.
    """

    dataset: Dataset
    index: LexicalIndex
    mix: Mix
    documents: NDArray[np.float32]
    pseudo: tuple[PseudoQuery, ...]
    pseudo_vectors: NDArray[np.float32]
    train: Qrels
    train_vectors: NDArray[np.float32]
    passages: Passages | None = None

    @property
    def name(self) -> str:
        """Of the dataset."""
        return self.dataset.name

    @cached_property
    def fingerprint(self) -> str:
        """Identity of what is taught (16 hex digits)."""
        digest = hashlib.sha256(f"{self.dataset.fingerprint}|{hash_json(asdict(self.mix))}".encode())
        for one in self.pseudo:
            digest.update(f"{one.document}|{one.text}|".encode("utf-8", "surrogatepass"))
        for array in (self.train.queries, self.train.documents):
            digest.update(array.tobytes())
        digest.update(np.round(self.documents, 3).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of a query's similarities to the corpus, the mean over pseudo- and training queries."""
        asked = np.concatenate([self.pseudo_vectors, self.train_vectors])
        centred = self.documents - self.documents.mean(axis=0)
        covariance = centred.T @ centred / max(1, len(centred))
        variances = np.einsum("nd,de,ne->n", asked, covariance, asked, optimize=True)
        # Vectors that are all the same would ask for an infinite temperature.
        return max(float(np.sqrt(np.maximum(variances, 0.0)).mean()) if len(asked) else 0.0, 1e-4)

    @property
    def scale(self) -> float:
        """Inverse temperature of the distributions that are taught and learned."""
        return SHARPNESS / self.spread

    @cached_property
    def hubness(self) -> NDArray[np.float32]:
        """(documents,) mean similarity of each document to its nearest ones."""
        return hubness(self.documents)

    def scores(
        self,
        texts: Sequence[str],
        vectors: NDArray[np.float32],
        own: NDArray[np.int64] | None = None,
        bm25: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """What the teacher thinks of the whole corpus, (texts, documents).

        Args:
            texts: queries of any kind.
            vectors: (texts, d) theirs by the base model.
            own: (texts,) documents that a text is from, -1 for none: they give no feedback.
            bm25: (texts, documents) BM25 of the texts where it is known already.
        """
        mix = self.mix
        scores: NDArray[np.float32] = vectors @ self.documents.T
        added = np.zeros((1, 1), dtype=np.float32)
        if mix.bm25:
            known = self.index.scores_of_texts(texts) if bm25 is None else bm25
            added = known * (mix.bm25 * self.spread / np.maximum(known.max(axis=1, keepdims=True), 1e-6))
        if mix.feedback:
            scores = self._fed_back(scores + added, vectors, own) @ self.documents.T
        scores = scores + added
        if mix.hubness:
            scores -= mix.hubness * self.hubness
        if mix.passages and self.passages is not None:
            scores += mix.passages * self._best_passages(vectors)
        return scores

    def _fed_back(
        self, scores: NDArray[np.float32], vectors: NDArray[np.float32], own: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Unit vectors moved towards the documents that score best."""
        if own is not None:
            known = np.flatnonzero(own >= 0)
            scores[known, own[known]] = -np.inf
        count = min(FEEDBACK_DOCUMENTS, scores.shape[1])
        top = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        first = np.take_along_axis(scores, top, axis=1) / self.spread
        return towards(vectors, self.documents, top, first, self.mix.feedback)

    def _best_passages(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(texts, documents) similarity of each document's nearest passage; the least of all where it has none."""
        assert self.passages is not None
        similar = vectors @ self.passages.vectors.T
        present, starts = np.unique(self.passages.documents, return_index=True)
        least = similar.min(axis=1, keepdims=True, initial=np.inf)
        best = np.repeat(np.where(np.isfinite(least), least, 0), len(self.documents), axis=1).astype(np.float32)
        if len(present):
            best[:, present] = np.maximum.reduceat(similar, starts, axis=1)
        return best


def choose_mix(teacher: Teacher, read_passages: Callable[[], Passages]) -> Teacher:
    """The teacher with the mix that ranks its training queries best, one correction after the other.

    ``read_passages`` is called only where BM25 does not help: where it does, passages add nothing to it
    (measured, docs/log/), and they cost as much as encoding the corpus again.
    """
    rows = teacher.train.query_rows
    places = np.linspace(0, len(rows) - 1, min(len(rows), CHOOSING_QUERIES)).round().astype(np.int64)
    chosen = teacher.train.only_queries(rows[places])
    texts = [teacher.dataset.queries.texts[row] for row in rows[places]]
    ties = tie_order(teacher.dataset.corpus.ids)
    # One-hot queries turn the search into a sort of these scores, with its tie order.
    unit = np.eye(len(places), dtype=np.float32)
    bm25 = teacher.index.scores_of_texts(texts)  # once for all that is tried

    def score(candidate: Teacher) -> float:
        scores = np.ascontiguousarray(candidate.scores(texts, teacher.train_vectors[places], bm25=bm25).T)
        rankings = search(unit, [(0, scores)], query_rows=rows[places], ties=ties, depth=10)
        values = evaluate(rankings, teacher.dataset, "train", system="teacher", qrels=chosen)
        return values.mean("ndcg_at_10")

    best, value = replace(teacher, mix=Mix()), score(replace(teacher, mix=Mix()))
    for name, shares in CHOICES.items():
        if name == "passages":
            if best.mix.bm25:
                continue
            best = replace(best, passages=read_passages())
        tried = [replace(best, mix=replace(best.mix, **{name: share})) for share in shares]
        scored = [score(one) for one in tried]
        top = int(np.argmax(scored))
        if scored[top] > LEAST_GAIN[name] * value:
            best, value = tried[top], scored[top]
    return best if best.mix.passages else replace(best, passages=None)


def passages_of(corpus: Corpus) -> tuple[list[str], NDArray[np.int64]]:
    """Passages of all documents and their rows: pairs of sentences of prose; of code, what it says it does and the
    code itself."""
    texts: list[str] = []
    rows: list[int] = []
    for row, (title, text) in enumerate(zip(corpus.titles, corpus.texts, strict=True)):
        parts = code_parts(text)
        if parts is None:
            usable = [one for one in sentences(text) if word_count(one) >= 4]
            parts = [" ".join(usable[start : start + 2]) for start in range(0, len(usable), 2)] or [text or title]
        texts += parts
        rows += [row] * len(parts)
    return texts, np.array(rows, dtype=np.int64)
