"""The training stages: train and select, for one preset and one view of the splits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.encode.encoder import Encoder
from ranksaga.errors import StageError
from ranksaga.files import read_json, write_json
from ranksaga.recipe import Distillation, Training
from ranksaga.run.context import Context, Subject
from ranksaga.run.measure import vectors_of
from ranksaga.run.select import Candidate, DevSet, choose, relative, score_dev
from ranksaga.run.store import Entry

if TYPE_CHECKING:
    from ranksaga.retrieve.lexical import LexicalIndex
    from ranksaga.train.trainer import Progress

__all__ = ["Choice", "Lesson", "chosen_encoder", "read_choice", "select", "train"]

# What decides after training, so that another choice among the same weights trains nothing again.
SELECTION_ONLY = {"splits", "merge_weights", "tolerance"}
WEIGHTS = "model.safetensors"
PSEUDO = 11
# BM25 teaches where, at its best share, it lifts nDCG@10 of the training queries by this factor.
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SHARE_QUERIES, SHARE_GAIN = 300, 1.02


@dataclass(frozen=True)
class Lesson:
    """What one model is trained on: by subject the judgments, and the measured base model for mining."""

    preset: str
    view: str
    training: Mapping[str, Qrels]
    baselines: Mapping[str, Entry]


@dataclass(frozen=True)
class Choice:
    """What selection decided: ``weight`` 0 is the base model. ``candidates`` hold dev scores by dataset."""

    epoch: int
    weight: float
    reason: str
    base: Mapping[str, float]
    candidates: tuple[Candidate, ...]


def train(context: Context, lesson: Lesson, plan: str) -> Entry:
    """Fine-tune the base model on a lesson; keeps the weights of every epoch."""
    settings = context.recipe.training[lesson.preset]
    spec = context.encoder.spec
    inputs = {
        "encoder": spec.identity,
        "settings": settings.model_dump(mode="json", exclude=SELECTION_ONLY),
        "plan": plan,
        "view": lesson.view,
        "seed": context.recipe.seed,
        "datasets": sorted(lesson.training),
    }

    def work(folder: Path) -> dict[str, Any]:
        from ranksaga.train.trainer import train as fit

        sources = _sources(context, lesson, settings)
        label = f"train {lesson.preset} {lesson.view}"
        with _bar(context, label) as progress:
            result = fit(
                context.fresh_model(),
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
        }

    return context.store.work("train", f"{lesson.preset} {lesson.view}", inputs, work)


def select(context: Context, preset: str, view: str, trained: Entry, sets: Sequence[DevSet]) -> Entry:
    """Choose epoch and weight on dev, and keep the chosen weights. The choice is on disk before any test score."""
    settings = context.recipe.training[preset]
    inputs = {
        "trained": trained.identity,
        "merge_weights": list(settings.merge_weights),
        "tolerance": settings.tolerance,
        "dev": [[one.name, one.role, one.dataset.fingerprint] for one in sets],
        "encoder": context.encoder.spec.identity,
    }

    def work(folder: Path) -> dict[str, Any]:
        from ranksaga.train.merge import interpolate, load_weights, save_weights

        base_state = context.encoder.model.state_dict()
        epochs = [trained.folder / path for path in trained.summary["epochs"]]
        if settings.merge_weights == (1.0,):
            # The first study's way: the last epoch as it is, and no dev score asked.
            choice = Choice(len(epochs), 1.0, "last epoch, as the preset says", {}, ())
        else:
            choice = _choose(context, preset, view, settings, epochs, sets)
        state = base_state
        if choice.weight > 0:
            state = interpolate(base_state, load_weights(epochs[choice.epoch - 1]), choice.weight)
        save_weights(folder / WEIGHTS, state)
        write_json(folder / "choice.json", _as_json(choice))
        return {"epoch": choice.epoch, "weight": choice.weight, "reason": choice.reason}

    return context.store.work("select", f"{preset} {view}", inputs, work)


def chosen_encoder(context: Context, selected: Entry) -> Encoder:
    """The encoder around the chosen weights."""
    from ranksaga.train.merge import load_weights

    if selected.summary["weight"] == 0:
        return context.encoder
    model = context.fresh_model()
    model.load_state_dict(load_weights(selected.folder / WEIGHTS))
    return context.encoder.with_model(model)


def read_choice(selected: Entry) -> Choice:
    """What a selection wrote down."""
    stored = read_json(selected.folder / "choice.json")
    candidates = tuple(Candidate(c["epoch"], c["weight"], c["scores"]) for c in stored["candidates"])
    return Choice(stored["epoch"], stored["weight"], stored["reason"], stored["base"], candidates)


def _choose(
    context: Context, preset: str, view: str, settings: Training, epochs: Sequence[Path], sets: Sequence[DevSet]
) -> Choice:
    from ranksaga.train.merge import interpolate, load_weights

    if not sets:
        raise StageError(f"{preset}: no dataset has dev queries to choose an epoch and a weight; add a dev split")
    base_state = copy.deepcopy(context.encoder.model.state_dict())
    base = score_dev(context.encoder, sets)
    model = context.fresh_model()
    candidates: list[Candidate] = []
    with context.voice.progress(f"select {preset} {view}", len(epochs) * len(settings.merge_weights)) as advance:
        for epoch, path in enumerate(epochs, start=1):
            tuned = load_weights(path)
            for weight in settings.merge_weights:
                model.load_state_dict(interpolate(base_state, tuned, weight))
                candidates.append(Candidate(epoch, weight, score_dev(context.encoder.with_model(model), sets)))
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
        return Choice(0, 0.0, reason, base, tuple(candidates))
    return Choice(best.epoch, best.weight, "largest mean gain on dev that loses nowhere", base, tuple(candidates))


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
    """Base model and BM25 over a dataset, BM25's share chosen on the queries that train."""
    from ranksaga.retrieve.lexical import LexicalIndex
    from ranksaga.train.distill import Teacher
    from ranksaga.train.pseudo import pseudo_queries

    name, dataset = subject.name, subject.dataset
    train = lesson.training[name]
    vectors = vectors_of(lesson.baselines[name])
    documents = np.array(vectors.documents)  # a copy: torch wants memory that it may write
    index = LexicalIndex.of(dataset)
    known = vectors.of_queries(train.query_rows)
    rng = np.random.default_rng([context.recipe.seed, PSEUDO, int(dataset.fingerprint[:8], 16)])
    pseudo = pseudo_queries(dataset.corpus, options.pseudo_queries, rng)
    context.voice.say(f"  {name}: {len(pseudo)} pseudo-queries, {len(train.query_rows)} training queries")
    return Teacher(
        dataset,
        index,
        _share(dataset, train, known, documents, index),
        documents,
        tuple(pseudo),
        context.encoder.encode_queries([one.text for one in pseudo]),
        train,
        known,
    )


def _share(dataset: Dataset, train: Qrels, vectors: Any, documents: Any, index: LexicalIndex) -> float:
    """What BM25 adds to the cosine, by nDCG@10 over (a part of) the training queries; 0 unless it helps."""
    from ranksaga.evaluate.metrics import evaluate
    from ranksaga.retrieve.rankings import tie_order
    from ranksaga.retrieve.search import search

    rows = train.query_rows
    places = np.linspace(0, len(rows) - 1, min(len(rows), SHARE_QUERIES)).round().astype(np.int64)
    rows, chosen = rows[places], train.only_queries(rows[places])
    words = index.scores_of_texts([dataset.queries.texts[row] for row in rows])
    words /= np.maximum(words.max(axis=1, keepdims=True), 1e-6)
    cosine = vectors[places] @ documents.T
    ties = tie_order(dataset.corpus.ids)
    # One-hot queries turn the search into a sort of these scores, with its tie order.
    unit = np.eye(len(rows), dtype=np.float32)

    def score(share: float) -> float:
        mixed = np.ascontiguousarray((cosine + share * words).T)
        rankings = search(unit, [(0, mixed)], query_rows=rows, ties=ties, depth=10)
        return evaluate(rankings, dataset, "train", system="teacher", qrels=chosen).mean("ndcg_at_10")

    scores = {share: score(share) for share in SHARES}
    best = max(SHARES, key=lambda share: scores[share])
    return best if scores[best] > SHARE_GAIN * scores[0.0] else 0.0


def _by_row(subject: Subject, vectors: Any) -> Any:
    """Query vectors by query row; queries that are judged nowhere stay 0 and are in no pair."""
    full = np.zeros((len(subject.dataset.queries), vectors.queries.shape[1]), dtype=np.float32)
    full[vectors.query_rows] = vectors.queries
    return full


def _as_json(choice: Choice) -> dict[str, Any]:
    return {
        "epoch": choice.epoch,
        "weight": choice.weight,
        "reason": choice.reason,
        "base": dict(choice.base),
        "candidates": [{"epoch": c.epoch, "weight": c.weight, "scores": dict(c.scores)} for c in choice.candidates],
    }
