"""The plan: who trains, who selects and who is scored, after the leakage audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.compare.results import QueryGroup
from ranksaga.data.dataset import Qrels
from ranksaga.report.data import LeakageFinding
from ranksaga.run.context import Context
from ranksaga.run.store import Entry

__all__ = ["SHIPPED", "Plan", "View", "make_plan"]

SHIPPED = "shipped"


@dataclass(frozen=True)
class View:
    """One model's part of the judgments, by subject: what trains it, what selects, and what it alone may score."""

    name: str
    training: Mapping[str, Qrels]
    dev: Mapping[str, Qrels]
    scored: Mapping[str, Qrels]


@dataclass(frozen=True)
class Plan:
    """The views of a run: the shipped model's, and one a fold for datasets with a test split only.

    ``cross_fitted`` are those datasets, ``with_train`` the datasets that have a train split.
    """

    identity: str
    views: tuple[View, ...]
    scored_by_subject: Mapping[str, Qrels]
    cross_fitted: frozenset[str]
    with_train: frozenset[str]
    groups: tuple[QueryGroup, ...]
    findings: tuple[LeakageFinding, ...]
    notes: tuple[str, ...]

    def training(self, view: View, *, only_train_splits: bool) -> dict[str, Qrels]:
        """What trains a view's model; ``only_train_splits`` leaves out datasets that have none."""
        return {
            name: judged
            for name, judged in view.training.items()
            if len(judged.positives) and (name in self.with_train or not only_train_splits)
        }

    def scored(self, subject: str) -> Qrels:
        """Judgments that score a dataset, whichever model answers."""
        return self.scored_by_subject[subject]

    def is_out_of_fold(self, subject: str) -> bool:
        """Whether a dataset's queries are scored by several models, each of which did not see them."""
        return subject in self.cross_fitted

    def view(self, name: str) -> View:
        """The view of this name."""
        return next(view for view in self.views if view.name == name)

    def scoring_views(self, subject: str, available: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the views that score a dataset. Where a preset made no fold models, its one model
        has not trained on such a dataset and may score it."""
        folds = tuple(view.name for view in self.views if view.name != SHIPPED and view.name in available)
        return folds if subject in self.cross_fitted and folds else (SHIPPED,)

    def rows_scored_by(self, subject: str, view: str, available: tuple[str, ...]) -> NDArray[np.int32]:
        """Query rows of a dataset that a view scores."""
        if len(self.scoring_views(subject, available)) == 1:
            return self.scored(subject).query_rows
        return self.view(view).scored[subject].query_rows

    def rows_to_rank(self, subject: str, view: str) -> NDArray[np.int32]:
        """Query rows that a view's model ranks: what is scored, and the dev queries of its hybrid."""
        rows = [self.scored(subject).query_rows]
        dev = self.dev(subject, view)
        if dev is not None:
            rows.append(dev.query_rows)
        return np.unique(np.concatenate(rows)).astype(np.int32)

    def dev(self, subject: str, view: str) -> Qrels | None:
        """Dev judgments of a dataset in a view."""
        return self.view(view).dev.get(subject)

    def counts(self) -> dict[str, Any]:
        """Queries by view and subject, for the record."""
        return {
            view.name: {
                name: {
                    "train": len(view.training[name].query_rows) if name in view.training else 0,
                    "dev": len(view.dev[name].query_rows) if name in view.dev else 0,
                    "scored": len(view.scored[name].query_rows) if name in view.scored else 0,
                }
                for name in sorted({*view.training, *view.dev, *view.scored})
            }
            for view in self.views
        }


def make_plan(context: Context, bases: Mapping[str, Entry]) -> Plan:
    """interim"""
    import re, hashlib
    from ranksaga.run.measure import vectors_of

    training, dev, scored, wt, drops = {}, {}, {}, set(), {}
    tests = {}
    for s in context.subjects:
        q = s.dataset.qrels
        test = s.dataset.split("test")
        if s.role == "guard":
            rows = test.query_rows
            part = np.array(
                [
                    int(hashlib.sha256(s.dataset.queries.ids[r].encode()).hexdigest()[:8], 16) / 2**32 < 1 / 3
                    for r in rows
                ]
            )
            dev[s.name] = test.only_queries(rows[part])
            scored[s.name] = test.only_queries(rows[~part])
            continue
        scored[s.name] = test
        source = q.get("train") or q.get("dev")
        if source is None:
            continue
        if "train" in q:
            wt.add(s.name)
        rows = source.query_rows
        v = vectors_of(bases[s.name])
        close = (v.of_queries(rows) @ v.of_queries(test.query_rows).T).max(1) > 0.9
        rows = rows[~close]
        if "train" in q and "dev" in q:
            dev[s.name] = q["dev"]
            training[s.name] = source.only_queries(rows)
        else:
            part = np.array(
                [int(hashlib.sha256(s.dataset.queries.ids[r].encode()).hexdigest()[:8], 16) / 2**32 < 0.2 for r in rows]
            )
            dev[s.name] = source.only_queries(rows[part])
            training[s.name] = source.only_queries(rows[~part])
    view = View(SHIPPED, training, dev, scored)
    ident = hashlib.sha256(
        repr([(s.name, s.dataset.fingerprint, s.role) for s in context.subjects]).encode()
    ).hexdigest()[:16]
    return Plan(ident, (view,), scored, frozenset(), frozenset(wt), (), (), ())
