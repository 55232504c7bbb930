"""What can be refused before anything is trained is refused here, in one line."""

from __future__ import annotations

from collections.abc import Collection

from ranksaga.config.training import Labelled, Training
from ranksaga.data.self_hits import count_self_hits, describe_self_hits
from ranksaga.data.words import tokens
from ranksaga.errors import DataError
from ranksaga.run.context import Context, RunDataset
from ranksaga.run.leakage_audit import Audit
from ranksaga.run.plan import SHIPPED, Plan
from ranksaga.run.stages import SPLITS

__all__ = ["check_plan", "self_hits_note"]


def check_plan(context: Context, plan: Plan, audit: Audit) -> None:
    """Refuse what the recipe and the audited splits show, for all systems, before a model reads a text.

    Raises:
        DataError: a system has nothing to train on; or ``leakage: fail`` and something leaks.
    """
    if context.recipe.leakage == "fail" and audit.leaks:
        first = audit.leaks[0]
        raise DataError(
            f"{len(audit.leaks)} training queries nearly equal a scored one, such as {first.training_id} of "
            f"{first.training_name} and {first.scored_id} of {first.scored_name}; set leakage: drop, or remove them"
        )
    for system, settings in context.recipe.systems.items():
        if (missing := _missing(plan, settings)) is not None:
            raise DataError(_nothing_to_train_on(context, plan, audit, system, missing))
        if not isinstance(settings, Labelled):
            _check_words(context, system, plan.training(plan.view(SHIPPED), settings))
        else:
            _check_pairs(context, plan, settings)


def self_hits_note(member: RunDataset) -> str | None:
    """What is left out of a dataset's rankings, for the user; none where nothing is."""
    count = count_self_hits(member.dataset)
    return f"{member.name}: {describe_self_hits(count)}" if count else None


def _check_words(context: Context, system: str, names: Collection[str]) -> None:
    for member in context.datasets:
        if member.name in names and not any(map(tokens, member.dataset.corpus.documents)):
            raise DataError(
                f"{member.name}: {system} takes pseudo-queries from documents, and none of these has a word; "
                "give them texts, or make the dataset a guard"
            )


def _check_pairs(context: Context, plan: Plan, settings: Labelled) -> None:
    from ranksaga.train.pairs import labelled_pairs

    views = [view for view in plan.views if view.name == SHIPPED or not settings.train_splits_only]
    for training in (plan.training(view, settings) for view in views):
        for member in context.datasets:
            if member.name in training:
                labelled_pairs(member.dataset, training[member.name], titles=settings.titles)


def _missing(plan: Plan, settings: Training) -> str | None:
    """The first of a system's models that nothing would train."""
    views = [view for view in plan.views if view.name == SHIPPED or not settings.train_splits_only]
    return next((f"model {view.name}" for view in views if not plan.training(view, settings)), None)


def _nothing_to_train_on(context: Context, plan: Plan, audit: Audit, system: str, missing: str) -> str:
    if context.recipe.systems[system].train_splits_only and not plan.with_train & set(context.recipe.datasets):
        names = ", ".join(context.recipe.datasets)
        return (
            f"{system}: trains on train splits only, and none of the datasets ({names}) has one; "
            f"add qrels/train.tsv, or set systems.{system}.splits: all"
        )
    dropped = sum(map(len, audit.dropped.values()))
    why = (
        f"; the leakage audit dropped {dropped}, see stages/{SPLITS.name} of a run with leakage: report"
        if dropped
        else ""
    )
    return (
        f"{system}: no query is there to train on ({missing}){why}; those that are judged in test only score, so add "
        "others to train or dev"
    )
