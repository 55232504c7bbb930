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
from ranksaga.run.select import Candidate, DevScorer, DevSet, choose, cut, relative
from ranksaga.run.store import Entry

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ranksaga.train.trainer import Progress

__all__ = [
    "Choice",
    "Lesson",
    "bank_of",
    "chosen_encoder",
    "documents_phase",
    "read_choice",
    "select",
    "train",
    "trials",
]

# What decides after training, so that another choice among the same weights trains nothing again.
SELECTION_ONLY = {"splits", "search", "merge_weights", "documents", "tolerance"}
WEIGHTS = "model.safetensors"
BANK = 50_000  # documents that a teacher ranks at every step
PSEUDO, SEARCH = 11, 12  # streams of random draws


@dataclass(frozen=True)
class Lesson:
    """What one model is trained on and how: by subject the judgments, and the measured base model for mining."""

    preset: str
    settings: Training
    view: str
    training: Mapping[str, Qrels]
    baselines: Mapping[str, Entry]


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


def train(context: Context, lesson: Lesson, queries: Entry | None = None) -> Entry:
    """Fine-tune the base model on a lesson; keeps the weights of every epoch.

    The work is known by what it learns from, not by its view: views that teach the same share one training.

    Args:
        context: of the run.
        lesson: what is learned.
        queries: the training of the queries' tower, which the documents' tower now learns from; none: the first phase.
    """
    settings, start = _phase(lesson.settings, queries)
    spec = context.encoder.spec
    inputs = {
        "encoder": spec.identity,
        "settings": settings.model_dump(mode="json", exclude=SELECTION_ONLY),
        "seed": context.recipe.seed,
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
                seed=context.recipe.seed,
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

    name = f"{lesson.preset} {lesson.view}" + ("" if queries is None else " documents")
    return context.store.work("train", name, inputs, work)


def _phase(settings: Training, queries: Entry | None) -> tuple[Training, list[Any]]:
    """The settings of a training phase, and what it starts from beside the base model."""
    if queries is None or settings.documents is None:
        return settings, []
    return documents_phase(settings), [queries.identity, settings.documents.query_weight]


def documents_phase(settings: Training) -> Training:
    """The settings of the second phase of a training that has one."""
    after = settings.documents
    assert after is not None
    changes = {"towers": "document", "epochs": after.epochs, "learning_rate": after.learning_rate, "documents": None}
    return settings.model_copy(update=changes)


def _at_start(context: Context, settings: Training, queries: Entry | None, start: Sequence[Any]) -> SentenceTransformer:
    from ranksaga.train.merge import interpolate, load_weights

    model = context.fresh_model(settings)
    if queries is not None:
        tuned = load_weights(queries.folder / queries.summary["epochs"][-1])
        model.load_state_dict(interpolate(model.state_dict(), tuned, start[-1]))
    return model


def select(
    context: Context, lesson: Lesson, trained: Entry, sets: Sequence[DevSet], documents: Entry | None = None
) -> Entry:
    """Choose epoch and weights on dev, and keep the chosen ones. The choice is on disk before any test score.

    ``documents`` is the training of the documents' tower, where there was one.
    """
    settings = lesson.settings
    of_documents = settings.documents.weights if settings.documents is not None and documents is not None else None
    inputs = {
        "trained": trained.identity,
        "documents": documents.identity if documents is not None else None,
        "weights": [settings.merge_weights, of_documents],
        "tolerance": settings.tolerance,
        "dev": [[one.name, one.role, one.dataset.fingerprint] for one in sets],
        "encoder": context.encoder.spec.identity,
    }

    def work(folder: Path) -> dict[str, Any]:
        from ranksaga.train.merge import save_weights

        epochs = [trained.folder / path for path in trained.summary["epochs"]]
        if settings.merge_weights == (1.0,) and settings.towers == "shared":
            # The first study's way: the last epoch as it is, and no dev score asked.
            choice = Choice(len(epochs), 1.0, None, "last epoch, as the preset says", {}, ())
        else:
            choice = _choose(context, lesson, epochs, sets, documents)
        if choice.weight > 0:
            base = context.fresh_model(settings).state_dict()
            save_weights(folder / WEIGHTS, _mixed(base, _tuned(epochs[choice.epoch - 1], documents), choice))
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


def _choose(
    context: Context, lesson: Lesson, epochs: Sequence[Path], sets: Sequence[DevSet], documents: Entry | None
) -> Choice:
    if not sets:
        raise StageError(
            f"{lesson.preset}: no dataset has dev queries to choose an epoch and a weight; add a dev split"
        )
    settings = lesson.settings
    model = context.fresh_model(settings)
    base_state = copy.deepcopy(model.state_dict())
    score = DevScorer(sets)
    base = score(context.encoder)
    of_documents: tuple[float | None, ...] = (None,)
    if documents is not None and settings.documents is not None:
        of_documents = settings.documents.weights
    # Documents outermost: they are encoded once for each weight of theirs.
    rounds = list(product(of_documents, enumerate(epochs, start=1)))
    candidates: list[Candidate] = []
    total = len(rounds) * len(settings.merge_weights)
    with context.voice.progress(f"select {lesson.preset} {lesson.view}", total) as advance:
        for document_weight, (epoch, path) in rounds:
            tuned = _tuned(path, documents)
            for weight in settings.merge_weights:
                candidate = Candidate(epoch, weight, document_weight, {})
                model.load_state_dict(_mixed(base_state, tuned, candidate))
                scores = score(context.encoder.with_model(model))
                candidates.append(replace(candidate, scores=scores))
                advance(1)
    roles = {one.name: one.role for one in sets}
    best = choose(base, candidates, roles, settings.tolerance)
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


def _tuned(epoch: Path, documents: Entry | None) -> dict[str, Any]:
    """The weights of an epoch, with the documents' tower of its own training where there was one."""
    from ranksaga.encode.towers import query_tower_state
    from ranksaga.train.merge import load_weights

    state = load_weights(epoch)
    if documents is None:
        return state
    of_queries = query_tower_state(state)
    after = load_weights(documents.folder / documents.summary["epochs"][-1])
    return {name: state[name] if name in of_queries else after[name] for name in state}


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
    rng = np.random.default_rng([context.recipe.seed, PSEUDO, int(subject.dataset.fingerprint[:8], 16)])
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
