"""What can be refused before anything is trained is refused here, in one line."""

from __future__ import annotations

from collections.abc import Collection

from ranksaga.data.self_hits import count_self_hits, describe_self_hits
from ranksaga.data.words import tokens
from ranksaga.errors import DataError, StageError
from ranksaga.recipe import Training
from ranksaga.run.context import Context, Subject
from ranksaga.run.plan import SHIPPED, Plan
from ranksaga.run.workload import unaudited_plan

__all__ = ["check_audited", "check_data", "self_hits_note"]


def check_data(context: Context) -> None:
    """Refuse what the recipe and the splits show, before a model reads a text.

    Raises:
        DataError: a preset has nothing to train on, or nothing to choose by, or a dataset cannot be split.
    """
    plan = unaudited_plan(context)
    for preset in context.recipe.presets:
        settings = context.recipe.training[preset]
        if _missing(plan, settings) is not None:
            if settings.splits == "train" and not plan.with_train & set(context.recipe.datasets):
                names = ", ".join(context.recipe.datasets)
                raise DataError(
                    f"{preset}: trains on train splits only, and none of the datasets ({names}) has one; "
                    f"add qrels/train.tsv, or set training.{preset}.splits: all"
                )
            raise DataError(
                f"{preset}: no query is there to train on ({_missing(plan, settings)}); those that are judged in test "
                "only score, so add others to train or dev"
            )
        if settings.search and not _can_search(context, plan, settings):
            raise DataError(_nothing_to_search_by(preset, settings))
        if settings.distillation is not None:
            _check_words(context, preset, plan.training(plan.view(SHIPPED), settings))


def check_audited(context: Context, plan: Plan) -> None:
    """Refuse what is left of the splits after the leakage audit, for all presets before the first is trained.

    Raises:
        StageError: a preset has nothing to train on, or nothing to choose by.
        DataError: the positives of a dataset have no texts.
    """
    for preset in context.recipe.presets:
        settings = context.recipe.training[preset]
        if (missing := _missing(plan, settings)) is not None:
            raise StageError(
                f"{preset}: no query is left to train on ({missing}); "
                "add a train split, or see stages/pairs for what the leakage audit dropped"
            )
        if settings.search and not _can_search(context, plan, settings):
            raise StageError(_nothing_to_search_by(preset, settings))
        if settings.distillation is None:
            _check_pairs(context, plan, settings)


def self_hits_note(subject: Subject) -> str | None:
    """What is left out of a dataset's rankings, for the user; none where nothing is."""
    count = count_self_hits(subject.dataset)
    return f"{subject.name}: {describe_self_hits(count)}" if count else None


def _check_words(context: Context, preset: str, names: Collection[str]) -> None:
    for subject in context.subjects:
        if subject.name in names and not any(map(tokens, subject.dataset.corpus.documents)):
            raise DataError(
                f"{subject.name}: {preset} takes pseudo-queries from documents, and none of these has a word; "
                "give them texts, or make the dataset a guard"
            )


def _check_pairs(context: Context, plan: Plan, settings: Training) -> None:
    from ranksaga.train.pairs import labelled_pairs

    views = [view for view in plan.views if view.name == SHIPPED or settings.splits == "all"]
    for training in (plan.training(view, settings) for view in views):
        for subject in context.subjects:
            if subject.name in training:
                labelled_pairs(subject.dataset, training[subject.name], titles=settings.titles)


def _missing(plan: Plan, settings: Training) -> str | None:
    """The first of a preset's models that nothing would train."""
    folds = settings.splits == "all"
    views = [view for view in plan.views if view.name == SHIPPED or folds]
    return next((f"model {view.name}" for view in views if not plan.training(view, settings)), None)


def _can_search(context: Context, plan: Plan, settings: Training) -> bool:
    """Whether a trained dataset has dev queries that no fold scores."""
    devs = plan.selecting(plan.view(SHIPPED), settings)
    return any(len(devs.get(name, ())) and name not in plan.cross_fitted for name in context.recipe.datasets)


def _nothing_to_search_by(preset: str, settings: Training) -> str:
    return (
        f"{preset}: search: {settings.search} needs dev queries, and no dataset with train or dev has any; "
        f"add a dev split, or set training.{preset}.search: 0"
    )
