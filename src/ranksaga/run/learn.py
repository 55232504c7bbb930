"""The training stage, for one preset and one view of the splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.recipe import Distillation, Training
from ranksaga.run.context import Context, Subject
from ranksaga.run.measure import vectors_of
from ranksaga.run.store import Entry

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ranksaga.train.trainer import Progress

__all__ = [
    "Lesson",
    "Trained",
    "bank_of",
    "documents_phase",
    "train",
    "trials",
]

# What decides after training, so that another choice among the same weights trains nothing again.
SELECTION_ONLY = {"splits", "search", "seeds", "merge_weights", "documents", "tolerance", "standard_errors"}
FORMAT = 2  # 2: a teacher's corrections and temperature are in spreads of the base model's similarities
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
        from ranksaga.encode.weight_files import load_weights
        from ranksaga.train.model_merging import average

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
        "format": FORMAT,
        "encoder": spec.identity,
        # What is off is left out, so that a setting which comes later changes no identity of today.
        "settings": settings.model_dump(mode="json", exclude=SELECTION_ONLY, exclude_none=True),
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
    from ranksaga.train.model_merging import interpolate

    model = context.fresh_model(settings)
    if queries is not None:
        model.load_state_dict(interpolate(model.state_dict(), queries.weights(queries.epochs), start[-1]))
    return model


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
    return dataset.cut("train", train, rows), rows


def _by_row(subject: Subject, vectors: Any) -> Any:
    """Query vectors by query row; queries that are judged nowhere stay 0 and are in no pair."""
    full = np.zeros((len(subject.dataset.queries), vectors.queries.shape[1]), dtype=np.float32)
    full[vectors.query_rows] = vectors.queries
    return full
