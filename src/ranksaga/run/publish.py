"""The last stages: compare, and publish what a user reads: tables, charts, rankings, the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ranksaga.compare.comparison import compare
from ranksaga.compare.results import Comparison
from ranksaga.encode.encoder import Encoder
from ranksaga.encode.saving import save_model, tower_models
from ranksaga.encode.towers import has_two_towers
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.files import atomic_dir, file_name, remove, write_json
from ranksaga.recipe import dump_recipe
from ranksaga.report.data import FIRST_STUDY, CurvePoint, Facts, ReportData, Selection
from ranksaga.report.mteb import write_model_meta, write_task_result
from ranksaga.report.write import write_report
from ranksaga.retrieve.blend import Blend
from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.searcher import mean_blend, write_blends
from ranksaga.retrieve.trec import write_run
from ranksaga.run.choice import read_choice
from ranksaga.run.context import Context
from ranksaga.run.environment import describe_environment
from ranksaga.run.ledger import ledger_facts, ledger_json
from ranksaga.run.plan import Plan
from ranksaga.run.select import qualifies, relative
from ranksaga.run.single import PER_QUERY, evaluation_json
from ranksaga.run.store import Entry

__all__ = ["Measured", "Result", "System", "publish"]

# Folder of the shipped model; the towers of one that has two are beside it.
MODEL = "model"


@dataclass(frozen=True)
class System:
    """One system's measurements: by dataset its values and rankings; ``encoder`` is what a user would deploy.

    ``mixed`` are the values of the system mixed with BM25, ``blends`` how, by dataset and view.
    """

    name: str
    values: tuple[Evaluation, ...]
    rankings: Mapping[str, Rankings]
    encoder: Encoder | None
    mixed: tuple[Evaluation, ...]
    blends: Mapping[str, tuple[Blend, ...]]


@dataclass(frozen=True)
class Measured:
    """Everything that was measured. ``systems`` starts with the baseline; ``chosen`` selected the last preset's."""

    context: Context
    plan: Plan
    systems: tuple[System, ...]
    bm25: System
    shipped: Entry
    chosen: Mapping[str, Entry]


@dataclass(frozen=True)
class Result:
    """For the outcome of the run."""

    table: str
    summary: dict[str, Any]
    record: dict[str, Any]


def publish(
    measured: Measured, trained: Mapping[str, Mapping[str, Entry]], folder: Path, *, with_report: bool
) -> Result:
    """Compare all systems and write the run's files into its folder."""
    context = measured.context
    comparison = _compare(measured)
    result = Result(_table(comparison), _summary(comparison), _record(measured, trained))
    if with_report:
        _clear(folder)
        _write_results(measured, folder)
        _write_model(measured, folder)
        data = _report_data(measured, trained, comparison, result)
        context.voice.stage("report", "pages, tables, charts", False)
        write_report(data, folder)
    return result


def _compare(measured: Measured) -> Comparison:
    context = measured.context
    context.voice.stage("compare", "all systems against the baseline", False)
    baseline, *others = measured.systems
    candidates = [*measured.bm25.values, *baseline.mixed]
    for system in others:
        candidates += [*system.values, *system.mixed]
    guards = [subject.dataset.name for subject in context.subjects if subject.role == "guard"]
    return compare(baseline.values, candidates, guards=guards, groups=measured.plan.groups, seed=context.recipe.seed)


def _table(comparison: Comparison) -> str:
    """nDCG@10 by dataset and system, for the terminal."""
    systems = comparison.systems
    guards = {name for name in comparison.datasets if _is_guard(comparison, name)}
    wide = 2 + max(len(name) + len(" (guard)") * (name in guards) for name in comparison.datasets)
    lines = [f"{'nDCG@10':{wide}s}{'baseline':>10s}" + "".join(f"{system:>24s}" for system in systems)]
    for dataset in comparison.datasets:
        base = comparison.row(dataset, "baseline")
        cells = []
        for system in systems:
            row = comparison.row(dataset, system)
            if row is None or row.change_pct is None:
                cells.append(f"{'-':>24s}")
                continue
            mark = {"improved": "+", "regressed": "!"}.get(row.verdict or "", " ")
            cells.append(f"{row.value:>13.4f} {row.change_pct:>+8.1f}% {mark}")
        role = " (guard)" if dataset in guards else ""
        lines.append(f"{dataset + role:{wide}s}{base.value if base else 0:>10.4f}" + "".join(cells))
    for system in systems:
        one = comparison.summary(system)
        mean = f"{one.mean_change_pct:+.1f}%" if one.mean_change_pct is not None else "-"
        best = f"{one.best.change_pct:+.1f}%" if one.best is not None and one.best.change_pct is not None else "-"
        worst = f"{one.worst.change_pct:+.1f}%" if one.worst is not None and one.worst.change_pct is not None else "-"
        sure = f"{one.improved} of {one.datasets} improved ({one.confirmed} significantly)"
        lines.append(f"{system}: {sure}, mean {mean}, best {best}, worst {worst}")
    lines.append("+ improved, ! regressed (paired randomization test, Holm over datasets, p < 0.05)")
    return "\n".join(lines)


def _is_guard(comparison: Comparison, dataset: str) -> bool:
    row = comparison.row(dataset, "baseline")
    return row is not None and row.role == "guard"


def _summary(comparison: Comparison) -> dict[str, Any]:
    def one(system: str) -> dict[str, Any]:
        summary = comparison.summary(system)
        return {
            "datasets": summary.datasets,
            "improved": summary.improved,
            "confirmed": summary.confirmed,
            "regressed": summary.regressed,
            "mean_change_pct": summary.mean_change_pct,
            "best_change_pct": summary.best.change_pct if summary.best else None,
            "worst_change_pct": summary.worst.change_pct if summary.worst else None,
            "guards_mean_change_pct": summary.guards_mean_change_pct,
        }

    return {"metric": comparison.primary, "systems": {system: one(system) for system in comparison.systems}}


def _record(measured: Measured, trained: Mapping[str, Mapping[str, Entry]]) -> dict[str, Any]:
    """run.json: all that is needed to know what was done, and no text of a dataset."""
    context = measured.context
    spec = context.encoder.spec
    return {
        "recipe": context.recipe.model_dump(mode="json"),
        "environment": describe_environment(),
        "encoder": spec.facts,
        "datasets": {subject.name: subject.dataset.fingerprint for subject in context.subjects},
        "plan": measured.plan.counts(context.recipe.training[context.recipe.presets[-1]]),
        "training": {
            preset: {view: entry.summary for view, entry in entries.items()} for preset, entries in trained.items()
        },
        "selection": {view: entry.summary for view, entry in measured.chosen.items()},
        "hybrid": {
            system.name: {name: [asdict(blend) for blend in blends] for name, blends in system.blends.items()}
            for system in measured.systems
            if system.blends
        },
        "timings": [asdict(timing) for timing in context.store.timings],
        "spent": ledger_json(context.store),
    }


def _clear(folder: Path) -> None:
    """Remove what another recipe may have left: nobody could tell its files from those that are written now."""
    for name in (PER_QUERY, "rankings", "results"):
        remove(folder / name)
    for name in (f"{MODEL}_query", f"{MODEL}_document"):
        remove(folder / name)
    for chart in folder.glob("selection_*.png"):
        chart.unlink()


def _write_results(measured: Measured, folder: Path) -> None:
    context = measured.context
    datasets = {subject.dataset.name: subject for subject in context.subjects}
    for system in (*measured.systems, measured.bm25):
        spec = system.encoder.spec if system.encoder is not None else None
        model = {"baseline": context.encoder.spec.model}.get(system.name, f"ranksaga/{system.name}")
        revision = spec.revision if spec is not None else "1"
        for values in system.values:
            subject = datasets[values.dataset]
            name = file_name(values.dataset)
            origin = Origin(subject.dataset.fingerprint, spec.facts if spec is not None else None)
            stored = evaluation_json(replace(values, origin=origin))
            write_json(folder / PER_QUERY / system.name / f"{name}.json", stored)
            write_task_result(
                values,
                folder,
                model=model,
                revision=revision,
                dataset_revision=subject.dataset.fingerprint,
                seconds=None,
                stem=name,
            )
            write_run(
                folder / "rankings" / f"{system.name}.{name}.trec",
                system.rankings[subject.name],
                subject.dataset.queries.ids,
                subject.dataset.corpus.ids,
                tag=system.name,
            )
        write_model_meta(
            folder,
            model=model,
            revision=revision,
            max_tokens=spec.max_length if spec is not None else None,
            similarity=spec.similarity if spec is not None else "cosine",
            adapted_from=context.encoder.spec.model if system.name != "baseline" and spec is not None else None,
        )


def _write_model(measured: Measured, folder: Path) -> None:
    """The shipped model: weights, prompts in its config, a card with what was measured."""
    encoder = measured.systems[-1].encoder
    if encoder is None:
        return
    spec, model = encoder.spec, encoder.model
    prompts = {"query": spec.prompts.query, "document": spec.prompts.document}
    card = _card(measured)
    with atomic_dir(folder / MODEL) as target:
        save_model(model, target, prompts, spec.max_length)
        (target / "README.md").write_text(card, encoding="utf-8")
        # Of a cross-fitted dataset each fold chose a blend; a new query is best served by their mean.
        blends = {name: mean_blend(found) for name, found in measured.systems[-1].blends.items()}
        if blends:
            write_blends(target, blends)
    for task, tower in tower_models(model).items():
        with atomic_dir(folder / f"{MODEL}_{task}") as target:
            save_model(tower, target, prompts, spec.max_length)
            (target / "README.md").write_text(card, encoding="utf-8")


def _card(measured: Measured) -> str:
    """A model card. Where the base model was kept it has that model's figures: a fold may have chosen otherwise."""
    name = measured.context.encoder.spec.model
    first, last = measured.systems[0], measured.systems[-1]
    base = {values.dataset: values.mean("ndcg_at_10") for values in first.values}
    if last.encoder is measured.context.encoder:
        said = f"This is {name}, unchanged: RankSaga fine-tuned it, and no candidate qualified (the report says why)."
        asked, head = "test queries", "| dataset | this model |\n|---|---|\n"
        rows = "\n".join(f"| {dataset} | {value:.4f} |" for dataset, value in base.items())
    else:
        said, asked = f"Fine-tuned with RankSaga from {name}.", "test queries that the scored model has not seen"
        head = "| dataset | base | this model |\n|---|---|---|\n"
        rows = "\n".join(
            f"| {values.dataset} | {base[values.dataset]:.4f} | {values.mean('ndcg_at_10'):.4f} |"
            for values in last.values
        )
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        f"base_model: {name}\ntags: [sentence-transformers, ranksaga, retrieval]\n---\n"
        f"# {measured.context.recipe.name}\n\n{said}\n\nnDCG@10 on {asked}:\n\n{head}{rows}\n{_usage(last.encoder)}"
    )


def _usage(encoder: Encoder | None) -> str:
    """How the model is to be called, where there is a wrong way."""
    if encoder is None or not has_two_towers(encoder.model):
        return ""
    return (
        "\nThis model has weights of their own for queries and for documents (a `Router`). Call `encode_query(texts)` "
        'and `encode_document(texts)`. `encode(texts, prompt_name="query")` puts the prompt and nothing else: without '
        '`task="query"` the texts go to the default route, as a rule that of documents.\n\n'
        f"For tools that know `encode` alone, each tower is also a plain model beside this folder: `{MODEL}_query` and "
        f"`{MODEL}_document`.\n"
    )


def _report_data(
    measured: Measured, trained: Mapping[str, Mapping[str, Entry]], comparison: Comparison, result: Result
) -> ReportData:
    context = measured.context
    last = measured.systems[-1].name
    choice = read_choice(measured.shipped)
    spec = context.encoder.spec
    texts = {
        (subject.dataset.name, subject.dataset.queries.ids[row]): subject.dataset.queries.texts[row]
        for subject in context.subjects
        for row in measured.plan.scored(subject.name).query_rows
    }
    return ReportData(
        title=context.recipe.name,
        comparison=comparison,
        headline=last,
        shipped=last if choice.weight > 0 else "baseline",
        shipped_reason=choice.reason,
        references=("bm25", "baseline_hybrid"),
        promise=FIRST_STUDY if {"v1", "v2"} & set(context.recipe.presets) else None,
        selections=_selections(measured),
        leakage=measured.plan.findings,
        notes=_notes(measured, trained),
        recipe=dump_recipe(context.recipe),
        facts=(
            Facts(
                "Model",
                (
                    ("name", spec.model),
                    ("revision", spec.revision),
                    ("prompts", f"{spec.prompts}"),
                    ("tokens", str(spec.max_length)),
                    ("precision", spec.precision),
                ),
            ),
            Facts("Environment", tuple(describe_environment().items())),
            *ledger_facts(context.store),
        ),
        query_texts=texts,
    )


def _selections(measured: Measured) -> tuple[Selection, ...]:
    found = []
    roles = {subject.name: subject.role for subject in measured.context.subjects}
    preset = measured.context.recipe.presets[-1]
    settings = measured.context.recipe.training[preset]
    for view, entry in measured.chosen.items():
        choice = read_choice(entry)
        points = []
        for candidate in choice.candidates:
            changes = {name: 100 * relative(choice.base[name], score) for name, score in candidate.scores.items()}
            gains = {name: change for name, change in changes.items() if roles[name] == "trained"}
            kept = {name: change for name, change in changes.items() if roles[name] == "guard"}
            points.append(
                CurvePoint(
                    candidate.epoch,
                    candidate.weight,
                    candidate.document_weight,
                    sum(gains.values()) / max(1, len(gains)),
                    sum(kept.values()) / len(kept) if kept else None,
                    gains,
                    kept,
                    qualifies=qualifies(choice.base, candidate, settings.tolerance, settings.standard_errors),
                    chosen=(candidate.epoch, candidate.weight, candidate.document_weight)
                    == (choice.epoch, choice.weight, choice.document_weight),
                )
            )
        if points:
            name = preset if view == "shipped" else f"{preset} {view}"
            found.append(Selection(name, tuple(points), choice.reason))
    return tuple(found)


def _notes(measured: Measured, trained: Mapping[str, Mapping[str, Entry]]) -> tuple[str, ...]:
    notes = list(measured.plan.notes)
    for preset, entries in trained.items():
        for view, entry in entries.items():
            if entry.summary["capped"]:
                steps = entry.summary["steps"]
                notes.append(f"{preset} ({view}): capped at {steps} steps, fewer than its epochs ask for.")
    for system in measured.systems:
        if system.blends:
            shown = "; ".join(
                f"{name} {' / '.join(f'{b.share:.1f}, {b.feedback:g}, {b.hubness:g}' for b in dict.fromkeys(found))}"
                for name, found in system.blends.items()
            )
            notes.append(f"Beside {system.name}, BM25's share, feedback and hubness, chosen on dev: {shown}.")
    return tuple(notes)
