"""The stages in order, each given what the earlier ones left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.evaluate.metrics import evaluate
from ranksaga.recipe import Training
from ranksaga.retrieve.blend import Blend, DenseSide, choose_blend, hubness
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.retrieve.search import self_hits
from ranksaga.run.choice import chosen_encoder, read_choice, select
from ranksaga.run.context import Context, Subject
from ranksaga.run.learn import Lesson, Trained, train, trials
from ranksaga.run.measure import baseline, lexical, measure, rankings_of, vectors_of
from ranksaga.run.plan import SHIPPED, Plan, View, draw_plan, keep_audit
from ranksaga.run.preflight import check_plan, self_hits_note
from ranksaga.run.publish import Measured, Result, System, publish
from ranksaga.run.select import DevSet, dev_set
from ranksaga.run.stages import runs_to
from ranksaga.run.store import Entry

__all__ = ["dev_cut", "execute"]

# Selection looks at this many dev queries a dataset, and this deep into the rankings of the base model and of BM25:
# where every candidate reads documents anew, where a few do, and where documents stay.
DEV_CUT: Mapping[str, tuple[int | None, int | None]] = {"all": (100, 20), "some": (500, 100), "none": (None, None)}


@dataclass(frozen=True)
class Model:
    """One preset's models: by view what was trained (seeds and documents under names of their own) and what selection
    chose."""

    preset: str
    trained: Mapping[str, Entry]
    selected: Mapping[str, Entry]


def execute(context: Context, folder: Path, stop: str | None) -> Result | None:
    """All stages up to ``stop``; the result where the comparison was reached."""
    plan, audit = draw_plan(context)
    check_plan(context, plan, audit)
    for subject in context.subjects:
        _describe(context, subject)
        if note := self_hits_note(subject):
            context.voice.say(f"  {note}")
    if not runs_to(stop, "baseline"):
        return None
    context.voice.say(str(context.encoder.spec))
    names = [subject.name for subject in context.subjects]
    bases = dict(zip(names, context.team.map(partial(baseline, context), context.subjects), strict=True))
    words = dict(zip(names, context.team.map(partial(lexical, context), context.subjects), strict=True))
    if not runs_to(stop, "pairs"):
        return None
    keep_audit(context, audit)
    if not runs_to(stop, "train"):
        return None
    models = context.team.map(lambda preset: _model(context, preset, plan, bases, words, stop), context.recipe.presets)
    if not runs_to(stop, "optimized"):
        return None
    systems = [_baseline_system(context, plan, bases, words)]
    systems += [_optimized(context, model, plan, words) for model in models]
    if not runs_to(stop, "compare"):
        return None
    measured = Measured(
        context, plan, tuple(systems), _bm25(context, plan, words), _shipped(models[-1]), models[-1].selected
    )
    return publish(
        measured, {model.preset: model.trained for model in models}, folder, with_report=runs_to(stop, "report")
    )


def _describe(context: Context, subject: Subject) -> None:
    def work(folder: Path) -> dict[str, Any]:
        dataset = subject.dataset
        return {
            "documents": len(dataset.corpus),
            "queries": len(dataset.queries),
            "splits": {split: len(judged.query_rows) for split, judged in dataset.qrels.items()},
        }

    context.store.work("data", subject.name, {"dataset": subject.dataset.fingerprint}, work)


def _model(
    context: Context, preset: str, plan: Plan, bases: Mapping[str, Entry], words: Mapping[str, Entry], stop: str | None
) -> Model:
    """Train and select one preset in every view it needs."""
    settings = context.recipe.training[preset]
    if settings.search and runs_to(stop, "select"):
        settings = _searched(context, preset, plan, bases, words)

    def learn(view: View) -> tuple[Trained, Entry | None]:
        lesson = Lesson(preset, settings, view.name, plan.training(view, settings), bases)
        trained = train(context, lesson)
        if not runs_to(stop, "select"):
            return trained, None
        sets = _dev_sets(context, settings, plan.selecting(view, settings), bases, words)
        return trained, select(context, lesson, trained, sets)

    views = [view for view in plan.views if view.name == SHIPPED or settings.splits != "train"]
    found = {view.name: entries for view, entries in zip(views, context.team.map(learn, views), strict=True)}
    return Model(
        preset,
        {label: entry for name, (trained, _) in found.items() for label, entry in trained.entries(name).items()},
        {name: selected for name, (_, selected) in found.items() if selected is not None},
    )


def _searched(
    context: Context, preset: str, plan: Plan, bases: Mapping[str, Entry], words: Mapping[str, Entry]
) -> Training:
    """The settings, as they are or with another learning rate and number of epochs, that gain most on dev.

    Only datasets whose dev queries are scored by no fold may judge.
    """
    settings = context.recipe.training[preset]
    view = plan.view(SHIPPED)
    devs = {name: dev for name, dev in plan.selecting(view, settings).items() if name not in plan.cross_fitted}
    sets = _dev_sets(context, settings, devs, bases, words)

    def gain_of(trial: Training) -> float:
        lesson = Lesson(preset, trial, SHIPPED, plan.training(view, trial), bases)
        choice = read_choice(select(context, lesson, train(context, lesson), sets))
        gain = choice.gain({one.name for one in sets if one.role == "trained"})
        context.voice.say(f"  {preset}: {trial.learning_rate:g}, {trial.epochs} epochs: {100 * gain:+.2f}% on dev")
        return gain

    tried = trials(settings, context.recipe.seed)
    gains = context.team.map(gain_of, tried)
    return tried[int(np.argmax(gains))]  # of equals the first


def dev_cut(settings: Training) -> tuple[int | None, int | None]:
    """Most dev queries of a dataset that selection looks at, and how many documents of each ranking; none: all."""
    return DEV_CUT["all" if settings.towers != "query" else "none" if settings.documents is None else "some"]


def _dev_sets(
    context: Context,
    settings: Training,
    devs: Mapping[str, Qrels],
    bases: Mapping[str, Entry],
    words: Mapping[str, Entry],
) -> list[DevSet]:
    found = []
    queries, depth = dev_cut(settings)
    for subject in context.subjects:
        dev = devs.get(subject.name)
        if dev is None or len(dev) == 0:
            continue
        rows = dev.query_rows
        rankings = [rankings_of(bases[subject.name], rows), rankings_of(words[subject.name], rows)]
        one = dev_set(subject.name, subject.role, subject.dataset, dev, rankings, queries=queries, depth=depth)
        if one is not None:
            found.append(one)
    return found


def _shipped(model: Model) -> Entry:
    return model.selected[SHIPPED]


def _evaluated(
    subject: Subject, plan: Plan, rankings: Rankings, system: str, *, out_of_fold: bool = False
) -> Evaluation:
    judged = plan.scored(subject.name)
    return evaluate(rankings, subject.dataset, "test", system=system, qrels=judged, out_of_fold=out_of_fold)


def _bm25(context: Context, plan: Plan, words: Mapping[str, Entry]) -> System:
    parts = {
        subject.name: rankings_of(words[subject.name], plan.scored(subject.name).query_rows)
        for subject in context.subjects
    }
    values = tuple(_evaluated(subject, plan, parts[subject.name], "bm25") for subject in context.subjects)
    return System("bm25", values, parts, None, (), {})


def _baseline_system(context: Context, plan: Plan, bases: Mapping[str, Entry], words: Mapping[str, Entry]) -> System:
    parts: dict[str, Rankings] = {}
    mixed: list[Evaluation] = []
    blends: dict[str, tuple[Blend, ...]] = {}
    for subject in context.subjects:
        rows = plan.scored(subject.name).query_rows
        parts[subject.name] = rankings_of(bases[subject.name], rows)
        hybrid = _hybrid(context, subject, plan, {view.name: bases[subject.name] for view in plan.views}, words)
        if hybrid is not None:
            out_of_fold = plan.is_out_of_fold(subject.name)
            mixed.append(_evaluated(subject, plan, hybrid[0], "baseline_hybrid", out_of_fold=out_of_fold))
            blends[subject.name] = hybrid[1]
    values = tuple(_evaluated(subject, plan, parts[subject.name], "baseline") for subject in context.subjects)
    return System("baseline", values, parts, context.encoder, tuple(mixed), blends)


def _optimized(context: Context, model: Model, plan: Plan, words: Mapping[str, Entry]) -> System:
    """Score a preset: each query by a model that never saw it."""
    parts: dict[str, Rankings] = {}
    values: list[Evaluation] = []
    mixed: list[Evaluation] = []
    blends: dict[str, tuple[Blend, ...]] = {}
    pieces = [(one, view) for one in context.subjects for view in plan.scoring_views(one.name, tuple(model.selected))]
    # The shipped model scores nothing where all datasets are cross-fitted, and is shipped all the same.
    encoders = {
        view: chosen_encoder(context, model.preset, model.selected[view])
        for view in dict.fromkeys([*(view for _, view in pieces), SHIPPED])
    }

    def score(piece: tuple[Subject, str]) -> Entry:
        subject, view = piece
        rows = plan.rows_to_rank(subject.name, view, context.recipe.training[model.preset])
        label = f"{model.preset} {subject.name}" + ("" if view == SHIPPED else f" {view}")
        return measure(context, "optimized", label, encoders[view], subject.dataset, rows)

    scored = list(zip(pieces, context.team.map(score, pieces), strict=True))
    for subject in context.subjects:
        entries = {view: entry for (one, view), entry in scored if one is subject}
        parts[subject.name] = _pooled(plan, subject.name, entries)
        out_of_fold = len(entries) > 1
        values.append(_evaluated(subject, plan, parts[subject.name], model.preset, out_of_fold=out_of_fold))
        if model.preset != context.recipe.presets[-1]:
            continue
        hybrid = _hybrid(context, subject, plan, entries, words)
        if hybrid is not None:
            mixed.append(_evaluated(subject, plan, hybrid[0], "hybrid", out_of_fold=out_of_fold))
            blends[subject.name] = hybrid[1]
    return System(model.preset, tuple(values), parts, encoders[SHIPPED], tuple(mixed), blends)


def _pooled(plan: Plan, name: str, entries: Mapping[str, Entry]) -> Rankings:
    """One ranking a scored query, each from the view that scores it."""
    pieces = [rankings_of(entry, plan.rows_scored_by(name, view, tuple(entries))) for view, entry in entries.items()]
    return _joined(pieces)


def _joined(pieces: list[Rankings]) -> Rankings:
    if len(pieces) == 1:
        return pieces[0]
    width = max(piece.depth for piece in pieces)
    padded = [_padded(piece, width) for piece in pieces]
    queries = np.concatenate([piece.queries for piece in padded])
    order = np.argsort(queries, kind="stable")
    return Rankings(
        queries[order],
        np.concatenate([piece.documents for piece in padded])[order],
        np.concatenate([piece.scores for piece in padded])[order],
    )


def _padded(piece: Rankings, width: int) -> Rankings:
    missing = ((0, 0), (0, width - piece.depth))
    return Rankings(
        piece.queries,
        np.pad(piece.documents, missing, constant_values=-1),
        np.pad(piece.scores, missing, constant_values=-np.inf),
    )


def _hybrid(
    context: Context, subject: Subject, plan: Plan, entries: Mapping[str, Entry], words: Mapping[str, Entry]
) -> tuple[Rankings, tuple[Blend, ...]] | None:
    """BM25 mixed in, the blend chosen on each view's dev queries; ``None`` where there are no dev queries."""
    settings = context.recipe.training[context.recipe.presets[-1]]
    pieces, blends = [], []
    hubs: dict[str, NDArray[np.float32]] = {}
    for view in plan.scoring_views(subject.name, tuple(entries)):
        dev = plan.dev(subject.name, view, settings)
        if dev is None or len(dev) == 0:
            return None
        entry = entries[view]
        if entry.identity not in hubs:
            hubs[entry.identity] = hubness(vectors_of(entry).documents)
        asked = dev.query_rows
        side = _dense_side(subject.dataset, entry, asked, hubs[entry.identity])
        score = partial(_dev_score, subject.dataset, dev)
        blends.append(choose_blend(side, rankings_of(words[subject.name], asked), score))
        rows = plan.rows_scored_by(subject.name, view, tuple(entries))
        side = _dense_side(subject.dataset, entry, rows, hubs[entry.identity])
        pieces.append(side.blend(rankings_of(words[subject.name], rows), blends[-1]))
    return _joined(pieces), tuple(blends)


def _dense_side(dataset: Dataset, entry: Entry, rows: NDArray[np.int32], hubs: NDArray[np.float32]) -> DenseSide:
    vectors = vectors_of(entry)
    return DenseSide(
        rankings_of(entry, rows),
        vectors.of_queries(rows),
        vectors.documents,
        hubs,
        tie_order(dataset.corpus.ids),
        self_hits(dataset)[rows],
    )


def _dev_score(dataset: Dataset, dev: Qrels, rankings: Rankings) -> float:
    return evaluate(rankings, dataset, "dev", system="candidate", qrels=dev).mean("ndcg_at_10")
