"""What a run will compute, counted before it runs: texts, tokens, FLOP, steps.

Splits and batches are those that the run will make. What a candidate's dev pool holds where documents change is not
known before the base model has read everything, so that is a range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.training import Training
from ranksaga.data.dataset import Qrels
from ranksaga.encode.task_encoder import TOKEN_BUDGET
from ranksaga.estimate.tokens import Shape, TokenCounter
from ranksaga.run.context import Context, RunDataset
from ranksaga.run.measure import judged_rows
from ranksaga.run.plan import SHIPPED, Plan
from ranksaga.run.selection import dev_set, dev_size
from ranksaga.run.stages import BASELINE, SCORE, SELECT
from ranksaga.run.stages.train import documents_phase

__all__ = ["Load", "SharedTraining", "Work", "trainings", "workload"]

# What trying other weights takes beside encoding (reading, mixing and hashing them, sorting ids), in seconds of the
# processor for a million parameters: 0.053 in the offline study's run.json, 0.066 in a run of the quickstart.
SWITCH_SECONDS = (0.03, 0.09)


@dataclass(frozen=True)
class Load:
    """What is computed.

    Attributes:
        tokens: that the encoder reads, without padding.
        forward: FLOP of that in 16 bit, padded as on a GPU.
        products: FLOP of fp32 matrix products over vectors.
        host: seconds of the processor beside, as measured or recorded on some machine.
    """

    tokens: float = 0.0
    forward: float = 0.0
    products: float = 0.0
    host: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.tokens + other.tokens,
            self.forward + other.forward,
            self.products + other.products,
            self.host + other.host,
        )

    def times(self, factor: float) -> Load:
        """As often as that."""
        return Load(self.tokens * factor, self.forward * factor, self.products * factor, self.host * factor)


@dataclass(frozen=True)
class Work:
    """A piece of a stage: at least ``low``, at most ``high``."""

    stage: str
    what: str
    low: Load
    high: Load
    system: str = ""


@dataclass(frozen=True)
class SharedTraining:
    """One training: what it learns from, and the views that share it."""

    system: str
    settings: Training
    views: tuple[str, ...]
    judgments: Mapping[str, Qrels]

    @property
    def name(self) -> str:
        """The system, and the phase where it is the second."""
        return self.system + (" documents" if self.is_second else "")

    @property
    def is_second(self) -> bool:
        """Whether it is the phase of the documents' tower, which decides nothing of its own."""
        return self.settings.trains == "document"


def trainings(context: Context, plan: Plan) -> list[SharedTraining]:
    """Every training of a run; views that learn from the same share one."""
    found: list[SharedTraining] = []
    for system, settings in context.recipe.systems.items():
        shared: dict[bytes, SharedTraining] = {}
        for view in plan.views:
            if view.name != SHIPPED and settings.train_splits_only:
                continue
            judged = plan.training(view, settings)
            key = b"".join(
                name.encode() + one.queries.tobytes() + one.documents.tobytes() for name, one in judged.items()
            )
            views = (*shared[key].views, view.name) if key in shared else (view.name,)
            shared[key] = SharedTraining(system, settings, views, judged)
        for training in shared.values():
            found.append(training)
            if settings.then_documents is not None:
                found.append(replace(training, settings=documents_phase(settings, settings.then_documents)))
    return found


def workload(context: Context, plan: Plan, counter: TokenCounter, shape: Shape) -> list[Work]:
    """What the stages baseline, select and optimized compute; nothing is taken from a cache of earlier runs."""
    counts = _Counts(context, plan, counter, shape)
    return [*counts.baseline(), *counts.select(), *counts.score()]


class _Counts:
    def __init__(self, context: Context, plan: Plan, counter: TokenCounter, shape: Shape) -> None:
        self._members = context.datasets
        self._plan = plan
        self._counter = counter
        self._shape = shape
        self._trainings = [training for training in trainings(context, plan) if not training.is_second]
        self._documents = {
            member.name: self._load(counter.documents(member.dataset.corpus.documents)) for member in self._members
        }

    def baseline(self) -> Iterator[Work]:
        """The whole corpus and all judged queries of each dataset."""
        for member in self._members:
            rows = judged_rows(member.dataset)
            load = self._documents[member.name] + self._asked(member, rows)
            what = f"{member.name}: {len(member.dataset.corpus):,} documents, {len(rows):,} queries"
            yield Work(BASELINE.name, what, load, load)

    def select(self) -> Iterator[Work]:
        """Every epoch and weight on the dev queries; documents only where they change."""
        for training in self._trainings:
            settings = training.settings
            if settings.trains == "shared" and settings.merge_weights == (1.0,):
                continue
            mixes = settings.epochs * len(settings.merge_weights)
            of_documents = settings.then_documents.weights if settings.then_documents is not None else ()
            candidates = mixes * max(1, len(of_documents))
            # Documents have a state for each weight of theirs, or where they share the queries' tower for each mix.
            states = mixes if settings.trains != "query" else sum(weight > 0 for weight in of_documents)
            low = high = Load()
            for member in self._members:
                queries, pools = self._dev(member, training)
                read, few, many = self._read(member, queries), *(self._pool(member, size) for size in pools)
                low += read.times(mixes) + few.times(states) + self._search(queries, pools[0]).times(candidates)
                high += read.times(mixes) + many.times(states) + self._search(queries, pools[1]).times(candidates)
            what = f"{training.system} {', '.join(training.views)}: {candidates} candidates on dev"
            least, most = self._switches(candidates * len(training.views))
            yield Work(SELECT.name, what, low + least, high + most, training.system)

    def _dev(self, member: RunDataset, training: SharedTraining) -> tuple[NDArray[np.int32], tuple[int, int]]:
        """Query rows of a dataset that select, and how many documents they are ranked against, at least and at most:
        the judged ones, and what two rankings of each query have on top, which may be much the same."""
        corpus = len(member.dataset.corpus)
        queries, depth = dev_size(training.settings)
        asked = [np.empty(0, dtype=np.int32)]
        judged: set[str] = set()
        for view in training.views:
            dev = self._plan.dev(member.name, view, training.settings)
            if dev is None:
                continue
            cut = dev_set(member.name, member.role, member.dataset, dev, (), queries=queries, depth=depth)
            if cut is not None:
                asked.append(cut.dataset.qrels["dev"].query_rows)
                judged.update(cut.dataset.corpus.ids)
        rows = np.unique(np.concatenate(asked))
        if depth is None:
            return rows, (corpus, corpus)
        least, most = len(judged) + depth * len(rows) // 2, len(judged) + 2 * depth * len(rows)
        return rows, (min(corpus, least), min(corpus, most))

    def _pool(self, member: RunDataset, documents: int) -> Load:
        """So many documents of a dataset read, of the mean length."""
        return self._documents[member.name].times(documents / max(1, len(member.dataset.corpus)))

    def score(self) -> Iterator[Work]:
        """Every dataset by the models that score it; documents again where they changed."""
        for system in dict.fromkeys(training.system for training in self._trainings):
            mine = [training for training in self._trainings if training.system == system]
            names = tuple(name for training in mine for name in training.views)
            for member in self._members:
                views = self._plan.scoring_views(member.name, names)
                settings, after = mine[0].settings, mine[0].settings.then_documents
                once = most = self._asked(member, self._plan.rows_to_rank(member.name, views[0], settings))
                if settings.trains == "shared" or after is not None:
                    most = most + self._documents[member.name]
                # Where documents' weight 0 is a choice, they may stay.
                if settings.trains == "shared" or (after is not None and min(after.weights) > 0):
                    once = most
                # Folds that share a training may end with the same weights, or choose different ones.
                distinct = sum(1 for training in mine if set(training.views) & set(views)) if len(views) > 1 else 1
                what = f"{system} {member.name}, {len(views)} model{'s' if len(views) > 1 else ''}"
                yield Work(SCORE.name, what, once.times(distinct), most.times(len(views)), system)
            least, more = self._switches(len(names))
            yield Work(SCORE.name, f"{system}: weights read", least, more, system)

    def _switches(self, count: int) -> tuple[Load, Load]:
        """So many times other weights."""
        few, many = (Load(host=count * one * self._shape.parameters / 1e6) for one in SWITCH_SECONDS)
        return few, many

    def _asked(self, member: RunDataset, rows: NDArray[np.int32]) -> Load:
        """Queries encoded, and searched for in the whole corpus."""
        return self._read(member, rows) + self._search(rows, len(member.dataset.corpus))

    def _read(self, member: RunDataset, rows: NDArray[np.int32]) -> Load:
        """Queries encoded."""
        return self._load(self._counter.queries([member.dataset.queries.texts[row] for row in rows]))

    def _search(self, rows: NDArray[np.int32], documents: int) -> Load:
        """Queries compared with so many documents."""
        return Load(products=2.0 * len(rows) * documents * self._shape.width)

    def _load(self, lengths: NDArray[np.int32]) -> Load:
        return Load(float(lengths.sum()), self._shape.forward(lengths, TOKEN_BUDGET["cuda"]))
