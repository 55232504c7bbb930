"""The stage ``score``: every system's rankings and values on the queries that score it, each by a model that never
saw the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.data.self_hits import self_hits
from ranksaga.encode.encoder import Encoder
from ranksaga.evaluate import metrics
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.evaluate.metrics import evaluate
from ranksaga.files import read_json, write_json
from ranksaga.retrieve import blend, hybrid
from ranksaga.retrieve.blend import Blend, DenseSide, choose_blend, hubness
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.run.arrays import read_values, write_rankings, write_values
from ranksaga.run.context import Context, RunDataset
from ranksaga.run.measure import EncodingInputs, encode_and_rank, hash_of, rankings_of, rows_of, vectors_of
from ranksaga.run.plan import SHIPPED, Plan
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import SCORE
from ranksaga.run.stages.baseline import Baselines
from ranksaga.run.stages.select import chosen_encoder
from ranksaga.run.store import Entry

__all__ = ["Scored", "System", "read_blends", "read_evaluation", "score"]


@dataclass(frozen=True)
class ScoreInputs(EncodingInputs):
    """Of a chosen model on one dataset."""

    STAGE = SCORE
    VERSION = 1


@dataclass(frozen=True)
class EvaluateInputs(Inputs):
    """Of one system's values on one dataset: ``parts`` are (identity of rankings, hash of the rows taken of them)."""

    STAGE = SCORE
    VERSION = 1

    dataset: str
    scored: str
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    cutoffs: tuple[int, ...]


@dataclass(frozen=True)
class BlendInputs(EvaluateInputs):
    """The same, mixed with BM25's rankings: ``devs`` are hashes of the judgments that choose each part's blend."""

    bm25: str
    devs: tuple[str, ...]
    constants: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """What one view gives to a system's rankings of a dataset: the rows of its queries that this view scores."""

    view: str
    entry: Entry
    rows: NDArray[np.int32]


@dataclass(frozen=True)
class Scored:
    """One system on one dataset: where its rankings and values are."""

    name: str
    member: RunDataset
    entry: Entry
    out_of_fold: bool


@dataclass(frozen=True)
class System:
    """A system's measurements. ``encoder`` is what a user would deploy, none for BM25; ``mixed`` are those of the
    system mixed with BM25."""

    name: str
    encoder: Encoder | None
    scored: tuple[Scored, ...]
    mixed: tuple[Scored, ...] = ()


def score(
    context: Context, plan: Plan, baselines: Baselines, selected: Mapping[str, Mapping[str, Entry]]
) -> tuple[System, ...]:
    """BM25, the base model, and every system by the models that selection chose (by system and view)."""
    systems = [_of_bm25(context, plan, baselines), _of_base(context, plan, baselines)]
    return (*systems, *(_of_trained(context, plan, baselines, name, views) for name, views in selected.items()))


def read_evaluation(scored: Scored, plan: Plan) -> Evaluation:
    """The values of each query that is scored."""
    queries = scored.member.dataset.queries.ids
    ids = tuple(queries[row] for row in plan.scored(scored.member.name).query_rows)
    values = read_values(scored.entry.folder / "values.npz")
    return Evaluation(scored.member.dataset.name, "test", scored.name, ids, values, scored.out_of_fold)


def read_blends(scored: Scored) -> tuple[Blend, ...]:
    """How a mixed system was mixed, by part."""
    return tuple(Blend(**values) for values in read_json(scored.entry.folder / "blends.json"))


def _of_bm25(context: Context, plan: Plan, baselines: Baselines) -> System:
    scored = []
    for member in context.datasets:
        part = Part(SHIPPED, baselines.bm25[member.name], plan.scored(member.name).query_rows)
        scored.append(_evaluated(context, plan, "bm25", member, [part], out_of_fold=False))
    return System("bm25", None, tuple(scored))


def _of_base(context: Context, plan: Plan, baselines: Baselines) -> System:
    scored, mixed = [], []
    for member in context.datasets:
        entry = baselines.dense[member.name]
        part = Part(SHIPPED, entry, plan.scored(member.name).query_rows)
        scored.append(_evaluated(context, plan, "baseline", member, [part], out_of_fold=False))
        # One model, yet each fold's blend is chosen on the dev queries of that fold.
        parts = _parts(plan, member, {view.name: entry for view in plan.views})
        mixed += _mixed(context, plan, "baseline_hybrid", member, parts, baselines, plan.is_out_of_fold(member.name))
    return System("baseline", context.encoder, tuple(scored), tuple(mixed))


def _of_trained(context: Context, plan: Plan, baselines: Baselines, name: str, selected: Mapping[str, Entry]) -> System:
    """A system that was trained: each query by a model that never saw it."""
    views = tuple(selected)
    pieces = [(member, view) for member in context.datasets for view in plan.scoring_views(member.name, views)]
    # The shipped model scores nothing where all datasets are cross-fitted, and is shipped all the same.
    encoders = {
        view: chosen_encoder(context, name, selected[view])
        for view in dict.fromkeys([*(view for _, view in pieces), SHIPPED])
    }

    def rank(piece: tuple[RunDataset, str]) -> Entry:
        member, view = piece
        rows = rows_of(plan.rows_to_rank(member.name, view, context.recipe.systems[name]))
        encoder, dataset = encoders[view], member.dataset
        label = f"{name} {member.name}" + ("" if view == SHIPPED else f" {view}")
        inputs = ScoreInputs(encoder.spec.identity, dataset.fingerprint, rows, context.recipe.depth)
        work = partial(encode_and_rank, encoder=encoder, dataset=dataset, console=context.console, label=label)
        return context.store.work(label, inputs, work)

    ranked = list(zip(pieces, context.workers.map(rank, pieces), strict=True))
    scored, mixed = [], []
    for member in context.datasets:
        parts = _parts(plan, member, {view: entry for (other, view), entry in ranked if other is member})
        out_of_fold = len(parts) > 1
        scored.append(_evaluated(context, plan, name, member, parts, out_of_fold=out_of_fold))
        if name == context.recipe.shipped:
            mixed += _mixed(context, plan, "hybrid", member, parts, baselines, out_of_fold)
    return System(name, encoders[SHIPPED], tuple(scored), tuple(mixed))


def _parts(plan: Plan, member: RunDataset, entries: Mapping[str, Entry]) -> list[Part]:
    views = tuple(entries)
    scoring = plan.scoring_views(member.name, views)
    return [Part(view, entries[view], plan.rows_scored_by(member.name, view, views)) for view in scoring]


def _evaluated(
    context: Context, plan: Plan, name: str, member: RunDataset, parts: Sequence[Part], *, out_of_fold: bool
) -> Scored:
    judgments = plan.scored(member.name)
    inputs = EvaluateInputs(member.dataset.fingerprint, hash_of(judgments), _identities(parts), cutoffs=metrics.CUTOFFS)
    work = partial(_evaluate, dataset=member.dataset, judgments=judgments, parts=parts)
    return Scored(name, member, context.store.work(f"{name} {member.name}: values", inputs, work), out_of_fold)


def _mixed(
    context: Context,
    plan: Plan,
    name: str,
    member: RunDataset,
    parts: Sequence[Part],
    baselines: Baselines,
    out_of_fold: bool,
) -> list[Scored]:
    """The system with BM25 mixed in, the blend chosen on each view's dev queries; none where there are none."""
    settings = context.recipe.shipped_training
    devs = [plan.dev(member.name, part.view, settings) for part in parts]
    known = [dev for dev in devs if dev is not None and len(dev)]
    if len(known) < len(devs):
        return []
    judgments, bm25 = plan.scored(member.name), baselines.bm25[member.name]
    inputs = BlendInputs(
        member.dataset.fingerprint,
        hash_of(judgments),
        _identities(parts),
        metrics.CUTOFFS,
        bm25.identity,
        tuple(hash_of(dev) for dev in known),
        _constants(),
    )
    work = partial(_blend, dataset=member.dataset, judgments=judgments, parts=parts, devs=known, bm25=bm25)
    return [Scored(name, member, context.store.work(f"{name} {member.name}: values", inputs, work), out_of_fold)]


def _identities(parts: Sequence[Part]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((part.entry.identity, rows_of(part.rows)) for part in parts)


def _constants() -> dict[str, Any]:
    return {
        "FEEDBACK_DOCUMENTS": blend.FEEDBACK_DOCUMENTS,
        "FEEDBACK_SHARPNESS": blend.FEEDBACK_SHARPNESS,
        "NEIGHBOURS": blend.NEIGHBOURS,
        "SAMPLE": blend.SAMPLE,
        "CORRECTIONS": blend.CORRECTIONS,
        "LEAST_GAIN": blend.LEAST_GAIN,
        "WEIGHTS": hybrid.WEIGHTS,
    }


def _evaluate(
    inputs: EvaluateInputs, folder: Path, *, dataset: Dataset, judgments: Qrels, parts: Sequence[Part]
) -> Summary:
    """Pool the rankings of the parts and evaluate them."""
    rankings = _joined([rankings_of(part.entry, part.rows) for part in parts])
    return _keep(folder, rankings, dataset, judgments)


def _blend(
    inputs: BlendInputs,
    folder: Path,
    *,
    dataset: Dataset,
    judgments: Qrels,
    parts: Sequence[Part],
    devs: Sequence[Qrels],
    bm25: Entry,
) -> Summary:
    """Choose each part's blend on its dev queries, mix, pool and evaluate."""
    pieces, blends = [], []
    hubs: dict[str, NDArray[np.float32]] = {}
    for part, dev in zip(parts, devs, strict=True):
        if part.entry.identity not in hubs:
            hubs[part.entry.identity] = hubness(vectors_of(part.entry).documents)
        side = partial(_dense_side, dataset, part.entry, hubs[part.entry.identity])
        asked = dev.query_rows
        chosen = choose_blend(side(asked), rankings_of(bm25, asked), partial(_dev_score, dataset, dev))
        pieces.append(side(part.rows).blend(rankings_of(bm25, part.rows), chosen))
        blends.append(chosen)
    write_json(folder / "blends.json", [asdict(one) for one in blends])
    return _keep(folder, _joined(pieces), dataset, judgments)


def _keep(folder: Path, rankings: Rankings, dataset: Dataset, judgments: Qrels) -> Summary:
    values = evaluate(rankings, dataset, "test", system="", qrels=judgments)
    write_rankings(folder / "rankings.npz", rankings)
    write_values(folder / "values.npz", values.values)
    return {"queries": len(values.query_ids)}


def _joined(pieces: Sequence[Rankings]) -> Rankings:
    """One ranking a query, in the order of the queries."""
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


def _dense_side(dataset: Dataset, entry: Entry, hubs: NDArray[np.float32], rows: NDArray[np.int32]) -> DenseSide:
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
