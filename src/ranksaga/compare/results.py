"""What a comparison is: rows, per-query pairs, groups and summaries, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ranksaga.compare.statistics import FEWEST_QUERIES

__all__ = [
    "BASELINE",
    "BASELINE_HYBRID",
    "HYBRID",
    "PRIMARY",
    "RESOLUTION_PCT",
    "Comparison",
    "ComparisonRow",
    "GroupRow",
    "Paired",
    "QueryChange",
    "QueryGroup",
    "Role",
    "Summary",
    "Verdict",
]

Verdict = Literal["improved", "regressed", "no evidence"]
Role = Literal["trained", "guard"]

BASELINE = "baseline"
BASELINE_HYBRID = "baseline_hybrid"  # BM25 and the untrained base model
HYBRID = "hybrid"  # BM25 and the trained model
PRIMARY = "ndcg_at_10"
RESOLUTION_PCT = 5.0  # a dataset that cannot show a change of this size cannot be said to be safe
# A mean of differences that cancel is seldom exactly 0.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ComparisonRow:
    """One figure: a metric of one system on one dataset.

    ``ci_low`` and ``ci_high`` bound, at 95% over queries, ``change`` in a candidate's row and ``value`` in the
    baseline's row. ``change_pct`` is in percent of the baseline's mean, None where that mean is 0. The baseline has no
    change, p or verdict; a metric outside the tested ones has no interval, p or verdict. ``detectable`` is the smallest
    difference that this many queries can show.
    """

    dataset: str
    role: Role
    system: str
    metric: str
    n_queries: int
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    change: float | None = None
    change_pct: float | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: Verdict | None = None
    out_of_fold: bool = False
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    effect_size: float | None = None
    detectable: float | None = None

    @property
    def interval_pct(self) -> tuple[float, float] | None:
        """The interval of ``change`` in percent of the baseline's mean, which is taken as fixed."""
        if self.change is None or self.change_pct is None or self.ci_low is None or self.ci_high is None:
            return None
        baseline = self.value - self.change
        return 100 * self.ci_low / baseline, 100 * self.ci_high / baseline

    @property
    def detectable_pct(self) -> float | None:
        """``detectable`` in percent of the baseline's mean; None where either is not defined."""
        if self.detectable is None or self.change is None or self.change_pct is None:
            return None
        return 100 * self.detectable / (self.value - self.change)

    @property
    def loses(self) -> bool:
        """Whether the point estimate is a loss, proven or not."""
        return self.change is not None and self.change < -_ROUNDING

    @property
    def unresolved(self) -> bool:
        """Whether "no evidence" says nothing: a change of 5% need not have shown with this many queries."""
        if self.verdict != "no evidence":
            return False
        return self.n_queries < FEWEST_QUERIES or (self.detectable_pct or 0.0) > RESOLUTION_PCT


@dataclass(frozen=True)
class QueryChange:
    """One query under the baseline and under a candidate (primary metric)."""

    query_id: str
    baseline: float
    value: float

    @property
    def change(self) -> float:
        """Candidate minus baseline."""
        return self.value - self.baseline


@dataclass(frozen=True)
class Paired:
    """Per-query values of the primary metric, (n,) each, aligned by query."""

    dataset: str
    role: Role
    system: str
    query_ids: tuple[str, ...]
    baseline: NDArray[np.float64]
    value: NDArray[np.float64]

    @cached_property
    def differences(self) -> NDArray[np.float64]:
        """Candidate minus baseline, (n,)."""
        return self.value - self.baseline

    def largest_wins(self, count: int) -> tuple[QueryChange, ...]:
        """The queries that gained most, best first; never one that did not gain."""
        return self._largest(-self.differences, count)

    def largest_losses(self, count: int) -> tuple[QueryChange, ...]:
        """The queries that lost most, worst first; never one that did not lose."""
        return self._largest(self.differences, count)

    def _largest(self, keys: NDArray[np.float64], count: int) -> tuple[QueryChange, ...]:
        order = np.argsort(keys, kind="stable")[:count]
        return tuple(
            QueryChange(self.query_ids[row], float(self.baseline[row]), float(self.value[row]))
            for row in order
            if keys[row] < 0
        )


@dataclass(frozen=True)
class QueryGroup:
    """A named part of a dataset's scored queries, such as those with a near-copy in training."""

    dataset: str
    name: str
    query_ids: tuple[str, ...]


@dataclass(frozen=True)
class GroupRow:
    """Primary metric of one system on one group of queries; the 95% interval is that of ``change``."""

    dataset: str
    group: str
    system: str
    n_queries: int
    baseline: float
    value: float
    change: float
    change_pct: float | None
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Summary:
    """One system over all trained datasets; the guards' mean stands apart. Changes are in percent.

    ``improved`` counts point estimates above the baseline; ``confirmed`` and ``regressed`` count verdicts.
    ``best`` and ``worst`` are rows of trained datasets, None where no relative change is defined.
    """

    system: str
    metric: str
    datasets: int
    improved: int
    confirmed: int
    regressed: int
    mean_change_pct: float | None
    best: ComparisonRow | None
    worst: ComparisonRow | None
    guards: int
    guards_regressed: int
    guards_mean_change_pct: float | None


@dataclass(frozen=True)
class Comparison:
    """All figures of a comparison.

    ``systems`` are the candidates in the order given, the baseline not among them; ``paired`` holds one entry for
    each candidate on each dataset.
    """

    primary: str
    systems: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]
    paired: tuple[Paired, ...]
    groups: tuple[GroupRow, ...] = ()

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets, trained ones first, else in the order given."""
        return tuple(dict.fromkeys(row.dataset for row in self.rows))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """All metrics, in the order of the evaluations."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def row(self, dataset: str, system: str, metric: str | None = None) -> ComparisonRow | None:
        """One row (the primary metric unless named), or None where it was not measured."""
        return self._index.get((dataset, system, metric or self.primary))

    def summary(self, system: str, metric: str | None = None) -> Summary:
        """What one candidate did over all datasets, the primary metric unless named."""
        metric = metric or self.primary
        rows = [row for row in self.rows if row.system == system and row.metric == metric]
        trained = [row for row in rows if row.role == "trained"]
        guards = [row for row in rows if row.role == "guard"]
        ranked = sorted((row for row in trained if row.change_pct is not None), key=lambda row: row.change_pct or 0.0)
        return Summary(
            system=system,
            metric=metric,
            datasets=len(trained),
            improved=sum(row.change is not None and row.change > _ROUNDING for row in trained),
            confirmed=sum(row.verdict == "improved" for row in trained),
            regressed=sum(row.verdict == "regressed" for row in trained),
            mean_change_pct=_mean_change_pct(trained),
            best=ranked[-1] if ranked else None,
            worst=ranked[0] if ranked else None,
            guards=len(guards),
            guards_regressed=sum(row.verdict == "regressed" for row in guards),
            guards_mean_change_pct=_mean_change_pct(guards),
        )

    def regressions(self, system: str) -> tuple[ComparisonRow, ...]:
        """Rows of the primary metric in which this candidate is significantly worse, guards included."""
        return tuple(
            row
            for row in self.rows
            if row.system == system and row.metric == self.primary and row.verdict == "regressed"
        )

    @cached_property
    def _index(self) -> Mapping[tuple[str, str, str], ComparisonRow]:
        return {(row.dataset, row.system, row.metric): row for row in self.rows}


def _mean_change_pct(rows: Sequence[ComparisonRow]) -> float | None:
    changes = [row.change_pct for row in rows if row.change_pct is not None]
    return float(np.mean(changes)) if changes else None
