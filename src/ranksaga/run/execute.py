"""The stages in order, each given what the earlier ones left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from ranksaga.run.context import Context
from ranksaga.run.leakage_audit import Audit
from ranksaga.run.plan import SHIPPED, Plan, View, draw_plan
from ranksaga.run.preflight import check_plan, self_hits_note
from ranksaga.run.stage import Stage
from ranksaga.run.stages import BASELINE, COMPARE, DATA, REPORT, SCORE, SELECT, SPLITS, TRAIN
from ranksaga.run.stages.baseline import Baselines, measure_baselines
from ranksaga.run.stages.compare import compare_systems
from ranksaga.run.stages.data import describe_datasets
from ranksaga.run.stages.report import Results, write_results
from ranksaga.run.stages.score import score
from ranksaga.run.stages.select import dev_sets, select
from ranksaga.run.stages.splits import keep_audit
from ranksaga.run.stages.train import Trained, TrainingJob, train
from ranksaga.run.store import Entry

__all__ = ["execute"]

Job = tuple[TrainingJob, View]


def execute(context: Context) -> Iterator[tuple[Stage, Entry | None]]:
    """Do one stage after the other; each is yielded when it is done, the last two with their one piece of work.

    Raises:
        RankSagaError: what a stage raises, and before the first what the recipe and the audited splits cannot do.
    """
    plan, audit = draw_plan(context)
    check_plan(context, plan, audit)
    describe_datasets(context)
    for member in context.datasets:
        if note := self_hits_note(member):
            context.console.say(f"  {note}")
    yield DATA, None
    context.console.say(str(context.encoder.spec))
    baselines = measure_baselines(context)
    yield BASELINE, None
    yield from _after_baseline(context, plan, audit, baselines)


def _after_baseline(
    context: Context, plan: Plan, audit: Audit, baselines: Baselines
) -> Iterator[tuple[Stage, Entry | None]]:
    splits = keep_audit(context, audit)
    yield SPLITS, splits
    jobs = _jobs(context, plan, baselines)
    trained = context.workers.map(lambda job: train(context, job[0]), jobs)
    yield TRAIN, None
    selected = _by_system(jobs, _selected(context, plan, baselines, jobs, trained))
    yield SELECT, None
    systems = score(context, plan, baselines, selected)
    yield SCORE, None
    comparison = compare_systems(context, plan, systems)
    yield COMPARE, comparison
    trainings: dict[str, dict[str, Entry]] = {system: {} for system in context.recipe.systems}
    for (job, _), one in zip(jobs, trained, strict=True):
        trainings[job.system] |= one.entries(job.view)
    results = Results(context.recipe, context.datasets, plan, splits, trainings, selected, systems, comparison)
    yield REPORT, write_results(context.store, results)


def _jobs(context: Context, plan: Plan, baselines: Baselines) -> list[Job]:
    """Every system in every view it needs."""
    jobs = []
    for (system, settings), view in product(context.recipe.systems.items(), plan.views):
        if view.name == SHIPPED or not settings.train_splits_only:
            training = plan.training(view, settings)
            jobs.append((TrainingJob(system, settings, view.name, training, baselines.dense), view))
    return jobs


def _selected(
    context: Context, plan: Plan, baselines: Baselines, jobs: Sequence[Job], trained: Sequence[Trained]
) -> list[Entry]:
    def choose(piece: tuple[Job, Trained]) -> Entry:
        (job, view), one = piece
        sets = dev_sets(context, job.settings, plan.selecting(view, job.settings), baselines)
        return select(context, job, one, sets)

    return context.workers.map(choose, zip(jobs, trained, strict=True))


def _by_system(jobs: Sequence[Job], entries: Sequence[Entry]) -> Mapping[str, Mapping[str, Entry]]:
    found: dict[str, dict[str, Entry]] = {}
    for (job, _), entry in zip(jobs, entries, strict=True):
        found.setdefault(job.system, {})[job.view] = entry
    return found
