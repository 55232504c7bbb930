"""What a run will compute, counted before it runs: texts, tokens, FLOP, steps.

Splits and batches are those that the run will make. What a candidate's dev pool holds where documents change is not
known before the base model has read everything, so that is a range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Qrels
from ranksaga.encode.encoder import TOKEN_BUDGET
from ranksaga.estimate.tokens import Shape, TokenCounter
from ranksaga.recipe import Training
from ranksaga.run.context import Context, Subject
from ranksaga.run.learn import documents_phase, trials
from ranksaga.run.measure import judged_rows
from ranksaga.run.plan import SHIPPED, Plan

__all__ = ["Course", "Load", "Work", "courses", "workload"]

# What trying other weights takes beside encoding (reading, mixing and hashing them, sorting ids), in seconds of the
# processor for a million parameters: 0.053 in the offline study's run.json, 0.066 in a run of the quickstart.
SWITCH_SECONDS = (0.03, 0.09)
# Of a dev pool where documents change: queries of a dataset at most, and documents that two rankings add to each;
# where every candidate reads them anew, and where those of a second phase do.
POOL, POOL_OF_PHASE = (100, 40), (500, 200)


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
    """A piece of a stage: at least ``low``, at most ``high``, and ``steps`` of a preset's training."""

    stage: str
    what: str
    low: Load
    high: Load
    preset: str = ""
    steps: int = 0


@dataclass(frozen=True)
class Course:
    """One training: what it learns from, and the views that share it."""

    preset: str
    settings: Training
    views: tuple[str, ...]
    training: Mapping[str, Qrels]

    @property
    def name(self) -> str:
        """The preset, and the phase where it is the second."""
        return self.preset + (" documents" if self.is_second else "")

    @property
    def is_second(self) -> bool:
        """Whether it is the phase of the documents' tower, which decides nothing of its own."""
        return self.settings.towers == "document"


def courses(context: Context, plan: Plan) -> list[Course]:
    """Every training of a run; views that learn from the same share one."""
    found: list[Course] = []
    for preset in context.recipe.presets:
        first = context.recipe.training[preset]
        for settings in trials(first, context.recipe.seed):
            kept: dict[bytes, Course] = {}
            for view in plan.views:
                training = plan.training(view, settings)
                alone = view.name == SHIPPED
                if not training or (not alone and (settings.splits == "train" or settings is not first)):
                    continue
                key = b"".join(
                    name.encode() + judged.queries.tobytes() + judged.documents.tobytes()
                    for name, judged in training.items()
                )
                views = (*kept[key].views, view.name) if key in kept else (view.name,)
                kept[key] = Course(preset, settings, views, training)
            for course in kept.values():
                found.append(course)
                if settings.documents is not None:
                    found.append(replace(course, settings=documents_phase(settings)))
    return found


def workload(context: Context, plan: Plan, counter: TokenCounter, shape: Shape) -> list[Work]:
    """What the stages baseline, select and optimized compute; nothing is taken from a cache of earlier runs."""
    counts = _Counts(context, plan, counter, shape)
    return [*counts.baseline(), *counts.select(), *counts.optimized()]


class _Counts:
    def __init__(self, context: Context, plan: Plan, counter: TokenCounter, shape: Shape) -> None:
        self._subjects = context.subjects
        self._plan = plan
        self._counter = counter
        self._shape = shape
        self._courses = [course for course in courses(context, plan) if not course.is_second]
        self._documents = {
            subject.name: self._load(counter.documents(subject.dataset.corpus.documents)) for subject in self._subjects
        }

    def baseline(self) -> Iterator[Work]:
        """The whole corpus and all judged queries of each dataset."""
        for subject in self._subjects:
            rows = judged_rows(subject.dataset)
            load = self._documents[subject.name] + self._asked(subject, rows)
            what = f"{subject.name}: {len(subject.dataset.corpus):,} documents, {len(rows):,} queries"
            yield Work("baseline", what, load, load)

    def select(self) -> Iterator[Work]:
        """Every epoch and weight on the dev queries; documents only where they change."""
        for course in self._courses:
            settings = course.settings
            if settings.towers == "shared" and settings.merge_weights == (1.0,):
                continue
            mixes = settings.epochs * len(settings.merge_weights)
            of_documents = settings.documents.weights if settings.documents is not None else ()
            candidates = mixes * max(1, len(of_documents))
            changed = sum(weight > 0 for weight in of_documents)
            low = high = Load()
            for subject in self._subjects:
                found = [self._plan.dev(subject.name, name, settings) for name in course.views]
                devs = [dev for dev in found if dev is not None]
                if devs:
                    few, many = self._dev(subject, devs, POOL if settings.towers != "query" else None)
                    low, high = low + few.times(mixes), high + many.times(mixes)
                    # Vectors of a mix of queries are kept, whatever documents they are compared with.
                    few, many = self._dev(subject, devs, POOL_OF_PHASE)
                    low, high = low + few.times(changed), high + many.times(changed)
            what = f"{course.preset} {', '.join(course.views)}: {candidates} candidates on dev"
            least, most = self._switches(candidates * len(course.views))
            yield Work("select", what, low + least, high + most, course.preset)

    def _dev(self, subject: Subject, devs: Sequence[Qrels], pool: tuple[int, int] | None) -> tuple[Load, Load]:
        """One candidate on one dataset: all its dev queries, or a pool of those that matter."""
        rows = np.unique(np.concatenate([dev.query_rows for dev in devs]))
        if pool is None:
            load = self._asked(subject, rows)
            return load, load
        most, depth = pool
        rows = rows[:most]
        judged = sum(len(np.unique(dev.only_queries(dev.query_rows[:most]).documents)) for dev in devs)
        corpus = len(subject.dataset.corpus)
        many = min(corpus, judged + depth * len(rows))
        least = min(corpus, judged + depth // 2 * len(rows) // 2)
        share = self._documents[subject.name].times(1 / max(1, corpus))
        queries = self._load(self._counter.queries([subject.dataset.queries.texts[row] for row in rows]))
        return queries + share.times(least), queries + share.times(many)

    def optimized(self) -> Iterator[Work]:
        """Every dataset by the models that score it; documents again where they changed."""
        presets = list(dict.fromkeys(course.preset for course in self._courses))
        for preset in presets:
            mine = [course for course in self._courses if course.preset == preset]
            names = tuple(name for course in mine for name in course.views)
            for subject in self._subjects:
                views = self._plan.scoring_views(subject.name, names)
                settings = mine[0].settings
                once = most = self._asked(subject, self._plan.rows_to_rank(subject.name, views[0], settings))
                if settings.towers == "shared" or settings.documents is not None:
                    most = most + self._documents[subject.name]
                # Where documents' weight 0 is a choice, they may stay.
                if settings.towers == "shared" or (settings.documents and min(settings.documents.weights) > 0):
                    once = most
                # Folds that share a training may end with the same weights, or choose different ones.
                distinct = sum(1 for course in mine if set(course.views) & set(views)) if len(views) > 1 else 1
                what = f"{preset} {subject.name}, {len(views)} model{'s' if len(views) > 1 else ''}"
                yield Work("optimized", what, once.times(distinct), most.times(len(views)), preset)
            least, more = self._switches(len(names))
            yield Work("optimized", f"{preset}: weights read", least, more, preset)

    def _switches(self, count: int) -> tuple[Load, Load]:
        """So many times other weights."""
        few, many = (Load(host=count * one * self._shape.parameters / 1e6) for one in SWITCH_SECONDS)
        return few, many

    def _asked(self, subject: Subject, rows: NDArray[np.int32]) -> Load:
        """Queries encoded, and searched for in the whole corpus."""
        texts = [subject.dataset.queries.texts[row] for row in rows]
        products = 2.0 * len(rows) * len(subject.dataset.corpus) * self._shape.width
        return self._load(self._counter.queries(texts)) + Load(products=products)

    def _load(self, lengths: NDArray[np.int32]) -> Load:
        return Load(float(lengths.sum()), self._shape.forward(lengths, TOKEN_BUDGET["cuda"]))
