"""The training stages: train and select, for one preset and one view of the splits."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.encode.encoder import Encoder
from ranksaga.errors import StageError
from ranksaga.files import read_json, write_json
from ranksaga.recipe import Distillation, Training
from ranksaga.run.context import Context, Subject
from ranksaga.run.measure import vectors_of
from ranksaga.run.select import Candidate, DevScorer, DevSet, choose, cut, judged, relative
from ranksaga.run.store import Entry

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ranksaga.train.trainer import Progress

__all__ = [
    "Choice",
    "Lesson",
    "Trained",
    "bank_of",
    "chosen_encoder",
    "documents_phase",
    "read_choice",
    "select",
    "train",
    "trials",
]

# What decides after training, so that another choice among the same weights trains nothing again.
SELECTION_ONLY = {"splits", "search", "seeds", "merge_weights", "documents", "tolerance", "standard_errors"}
WEIGHTS = "model.safetensors"
BANK = 50_000  # documents that a teacher ranks at every step
PSEUDO, SEARCH, REPEAT = 11, 12, 13  # streams of random draws


@dataclass(frozen=True)
class Lesson:
    """What one model is trained on and how: by subject the judgments, and the measured base model for mining.

    ``repeat`` 0, 1, ... are trainings on the same with seeds of their own.
    """

    preset: str
    settings: Training
    view: str
    training: Mapping[str, Qrels]
    baselines: Mapping[str, Entry]
    repeat: int = 0

    def seed(self, first: int) -> int:
        """The seed of this training, in a run with the seed ``first``."""
        if self.repeat == 0:
            return first
        return int(np.random.SeedSequence([first, REPEAT, self.repeat]).generate_state(1)[0])


@dataclass(frozen=True)
class Choice:
    """What selection decided: ``weight`` 0 is the base model. ``candidates`` hold dev scores by dataset."""

    epoch: int
    weight: float
    document_weight: float | None
    reason: str
    base: Mapping[str, float]
    candidates: tuple[Candidate, ...]

    def gain(self, datasets: Collection[str]) -> float:
        """Mean relative change on these datasets' dev; 0 where the base model stays."""
        found = [one for one in self.candidates if (one.epoch, one.weight, one.document_weight) == self._chosen]
        return max((_mean_gain(self.base, one.scores, datasets) for one in found), default=0.0)

    @property
    def _chosen(self) -> tuple[int, float, float | None]:
        return self.epoch, self.weight, self.document_weight


def trials(settings: Training, seed: int) -> list[Training]:
    """The settings, and ``search`` others: learning rates up to 4 times lower or higher, half to twice the epochs."""
    rng = np.random.default_rng([seed, SEARCH])
    found = [settings]
    for _ in range(settings.search):
        rate = settings.learning_rate * float(4.0 ** rng.uniform(-1, 1))
        epochs = max(1, round(settings.epochs * float(2.0 ** rng.uniform(-1, 1))))
        # Two digits: a rate is no more precise than that, and a person has to read it.
        found.append(settings.model_copy(update={"learning_rate": float(f"{rate:.1e}"), "epochs": epochs}))
    return found


def _mean_gain(base: Mapping[str, float], scores: Mapping[str, float], datasets: Collection[str]) -> float:
    return float(np.mean([relative(base[name], score) for name, score in scores.items() if name in datasets]))


@dataclass(frozen=True)
class Trained:
    """What a lesson left: trainings that differ in their seed alone, and what documents learned after them."""

    queries: tuple[Entry, ...]
    documents: Entry | None

    @property
    def epochs(self) -> int:
        """Of each training."""
        return len(self.queries[0].summary["epochs"])

    def weights(self, epoch: int) -> dict[str, Any]:
        """The weights after an epoch (1, 2, ...): the mean over the seeds, the documents' tower from its own training
        where there was one."""
        from ranksaga.encode.towers import query_tower_state
        from ranksaga.train.merge import average, load_weights

        states = [load_weights(one.folder / one.summary["epochs"][epoch - 1]) for one in self.queries]
        state = average(states) if len(states) > 1 else states[0]
        if self.documents is None:
            return state
        of_queries = query_tower_state(state)
        after = load_weights(self.documents.folder / self.documents.summary["epochs"][-1])
        return {name: state[name] if name in of_queries else after[name] for name in state}

    def entries(self, view: str) -> dict[str, Entry]:
        """The stages by a name for people."""
        found = {view if place == 0 else f"{view} seed {place + 1}": one for place, one in enumerate(self.queries)}
        return found if self.documents is None else {**found, f"{view} documents": self.documents}


def train(context: Context, lesson: Lesson) -> Trained:
    """Fine-tune the base model on a lesson, once for each seed, and then documents where the settings ask."""
    seeds = range(lesson.settings.seeds)
    queries = Trained(
        tuple(context.team.map(lambda repeat: _train(context, replace(lesson, repeat=repeat)), seeds)), None
    )
    return (
        queries if lesson.settings.documents is None else replace(queries, documents=_train(context, lesson, queries))
    )


def _train(context: Context, lesson: Lesson, queries: Trained | None = None) -> Entry:
    """One training; keeps the weights of every epoch.

    The work is known by what it learns from, not by its view: views that teach the same share one training.

    Args:
        context: of the run.
        lesson: what is learned.
        queries: the trainings of the queries' tower, which the documents' tower now learns from; none: the first phase.
    """
    settings, start = _phase(lesson.settings, queries)
    spec = context.encoder.spec
    seed = lesson.seed(context.recipe.seed)
    inputs = {
        "encoder": spec.identity,
        "settings": settings.model_dump(mode="json", exclude=SELECTION_ONLY),
        "seed": seed,
        "start": start,
        "datasets": {
            subject.name: [subject.dataset.fingerprint, _hash(lesson.training[subject.name])]
            for subject in context.subjects
            if subject.name in lesson.training
        },
    }

    def work(folder: Path) -> dict[str, Any]:
        sources = _sources(context, lesson, settings)
        with _bar(context, f"train {name}") as progress:
            result = context.team.train(
                _at_start(context, settings, queries, start),
                sources,
                settings,
                query_prompt=spec.prompts.query,
                document_prompt=spec.prompts.document,
                max_length=spec.max_length,
                precision=spec.precision,
                seed=seed,
                folder=folder,
                progress=progress,
            )
        return {
            "epochs": [str(path.relative_to(folder)) for path in result.epochs],
            "steps": result.steps,
            "pairs": result.pairs,
            "seconds": result.seconds,
            "capped": result.capped,
            "teachers": {one.name: asdict(one.mix) for one in sources if settings.distillation is not None},
        }

    name = f"{lesson.preset} {lesson.view}"
    name += " documents" if queries is not None else f" seed {lesson.repeat + 1}" if lesson.repeat else ""
    return context.store.work("train", name, inputs, work)


def _phase(settings: Training, queries: Trained | None) -> tuple[Training, list[Any]]:
    """The settings of a training phase, and what it starts from beside the base model."""
    if queries is None or settings.documents is None:
        return settings, []
    return documents_phase(settings), [*(one.identity for one in queries.queries), settings.documents.query_weight]


def documents_phase(settings: Training) -> Training:
    """The settings of the second phase of a training that has one."""
    after = settings.documents
    assert after is not None
    return settings.model_copy(
        update={
            "towers": "document",
            "epochs": after.epochs,
            "learning_rate": after.learning_rate,
            "seeds": 1,
            "documents": None,
        }
    )


def _at_start(
    context: Context, settings: Training, queries: Trained | None, start: Sequence[Any]
) -> SentenceTransformer:
    from ranksaga.train.merge import interpolate

    model = context.fresh_model(settings)
    if queries is not None:
        model.load_state_dict(interpolate(model.state_dict(), queries.weights(queries.epochs), start[-1]))
    return model


def select(context: Context, lesson: Lesson, trained: Trained, sets: Sequence[DevSet]) -> Entry:
    """Choose epoch and weights on dev, and keep the chosen ones. The choice is on disk before any test score."""
    settings = lesson.settings
    inputs = {
        "trained": [one.identity for one in trained.entries("").values()],
        "weights": [settings.merge_weights, settings.documents.weights if settings.documents is not None else None],
        "tolerance": [settings.tolerance, settings.standard_errors],
        "dev": [[one.name, one.role, one.dataset.fingerprint] for one in sets],
        "encoder": context.encoder.spec.identity,
    }

    def work(folder: Path) -> dict[str, Any]:
        from ranksaga.train.merge import save_weights

        if settings.merge_weights == (1.0,) and settings.towers == "shared" and not settings.search:
            # The first study's way: the last epoch as it is, and no dev score asked.
            choice = Choice(trained.epochs, 1.0, None, "last epoch, as the preset says", {}, ())
        else:
            choice = _choose(context, lesson, trained, sets)
        if choice.weight > 0:
            base = context.fresh_model(settings).state_dict()
            save_weights(folder / WEIGHTS, _mixed(base, trained.weights(choice.epoch), choice))
        write_json(folder / "choice.json", asdict(choice))
        return {
            "epoch": choice.epoch,
            "weight": choice.weight,
            "document_weight": choice.document_weight,
            "reason": choice.reason,
        }

    return context.store.work("select", f"{lesson.preset} {lesson.view}", inputs, work)


def chosen_encoder(context: Context, preset: str, selected: Entry) -> Encoder:
    """The encoder around the chosen weights."""
    from ranksaga.train.merge import load_weights

    if selected.summary["weight"] == 0:
        return context.encoder
    model = context.fresh_model(context.recipe.training[preset])
    model.load_state_dict(load_weights(selected.folder / WEIGHTS))
    return context.encoder.with_model(model)


def read_choice(selected: Entry) -> Choice:
    """What a selection wrote down."""
    stored = read_json(selected.folder / "choice.json")
    return Choice(**{**stored, "candidates": tuple(Candidate(**candidate) for candidate in stored["candidates"])})


def _choose(context: Context, lesson: Lesson, trained: Trained, sets: Sequence[DevSet]) -> Choice:
    if not sets:
        raise StageError(
            f"{lesson.preset}: no dataset has dev queries to choose an epoch and a weight; add a dev split"
        )
    settings = lesson.settings
    model = context.fresh_model(settings)
    base_state = copy.deepcopy(model.state_dict())
    score = DevScorer(sets)
    of_base = score(context.encoder)
    base = {name: float(values.mean()) for name, values in of_base.items()}
    of_documents = (None,) if settings.documents is None else settings.documents.weights
    # Documents outermost: they are encoded once for each weight of theirs.
    rounds = list(product(of_documents, range(1, trained.epochs + 1)))
    candidates: list[Candidate] = []
    total = len(rounds) * len(settings.merge_weights)
    with context.voice.progress(f"select {lesson.preset} {lesson.view}", total) as advance:
        for document_weight, epoch in rounds:
            tuned = trained.weights(epoch)
            for weight in settings.merge_weights:
                candidate = Candidate(epoch, weight, document_weight, {}, {})
                model.load_state_dict(_mixed(base_state, tuned, candidate))
                candidates.append(judged(candidate, of_base, score(context.encoder.with_model(model))))
                advance(1)
    roles = {one.name: one.role for one in sets}
    best = choose(base, candidates, roles, settings.tolerance, settings.standard_errors)
    if best is None:
        worst = max(candidates, key=lambda c: min(relative(base[name], score) for name, score in c.scores.items()))
        name = min(worst.scores, key=lambda name: relative(base[name], worst.scores[name]))
        change = 100 * relative(base[name], worst.scores[name])
        reason = (
            f"no candidate gains without losing somewhere (the gentlest changes {name} by {change:+.1f}%): base kept"
        )
        return Choice(0, 0.0, None, reason, base, tuple(candidates))
    reason = "largest mean gain on dev that loses nowhere"
    return Choice(best.epoch, best.weight, best.document_weight, reason, base, tuple(candidates))


def _mixed(base: Mapping[str, Any], tuned: Mapping[str, Any], mix: Candidate | Choice) -> dict[str, Any]:
    """Base and tuned weights mixed, the documents' tower by a weight of its own where it has one."""
    from ranksaga.encode.towers import query_tower_state
    from ranksaga.train.merge import interpolate

    state = interpolate(base, tuned, mix.weight)
    if mix.document_weight is None:
        return state
    documents = interpolate(base, tuned, mix.document_weight)
    of_queries = query_tower_state(base)
    return {name: state[name] if name in of_queries else documents[name] for name in state}


def _hash(judged: Qrels) -> str:
    """Identity of judgments by row; the rows mean what they mean in a dataset of known fingerprint."""
    digest = hashlib.sha256()
    for array in (judged.queries, judged.documents, judged.scores):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _bar(context: Context, label: str) -> Iterator[Progress]:
    """A bar over optimizer steps, opened at the first one, when their number is known."""
    with ExitStack() as stack:
        advance: Callable[..., None] | None = None
        seen = 0

        def progress(*, step: int, total: int, loss: float, pairs_per_second: float, seconds_left: float) -> None:
            nonlocal advance, seen
            if advance is None:
                advance = stack.enter_context(context.voice.progress(label, total))
            advance(step - seen, note=f"loss {loss:.3f}, {pairs_per_second:.0f} pairs/s, {seconds_left:.0f} s left")
            seen = step

        yield progress


def _sources(context: Context, lesson: Lesson, settings: Training) -> list[Any]:
    subjects = [subject for subject in context.subjects if subject.name in lesson.training]
    if settings.distillation is not None:
        return [_teacher(context, lesson, subject, settings.distillation) for subject in subjects]
    return [_pairs(lesson, subject, settings) for subject in subjects]


def _pairs(lesson: Lesson, subject: Subject, settings: Training) -> Any:
    """A dataset's labelled pairs, with hard negatives mined by the base model where the settings ask."""
    from ranksaga.train.negatives import mine_negatives
    from ranksaga.train.pairs import labelled_pairs

    pairs = labelled_pairs(subject.dataset, lesson.training[subject.name], titles=settings.titles)
    if not settings.hard_negatives:
        return pairs
    vectors = vectors_of(lesson.baselines[subject.name])
    return mine_negatives(pairs, _by_row(subject, vectors), vectors.documents, margin=settings.negative_margin)


def _teacher(context: Context, lesson: Lesson, subject: Subject, options: Distillation) -> Any:
    """The base model and its corrections over a dataset, how much of each chosen on the queries that train."""
    from ranksaga.retrieve.lexical import LexicalIndex
    from ranksaga.train.pseudo import pseudo_queries
    from ranksaga.train.teacher import Mix, Passages, Teacher, choose_mix, passages_of

    name = subject.name
    vectors = vectors_of(lesson.baselines[name])
    rng = np.random.default_rng([lesson.seed(context.recipe.seed), PSEUDO, int(subject.dataset.fingerprint[:8], 16)])
    dataset, documents = bank_of(subject.dataset, lesson.training[name], rng)
    train = dataset.qrels["train"]
    pseudo = pseudo_queries(dataset.corpus, options.pseudo_queries, rng)
    teacher = Teacher(
        dataset,
        LexicalIndex.of(dataset),
        Mix(options.words, options.feedback, options.hubness, 0.0),
        np.array(vectors.documents[documents]),  # a copy: torch wants memory that it may write
        tuple(pseudo),
        context.encoder.encode_queries([one.text for one in pseudo]),
        train,
        vectors.of_queries(train.query_rows),
    )

    def read_passages() -> Passages:
        texts, rows = passages_of(dataset.corpus)
        return Passages(context.encoder.encode_documents(texts), rows)

    if len(train):
        teacher = choose_mix(teacher, read_passages)
    counts = f"{len(pseudo)} pseudo-queries, {len(train.query_rows)} training queries"
    context.voice.say(f"  {name}: {counts}, teacher {teacher.mix}")
    return teacher


def bank_of(dataset: Dataset, train: Qrels, rng: np.random.Generator) -> tuple[Dataset, NDArray[np.int64]]:
    """A dataset as a teacher sees it, its judgments those that train, and the corpus rows of its documents.

    A step looks at every document of the bank, so of a large corpus only a part is drawn, besides what is judged.
    """
    rows = np.arange(len(dataset.corpus), dtype=np.int64)
    if len(rows) > BANK:
        rows = np.union1d(train.documents, rng.choice(len(rows), BANK, replace=False)).astype(np.int64)
    return cut(dataset, "train", train, rows), rows


def _by_row(subject: Subject, vectors: Any) -> Any:
    """Query vectors by query row; queries that are judged nowhere stay 0 and are in no pair."""
    full = np.zeros((len(subject.dataset.queries), vectors.queries.shape[1]), dtype=np.float32)
    full[vectors.query_rows] = vectors.queries
    return full
