"""What to do with a run's results: who is compared with whom, and the rule that makes one recommendation of it.

A contrast is one system against another over all datasets. Three of them are the verdict: the model against the base,
the trained hybrid against BM25 and the untrained base (what training added), the hybrid against the base. The others
are between the systems that could be recommended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ranksaga.compare.comparison import compare
from ranksaga.compare.results import (
    BASELINE,
    BASELINE_HYBRID,
    HYBRID,
    RESOLUTION_PCT,
    Comparison,
    ComparisonRow,
    Paired,
    Verdict,
)
from ranksaga.compare.statistics import (
    ALPHA,
    FEWEST_QUERIES,
    ROUNDS,
    hierarchical_interval,
    holm,
    smallest_detectable_mean,
    stratified_randomization,
)
from ranksaga.evaluate.evaluation import Evaluation

__all__ = [
    "Action",
    "Answer",
    "Caution",
    "Contrast",
    "MeanChange",
    "Recommendation",
    "answer_of",
    "cautions",
    "recommend",
]

Action = Literal["keep", "ship the base hybrid", "ship the model", "ship the hybrid"]


@dataclass(frozen=True)
class MeanChange:
    """The mean over trained datasets of relative changes, in percent of the reference's means.

    ``ci_low`` and ``ci_high`` bound it at 95% over datasets and queries (hierarchical bootstrap); ``p`` is of the
    stratified randomization test on these datasets, ``p_holm`` corrected over all contrasts of an answer;
    ``detectable_pct`` is the smallest mean change that the test finds 4 times out of 5, None where there is no spread.
    """

    datasets: int
    queries: int
    change_pct: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    detectable_pct: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Improved or regressed where the corrected p is below 0.05."""
        if self.p_holm >= ALPHA:
            return "no evidence"
        return "improved" if self.change_pct > 0 else "regressed"

    @property
    def unresolved(self) -> bool:
        """Whether "no evidence" says nothing: a mean change of 5% need not have shown."""
        if self.verdict != "no evidence":
            return False
        return self.queries < FEWEST_QUERIES or (self.detectable_pct or 0.0) > RESOLUTION_PCT


@dataclass(frozen=True)
class Contrast:
    """``system`` against ``reference``: a row of the primary metric for each dataset that both were measured on.

    The rows' changes are against ``reference``. ``missing`` names the datasets that one of the two lacks; ``mean`` is
    None where no relative change is defined.
    """

    system: str
    reference: str
    rows: tuple[ComparisonRow, ...]
    mean: MeanChange | None
    missing: tuple[str, ...] = ()

    @property
    def regressed(self) -> tuple[ComparisonRow, ...]:
        """Rows that are significantly worse, guards included."""
        return tuple(row for row in self.rows if row.verdict == "regressed")

    @property
    def guards_pct(self) -> float | None:
        """The guards' mean change in percent."""
        changes = [row.change_pct for row in self.rows if row.role == "guard" and row.change_pct is not None]
        return float(np.mean(changes)) if changes else None

    @property
    def better(self) -> bool:
        """Proven: the mean improved, no dataset (guards included) is significantly worse, and none is missing."""
        improved = self.mean is not None and self.mean.verdict == "improved"
        return improved and not self.regressed and not self.missing


@dataclass(frozen=True)
class Caution:
    """A dataset that is not proven safe under a system: it loses though unproven, or a loss of 5% could go unseen.

    ``detectable_pct`` is the smallest loss that can be seen, None where no loss of any size can.
    """

    dataset: str
    role: str
    n_queries: int
    change_pct: float | None
    loses: bool
    unresolved: bool
    detectable_pct: float | None


@dataclass(frozen=True)
class Recommendation:
    """One thing to do. ``system`` is what serves from then on; ``because`` are the contrasts that decided, the system
    against the base first."""

    action: Action
    system: str
    because: tuple[Contrast, ...]
    cautions: tuple[Caution, ...] = ()


@dataclass(frozen=True)
class Answer:
    """All contrasts of a run. ``model`` is the trained system; ``ships`` is whether selection kept it, so that there is
    a trained model to ship at all."""

    model: str
    ships: bool
    contrasts: tuple[Contrast, ...]

    def contrast(self, system: str, reference: str) -> Contrast | None:
        """One of them, or None where it could not be made."""
        return next((one for one in self.contrasts if (one.system, one.reference) == (system, reference)), None)

    @property
    def verdict(self) -> tuple[Contrast, ...]:
        """The three comparisons that answer a buyer, as far as they were measured."""
        wanted = ((self.model, BASELINE), (HYBRID, BASELINE_HYBRID), (HYBRID, BASELINE))
        return tuple(found for pair in wanted if (found := self.contrast(*pair)) is not None)

    @property
    def others(self) -> tuple[Contrast, ...]:
        """The contrasts that only the choice between systems needs."""
        return tuple(one for one in self.contrasts if one not in self.verdict)

    @cached_property
    def recommendation(self) -> Recommendation:
        """See :func:`recommend`."""
        return recommend(self)


def recommend(answer: Answer) -> Recommendation:
    """The decision rule: the least effort, unless more effort is proven to be better.

    Systems are taken in the order of what they ask for: the base model as it is; BM25 beside it (an index, no
    training); the trained model (all documents encoded again); the trained model with BM25. One takes the place of
    the one before where it is proven better than the base and than that one (:attr:`Contrast.better`). A trained
    system can be recommended only where selection kept it.
    """
    order: list[tuple[Action, str]] = [("ship the base hybrid", BASELINE_HYBRID)]
    if answer.ships:
        order += [("ship the model", answer.model), ("ship the hybrid", HYBRID)]
    chosen: tuple[Action, str] = ("keep", BASELINE)
    for action, system in order:
        against = [answer.contrast(system, reference) for reference in dict.fromkeys((BASELINE, chosen[1]))]
        if all(contrast is not None and contrast.better for contrast in against):
            chosen = action, system
    action, system = chosen
    first = answer.contrast(system, BASELINE)
    rest = [one for one in answer.contrasts if one is not first and system in (one.system, one.reference)]
    because = tuple(one for one in (first, *rest) if one is not None)
    return Recommendation(action, system, because, cautions(first.rows) if first is not None else ())


def cautions(rows: Sequence[ComparisonRow]) -> tuple[Caution, ...]:
    """The datasets that are not proven safe, of one system's rows against the base; those proven worse are no matter
    of caution."""
    return tuple(
        Caution(
            row.dataset,
            row.role,
            row.n_queries,
            row.change_pct,
            row.loses,
            row.unresolved,
            row.detectable_pct if row.n_queries >= FEWEST_QUERIES else None,
        )
        for row in rows
        if row.verdict == "no evidence" and (row.loses or row.unresolved)
    )


def answer_of(comparison: Comparison, model: str, *, ships: bool, rounds: int = ROUNDS, seed: int = 0) -> Answer:
    """Test every contrast that the verdict and the recommendation need, as far as the systems were measured.

    Args:
        comparison: of all systems with the base.
        model: the trained system.
        ships: whether there is a trained model to ship.
        rounds: Resamplings of each test and interval.
        seed: Every test and interval starts from it.
    """
    systems = [BASELINE, *(name for name in (BASELINE_HYBRID, model, HYBRID) if name in comparison.systems)]
    pairs = [(system, reference) for place, system in enumerate(systems) for reference in systems[:place]]
    made = [_contrast(comparison, system, reference, rounds, seed) for system, reference in pairs]
    tested = [one.mean for one in made if one.mean is not None]
    corrected = iter(holm(np.array([mean.p for mean in tested], dtype=np.float64)).tolist())
    return Answer(
        model,
        ships,
        tuple(
            replace(one, mean=replace(one.mean, p_holm=next(corrected))) if one.mean is not None else one
            for one in made
        ),
    )


def _contrast(comparison: Comparison, system: str, reference: str, rounds: int, seed: int) -> Contrast:
    pairs = _pairs(comparison, system, reference)
    if reference == BASELINE:
        known = (comparison.row(pair.dataset, system) for pair in pairs)
        rows = tuple(row for row in known if row is not None)
    else:
        guards = [pair.dataset for pair in pairs if pair.role == "guard"]
        rows = _rows(comparison.primary, pairs, guards, rounds, seed)
    samples = [
        100 * pair.differences / float(pair.baseline.mean())
        for pair in pairs
        if pair.role == "trained" and pair.baseline.mean() > 0
    ]
    missing = tuple(name for name in comparison.datasets if name not in {pair.dataset for pair in pairs})
    return Contrast(system, reference, rows, _mean(samples, rounds, seed) if samples else None, missing)


def _pairs(comparison: Comparison, system: str, reference: str) -> list[Paired]:
    """The values of the two by dataset, in the comparison's order; all are aligned with the base's queries."""
    after = {pair.dataset: pair for pair in comparison.paired if pair.system == system}
    if reference == BASELINE:
        return [after[name] for name in comparison.datasets if name in after]
    before = {pair.dataset: pair for pair in comparison.paired if pair.system == reference}
    both = (name for name in comparison.datasets if name in after and name in before)
    return [replace(after[name], baseline=before[name].value) for name in both]


def _rows(
    metric: str, pairs: Sequence[Paired], guards: Collection[str], rounds: int, seed: int
) -> tuple[ComparisonRow, ...]:
    def evaluation(pair: Paired, system: str, values: NDArray[np.float64]) -> Evaluation:
        return Evaluation(pair.dataset, "test", system, pair.query_ids, {metric: values})

    compared = compare(
        [evaluation(pair, BASELINE, pair.baseline) for pair in pairs],
        [evaluation(pair, pair.system, pair.value) for pair in pairs],
        guards=guards,
        rounds=rounds,
        seed=seed,
    )
    return tuple(row for row in compared.rows if row.system != BASELINE)


def _mean(samples: Sequence[NDArray[np.float64]], rounds: int, seed: int) -> MeanChange:
    interval = hierarchical_interval(samples, rounds=rounds, seed=seed)
    p = stratified_randomization(samples, rounds=rounds, seed=seed)
    return MeanChange(
        datasets=len(samples),
        queries=sum(map(len, samples)),
        change_pct=float(np.mean([sample.mean() for sample in samples])),
        ci_low=interval.low,
        ci_high=interval.high,
        p=p,
        p_holm=p,
        detectable_pct=smallest_detectable_mean(samples),
    )
