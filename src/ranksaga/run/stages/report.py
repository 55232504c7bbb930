"""The stage ``report``: what a user reads, made from what is measured: tables, charts, rankings, the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ranksaga.config.recipe import Recipe, dump_recipe
from ranksaga.encode.encoder import Encoder, EncoderSpec
from ranksaga.evaluate.evaluation import Origin
from ranksaga.evaluate.per_query import PER_QUERY, write_evaluation
from ranksaga.files import file_name, write_json
from ranksaga.report.data import CurvePoint, Facts, ReportData, Selection
from ranksaga.report.mteb import write_model_meta, write_task_result
from ranksaga.report.write import write_report
from ranksaga.retrieve.trec import write_run
from ranksaga.run.arrays import read_rankings
from ranksaga.run.context import RunDataset
from ranksaga.run.costs import cost_facts
from ranksaga.run.environment import describe_environment
from ranksaga.run.plan import SHIPPED, Plan
from ranksaga.run.query_details import query_details
from ranksaga.run.selection import qualifies, relative
from ranksaga.run.shipped_model import write_shipped_model
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import REPORT
from ranksaga.run.stages.compare import read_answer, read_comparison
from ranksaga.run.stages.score import Scored, System, read_blends, read_evaluation
from ranksaga.run.stages.select import read_choice
from ranksaga.run.stages.train import TrainingSummary
from ranksaga.run.store import Entry, Store

__all__ = ["RECORD", "Results", "write_results"]

RECORD = "record.json"


@dataclass(frozen=True)
class ReportInputs(Inputs):
    """Everything that is shown: the whole recipe, and all that was measured, by identity.

    Environment, times and costs are shown as they were when the report was written: they change none of its figures.
    """

    STAGE = REPORT
    VERSION = 3

    recipe: Mapping[str, Any]
    encoder: Mapping[str, Any]
    datasets: tuple[str, ...]
    splits: str
    trained: tuple[tuple[str, str, str], ...]
    selected: tuple[tuple[str, str, str], ...]
    scored: tuple[tuple[str, str, str], ...]
    comparison: str


@dataclass(frozen=True)
class Results:
    """What was run, and all that the stages before left. ``trained`` and ``selected`` are by system, then by view."""

    recipe: Recipe
    datasets: tuple[RunDataset, ...]
    plan: Plan
    splits: Entry
    trained: Mapping[str, Mapping[str, Entry]]
    selected: Mapping[str, Mapping[str, Entry]]
    systems: tuple[System, ...]
    comparison: Entry

    @property
    def base(self) -> Encoder:
        """The base model."""
        assert self.baseline.encoder is not None
        return self.baseline.encoder

    @property
    def baseline(self) -> System:
        """The base model's measurements."""
        return self.systems[1]

    @property
    def shipped(self) -> System:
        """Those of the system that ships."""
        return next(system for system in self.systems if system.name == self.recipe.shipped)


def write_results(store: Store, results: Results) -> Entry:
    """Write the files of the run into the folder of this stage."""
    inputs = ReportInputs(
        recipe=results.recipe.model_dump(mode="json"),
        encoder=results.base.spec.facts,
        datasets=tuple(member.dataset.fingerprint for member in results.datasets),
        splits=results.splits.identity,
        trained=_identities(results.trained),
        selected=_identities(results.selected),
        scored=tuple(
            (scored.name, scored.member.name, scored.entry.identity)
            for system in results.systems
            for scored in (*system.scored, *system.mixed)
        ),
        comparison=results.comparison.identity,
    )
    work = partial(_write, results=results, costs=cost_facts(store))
    return store.work("pages, tables, charts, model", inputs, work)


def _identities(entries: Mapping[str, Mapping[str, Entry]]) -> tuple[tuple[str, str, str], ...]:
    return tuple((system, view, entry.identity) for system, views in entries.items() for view, entry in views.items())


def _write(inputs: ReportInputs, folder: Path, *, results: Results, costs: tuple[Facts, ...]) -> Summary:
    for system in results.systems:
        _write_system(results, system, folder)
    write_shipped_model(results.shipped, results.baseline, results.plan, results.recipe.name, folder)
    write_json(folder / RECORD, _record(results))
    details, documents = query_details(results.systems, results.plan)
    write_report(replace(_report_data(results, costs), details=details, documents=documents), folder)
    return {}


def _record(results: Results) -> dict[str, Any]:
    """For run.json: all that is needed to know what was done, and no text of a dataset."""
    shipped = results.recipe.shipped
    return {
        "recipe": results.recipe.model_dump(mode="json"),
        "environment": describe_environment(),
        "encoder": results.base.spec.facts,
        "datasets": {member.name: member.dataset.fingerprint for member in results.datasets},
        "plan": results.plan.counts(results.recipe.shipped_training),
        "training": {
            system: {view: entry.summary for view, entry in entries.items()}
            for system, entries in results.trained.items()
        },
        "selection": {view: read_choice(entry).summary for view, entry in results.selected[shipped].items()},
        "hybrid": {
            system.name: {
                scored.member.name: [asdict(blend) for blend in read_blends(scored)] for scored in system.mixed
            }
            for system in results.systems
            if system.mixed
        },
    }


def _write_system(results: Results, system: System, folder: Path) -> None:
    """Values by query, MTEB's files and TREC runs of one system, alone and mixed with BM25."""
    spec = system.encoder.spec if system.encoder is not None else None
    for scored in (system.scored, system.mixed):
        if scored:
            _write_scored(results, scored, spec, folder)


def _write_scored(results: Results, measured: Sequence[Scored], spec: EncoderSpec | None, folder: Path) -> None:
    """What one system, dense, BM25 or mixed, measured on all its datasets; ``spec`` is of the encoder at work in it."""
    base, system = results.base.spec.model, measured[0].name
    model = base if system == "baseline" else f"ranksaga/{system}"
    revision = spec.revision if spec is not None else "1"
    for scored in measured:
        dataset = scored.member.dataset
        values = read_evaluation(scored, results.plan)
        name = file_name(dataset.name)
        origin = Origin(dataset.fingerprint, spec.facts if spec is not None else None)
        write_evaluation(folder / PER_QUERY / system, replace(values, origin=origin))
        write_task_result(
            values,
            folder,
            model=model,
            revision=revision,
            dataset_revision=dataset.fingerprint,
        )
        write_run(
            folder / "rankings" / f"{system}.{name}.trec",
            read_rankings(scored.entry.folder / "rankings.npz"),
            dataset.queries.ids,
            dataset.corpus.ids,
            tag=system,
        )
    write_model_meta(
        folder,
        model=model,
        revision=revision,
        max_tokens=spec.max_length if spec is not None else None,
        similarity=spec.similarity if spec is not None else "cosine",
        adapted_from=base if system != "baseline" and spec is not None else None,
    )


def _report_data(results: Results, costs: tuple[Facts, ...]) -> ReportData:
    recipe, spec, shipped = results.recipe, results.base.spec, results.shipped.name
    choice = read_choice(results.selected[shipped][SHIPPED])
    texts = {
        (member.dataset.name, member.dataset.queries.ids[row]): member.dataset.queries.texts[row]
        for member in results.datasets
        for row in results.plan.scored(member.name).query_rows
    }
    model = (
        ("name", spec.model),
        ("revision", spec.revision),
        ("prompts", f"{spec.prompts}"),
        ("tokens", str(spec.max_length)),
        ("precision", spec.precision),
    )
    comparison = read_comparison(results.comparison)
    return ReportData(
        title=recipe.name,
        comparison=comparison,
        headline=shipped,
        shipped=shipped if choice.weight > 0 else "baseline",
        shipped_reason=choice.reason,
        answer=read_answer(results.comparison),
        selections=_selections(results),
        leakage=results.plan.findings,
        notes=_notes(results),
        recipe=dump_recipe(recipe),
        facts=(
            Facts("Datasets", tuple((member.dataset.name, _size(member)) for member in results.datasets)),
            Facts("Model", model),
            Facts("Environment", tuple(describe_environment().items())),
            *costs,
        ),
        query_texts=texts,
    )


def _size(member: RunDataset) -> str:
    """Documents, and judged queries of each split."""
    dataset = member.dataset
    queries = ", ".join(f"{len(judged.query_rows):,} {split}" for split, judged in dataset.qrels.items())
    return f"{len(dataset.corpus):,} documents; queries: {queries}" + (" (guard)" if member.role == "guard" else "")


def _selections(results: Results) -> tuple[Selection, ...]:
    selections = []
    roles = {member.name: member.role for member in results.datasets}
    names = {member.name: member.dataset.name for member in results.datasets}
    shipped, settings = results.recipe.shipped, results.recipe.shipped_training
    for view, entry in results.selected[shipped].items():
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
                    {names[name]: change for name, change in gains.items()},
                    {names[name]: change for name, change in kept.items()},
                    qualifies=qualifies(choice.base, candidate, settings.tolerance, settings.standard_errors),
                    chosen=choice.is_of(candidate),
                )
            )
        if points:
            name = shipped if view == SHIPPED else f"{shipped} {view}"
            selections.append(Selection(name, tuple(points), choice.reason))
    return tuple(selections)


def _notes(results: Results) -> tuple[str, ...]:
    notes = list(results.plan.notes)
    for name, entries in results.trained.items():
        for view, entry in entries.items():
            summary = TrainingSummary.of(entry)
            if summary.capped:
                notes.append(f"{name} ({view}): capped at {summary.steps} steps, fewer than its epochs ask for.")
    for system in results.systems:
        if system.mixed:
            shown = "; ".join(
                f"{scored.member.dataset.name} "
                + " / ".join(
                    f"{b.share:.1f}, {b.feedback:g}, {b.hubness:g}" for b in dict.fromkeys(read_blends(scored))
                )
                for scored in system.mixed
            )
            notes.append(f"Beside {system.name}, BM25's share, feedback and hubness, chosen on dev: {shown}.")
    return tuple(notes)
