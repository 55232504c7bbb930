"""Which examples meet in a batch, and what counts as what there.

The plan of an epoch is a pure function of (sources, settings, seed, epoch), and a batch of
(plan, position): a run can be resumed at any step and sees exactly the same batches. Every
epoch has the same number of steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.training import Labelled
from ranksaga.errors import StageError
from ranksaga.train.pairs import NO_DOCUMENT, TrainingPairs

__all__ = ["Bank", "Batch", "Batches"]

# A batch looks at this many examples per place for one that fits, before it takes what must be masked.
PATIENCE = 16

# Purposes of random draws: each has its own stream.
PLAN, BUILD = 1, 2


@dataclass(frozen=True)
class Bank:
    """A whole corpus as the base model encoded it, for a second loss that costs one matrix product.

    Attributes:
        documents: (m, d) float32 vectors, which stay as they are.
        target: (b, m) float32, each row the distribution that a query is trained towards.
        ignore: (b, m) bool, documents that are no candidates of that query.
        live: rows of the bank that the batch's first documents are.
        anchor: weight of ``1 - cosine`` between the batch's documents and the bank's.
    """

    documents: NDArray[np.float32]
    target: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    live: NDArray[np.int64]
    anchor: float


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        sources: names of the sources in it.
        queries: b query texts.
        documents: n document texts.
        target: (b, n) float32, each row the distribution that the model is trained towards.
        ignore: (b, n) bool, documents that are no candidates of that query.
        bank: a second set of documents, if any.
        scale: inverse temperature of the model's similarities; none: that of the settings.
    """

    sources: tuple[str, ...]
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    target: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    bank: Bank | None = None
    scale: float | None = None


class Batches:
    """The batches of a training run, by epoch (0, 1, ...) and position.

    Each source gives an epoch as many batches as its size asks for: all its examples once (at
    most ``positives_per_query`` a query, drawn anew each epoch), rescaled by
    ``size ** dataset_temperature`` to the same total; a source that must give more goes round
    again. With ``batches: mixed`` the same examples are shuffled into one list instead.

    With ``mask_false_negatives`` a batch from one source prefers examples whose document answers
    no other query of the batch; where none is at hand the document is masked for that query.

    Raises:
        StageError: there is nothing to train on.
    """

    def __init__(self, sources: Sequence[TrainingPairs], settings: Labelled, seed: int) -> None:
        empty = [source.name for source in sources if len(source.example_queries) == 0]
        if empty or not sources:
            raise StageError(f"nothing to train on ({', '.join(empty) or 'no source'}); give sources with examples")
        self._sources = tuple(sources)
        self._settings = settings
        self._seed = seed
        self._sizes = [_capped_size(source.example_queries, settings.positives_per_query) for source in sources]
        # Source and example of a global example number.
        self._offsets = np.cumsum([0, *(len(source.example_queries) for source in sources)])
        self._quotas = self._shares()
        self._planned: tuple[int, list[NDArray[np.int64]]] | None = None

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        if self._settings.batches == "mixed":
            return -(-int(sum(self._quotas)) // self._settings.batch_size)
        return int(sum(self._quotas))

    def get(self, epoch: int, position: int) -> Batch:
        """The batch at a position of an epoch."""
        planned = self._planned  # several threads may ask, each for an epoch of its own
        if planned is None or planned[0] != epoch:
            planned = self._planned = (epoch, self._plan(epoch))
        rng = np.random.default_rng([self._seed, BUILD, epoch, position])
        return self._build(planned[1][position], rng)

    def _shares(self) -> list[int]:
        """Per source the examples (mixed) or batches (per dataset) that it gives an epoch."""
        sizes = np.array(self._sizes, dtype=np.float64)
        if self._settings.batches == "per_dataset":
            sizes = np.ceil(sizes / self._settings.batch_size)
        weights = sizes**self._settings.dataset_temperature
        exact = sizes.sum() * weights / weights.sum()
        quotas = np.maximum(1, np.floor(exact + 1e-9)).astype(np.int64)
        # Largest remainders get what rounding left over; a source that 1 batch was given costs nobody else.
        left = max(0, int(sizes.sum()) - int(quotas.sum()))
        for index in np.argsort(-(exact - quotas), kind="stable")[:left]:
            quotas[index] += 1
        return [int(quota) for quota in quotas]

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """Global example numbers of each batch."""
        rng = np.random.default_rng([self._seed, PLAN, epoch])
        streams = rng.spawn(len(self._sources))
        size = self._settings.batch_size
        if self._settings.batches == "mixed":
            drawn = np.concatenate([self._examples(index, stream) for index, stream in enumerate(streams)])
            shuffled = rng.permutation(drawn)
            return [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
        batches = [self._batches_of(index, stream) for index, stream in enumerate(streams)]
        turns = rng.permutation(np.repeat(np.arange(len(self._sources)), self._quotas))
        return [next(batches[index]) for index in turns]

    def _examples(self, index: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """A source's quota of examples for a mixed epoch."""
        drawn: list[NDArray[np.int64]] = []
        while (missing := self._quotas[index] - sum(map(len, drawn))) > 0:
            drawn.append(self._draw(index, rng)[:missing] + self._offsets[index])
        return np.concatenate(drawn)

    def _batches_of(self, index: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Batches from one source without end, each round covering a new draw of its examples once."""
        source = self._sources[index]
        while True:
            drawn = self._draw(index, rng)
            count = -(-len(drawn) // self._settings.batch_size)
            # Sizes differ by at most one: no batch is left with two pairs and no negatives.
            sizes = [len(part) for part in np.array_split(drawn, count)]
            if self._settings.mask_false_negatives:
                groups = _kept_apart(source, drawn, sizes)
            else:
                groups = iter(np.split(drawn, np.cumsum(sizes)[:-1]))
            for group in groups:
                yield group + self._offsets[index]

    def _draw(self, index: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """A source's examples in random order, at most so many a query as the settings allow."""
        queries = self._sources[index].example_queries
        order = rng.permutation(len(queries))
        cap = self._settings.positives_per_query
        if cap is None:
            return order
        grouped = np.argsort(queries[order], kind="stable")
        ordered = queries[order][grouped]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
        return order[np.sort(grouped[rank < cap])]

    def _build(self, examples: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        masked = self._settings.mask_false_negatives
        columns = _Columns(unique=masked)
        queries: list[tuple[int, int]] = []
        positives: list[int] = []  # the column of each query's own document
        of_source = np.searchsorted(self._offsets, examples, side="right") - 1
        for index in np.unique(of_source).tolist():
            source = self._sources[index]
            own = examples[of_source == index] - self._offsets[index]
            documents = source.documents_of(own, self._settings.hard_negatives, rng).tolist()
            for query, (positive, *negatives) in zip(source.example_queries[own].tolist(), documents, strict=True):
                queries.append((index, query))
                positives.append(columns.add(index, positive))
                for negative in negatives:
                    if negative != NO_DOCUMENT:
                        columns.add(index, negative)
        target = np.zeros((len(queries), len(columns.keys)), dtype=np.float32)
        ignore = np.zeros(target.shape, dtype=bool)
        for row, ((index, query), positive) in enumerate(zip(queries, positives, strict=True)):
            if masked:
                known = self._sources[index].known.get(query, frozenset())
                for document in columns.present.get(index, set()) & known:
                    ignore[row, columns.where[index, document]] = True
            target[row, positive] = 1.0
            ignore[row, positive] = False
        return Batch(
            sources=tuple(self._sources[index].name for index in np.unique(of_source).tolist()),
            queries=tuple(self._sources[index].queries[query] for index, query in queries),
            documents=tuple(self._sources[index].documents[document] for index, document in columns.keys),
            target=target,
            ignore=ignore,
        )


class _Columns:
    """The documents of a batch, each once, or as often as it was drawn."""

    def __init__(self, unique: bool) -> None:
        self.keys: list[tuple[int, int]] = []
        self.where: dict[tuple[int, int], list[int]] = {}
        self.present: dict[int, set[int]] = {}  # documents by source
        self._unique = unique

    def add(self, source: int, document: int) -> int:
        """The column of a document."""
        places = self.where.setdefault((source, document), [])
        self.present.setdefault(source, set()).add(document)
        if not places or not self._unique:
            places.append(len(self.keys))
            self.keys.append((source, document))
        return places[-1]


def _capped_size(queries: NDArray[np.int32], cap: int | None) -> int:
    if cap is None:
        return len(queries)
    return int(np.minimum(np.unique(queries, return_counts=True)[1], cap).sum())


def _kept_apart(source: TrainingPairs, drawn: NDArray[np.int64], sizes: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Cut a draw into batches in which no document answers another query, as far as that is possible.

    First fit in the order drawn; what does not fit waits for the next batch.
    """
    rows = source.example_queries[drawn]
    documents = source.pairs[drawn, 1]
    waiting = deque(zip(drawn.tolist(), rows.tolist(), documents.tolist(), strict=True))
    none: frozenset[int] = frozenset()
    for size in sizes:
        taken: list[int] = []
        skipped: list[tuple[int, int, int]] = []
        answers: set[int] = set()  # documents that answer a query of the batch
        present: set[int] = set()
        patience = PATIENCE * size
        while waiting and len(taken) < size and patience:
            patience -= 1
            example, query, document = waiting.popleft()
            known = source.known.get(query, none)
            if document in answers or not known.isdisjoint(present):
                skipped.append((example, query, document))
                continue
            taken.append(example)
            present.add(document)
            answers |= known
        missing = size - len(taken)
        taken += [example for example, _, _ in skipped[:missing]]
        waiting.extendleft(reversed(skipped[missing:]))
        yield np.array(taken, dtype=np.int64)
