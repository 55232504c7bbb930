"""The plan: who trains, who selects and who is scored, after the leakage audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.compare.results import QueryGroup
from ranksaga.config.training import Distilled, Training
from ranksaga.data.dataset import Qrels
from ranksaga.data.leakage import LeakageFinding
from ranksaga.data.splits import Split, find_near_copies, split_guard, split_trained, union
from ranksaga.run.context import Context, RunDataset
from ranksaga.run.leakage_audit import Audit
from ranksaga.run.measure import judged_rows

__all__ = ["SHIPPED", "Plan", "View", "draw_plan"]

SHIPPED = "shipped"


@dataclass(frozen=True)
class View:
    """One model's part of the judgments, by dataset: what trains it, what selects, and what it alone may score."""

    name: str
    training: Mapping[str, Qrels]
    dev: Mapping[str, Qrels]
    scored: Mapping[str, Qrels]


@dataclass(frozen=True)
class Plan:
    """The views of a run: the shipped model's, and one a fold for datasets with a test split only.

    ``cross_fitted`` are those datasets, ``with_train`` the datasets that have a train split.
    """

    views: tuple[View, ...]
    scored_by_dataset: Mapping[str, Qrels]
    cross_fitted: frozenset[str]
    with_train: frozenset[str]
    groups: tuple[QueryGroup, ...]
    findings: tuple[LeakageFinding, ...]
    notes: tuple[str, ...]

    def training(self, view: View, settings: Training) -> dict[str, Qrels]:
        """What trains a view's model; without judgments, a dataset that lends its documents only."""
        found = {}
        for name, judged in view.training.items():
            if self._lends_corpus(name, settings):
                found[name] = Qrels.of([])
            elif len(judged.positives) and (name in self.with_train or not settings.train_splits_only):
                found[name] = judged
        return found

    def selecting(self, view: View, settings: Training) -> dict[str, Qrels]:
        """What selects in a view. Judgments that could train, and train nothing, select too."""
        found = {name: view.dev[name] for name in view.dev if not self._lends_corpus(name, settings)}
        for name in self.cross_fitted:
            if self._lends_corpus(name, settings):
                parts = [part[name] for part in (view.training, view.dev) if name in part]
                if any(map(len, parts)):
                    found[name] = union(parts)
        return found

    def _lends_corpus(self, name: str, settings: Training) -> bool:
        return isinstance(settings, Distilled) and settings.cross_fitted == "corpus" and name in self.cross_fitted

    def scored(self, dataset: str) -> Qrels:
        """Judgments that score a dataset, whichever model answers."""
        return self.scored_by_dataset[dataset]

    def is_out_of_fold(self, dataset: str) -> bool:
        """Whether a dataset's queries are scored by several models, each of which did not see them."""
        return dataset in self.cross_fitted

    def view(self, name: str) -> View:
        """The view of this name."""
        return next(view for view in self.views if view.name == name)

    def scoring_views(self, dataset: str, available: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the views that score a dataset. Where a system has no fold models, its one model
        has not trained on such a dataset and may score it."""
        folds = tuple(view.name for view in self.views if view.name != SHIPPED and view.name in available)
        return folds if dataset in self.cross_fitted and folds else (SHIPPED,)

    def rows_scored_by(self, dataset: str, view: str, available: tuple[str, ...]) -> NDArray[np.int32]:
        """Query rows of a dataset that a view scores."""
        if self.scoring_views(dataset, available) == (SHIPPED,):
            return self.scored(dataset).query_rows
        return self.view(view).scored[dataset].query_rows

    def rows_to_rank(self, dataset: str, view: str, settings: Training) -> NDArray[np.int32]:
        """Query rows that a view's model ranks: what is scored, and the dev queries of its hybrid."""
        rows = [self.scored(dataset).query_rows]
        dev = self.dev(dataset, view, settings)
        if dev is not None:
            rows.append(dev.query_rows)
        return np.unique(np.concatenate(rows)).astype(np.int32)

    def dev(self, dataset: str, view: str, settings: Training) -> Qrels | None:
        """Dev judgments of a dataset in a view."""
        return self.selecting(self.view(view), settings).get(dataset)

    def counts(self, settings: Training) -> dict[str, Any]:
        """Queries by view and dataset as these settings use them, for the record."""
        found = {}
        for view in self.views:
            parts = {
                "train": self.training(view, settings),
                "dev": self.selecting(view, settings),
                "scored": view.scored,
            }
            found[view.name] = {
                name: {part: len(judged[name].query_rows) if name in judged else 0 for part, judged in parts.items()}
                for name in sorted(set().union(*parts.values()))
            }
        return found


def draw_plan(context: Context) -> tuple[Plan, Audit]:
    """Split every dataset and audit the splits for leakage.

    All of it depends on the datasets alone, so any base model is trained and scored on the same queries.

    Raises:
        DataError: a dataset cannot be split.
    """
    splits = {member.name: _split(context, member) for member in context.datasets}
    crossed = frozenset(name for name, split in splits.items() if split.folds)
    names = (SHIPPED, *(f"fold-{index + 1}" for index in range(context.recipe.folds if crossed else 0)))
    audit = Audit(context.datasets, splits, context.recipe.leakage)
    plan = Plan(
        tuple(_view(name, index - 1, splits, audit) for index, name in enumerate(names)),
        {name: split.scored for name, split in splits.items()},
        crossed,
        frozenset(member.name for member in context.datasets if "train" in member.dataset.qrels),
        audit.groups(),
        audit.findings(),
        _notes(context, splits),
    )
    return plan, audit


def _split(context: Context, member: RunDataset) -> Split:
    dataset, recipe = member.dataset, context.recipe
    copies = find_near_copies(dataset, judged_rows(dataset), folds=recipe.folds)
    if member.role == "guard":
        return split_guard(dataset, copies, seed=recipe.seed)
    return split_trained(dataset, copies, folds=recipe.folds, seed=recipe.seed)


def _view(name: str, fold: int, splits: Mapping[str, Split], audit: Audit) -> View:
    """One view over all datasets; what leaks into what this view scores neither trains nor selects."""
    parts = {key: split.folds[fold] if fold >= 0 and split.folds else split.shipped for key, split in splits.items()}
    return View(
        name,
        {key: audit.without_leaks(key, part.train) for key, part in parts.items() if len(part.train)},
        {key: audit.without_leaks(key, part.dev) for key, part in parts.items() if len(part.dev)},
        {key: part.scored for key, part in parts.items() if len(part.scored)},
    )


def _notes(context: Context, splits: Mapping[str, Split]) -> tuple[str, ...]:
    notes = []
    for name, split in splits.items():
        if split.folds:
            sizes = ", ".join(str(len(fold.scored.query_rows)) for fold in split.folds)
            notes.append(
                f"{name}: only a test split, so figures are out-of-fold: {len(split.folds)} models, each scored on "
                f"queries that it did not see ({sizes}); for the shipped model, all of them train or select."
            )
    guards = [member.name for member in context.datasets if member.role == "guard"]
    if guards:
        notes.append(f"{', '.join(guards)}: guards, never trained on; a third of their queries watched the selection.")
    return tuple(notes)
