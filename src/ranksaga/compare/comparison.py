"""Base model against candidates: what changed on each dataset, and how sure that is.

Systems are compared query by query: the same query under both, so the spread between easy and
hard queries drops out. The tests are those of ``statistics.py``; Holm's correction runs over all
datasets (guards too) within one (system, metric), because a reader looks at them together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranksaga.compare.results import (
    BASELINE,
    PRIMARY,
    Comparison,
    ComparisonRow,
    GroupRow,
    Paired,
    QueryGroup,
    Role,
    Verdict,
)
from ranksaga.compare.statistics import (
    ALPHA,
    bootstrap_interval,
    effect_size,
    holm,
    paired_randomization,
    smallest_detectable_difference,
    wins_ties_losses,
)
from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation

__all__ = ["TESTED", "compare"]

TESTED = ("ndcg_at_10", "recall_at_100", "map_at_100", "mrr_at_10", "precision_at_10")


def compare(
    baselines: Sequence[Evaluation],
    candidates: Sequence[Evaluation],
    *,
    guards: Collection[str] = (),
    groups: Sequence[QueryGroup] = (),
    rounds: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare each candidate with the baseline of its dataset, query by query.

    Args:
        baselines: One evaluation a dataset.
        candidates: Any number of systems, told apart by ``Evaluation.system``; one may lack some datasets.
        guards: Names of the datasets that no model trained on.
        groups: Parts of the queries to report apart; an empty part is left out.
        rounds: Resamplings of each test and interval.
        seed: Every test and interval starts from it, so a figure depends on its own two systems only.

    Raises:
        DataError: the evaluations do not belong together: a dataset twice or without a baseline, another split,
            other queries, no primary metric, an unknown guard or group.
    """
    by_dataset = _one_each(baselines)
    _check_names(by_dataset, candidates, guards, groups)
    order = sorted(by_dataset, key=lambda name: name in guards)
    sampling = _Sampling(rounds, seed)
    rows: list[ComparisonRow] = []
    paired: list[Paired] = []
    for name in order:
        baseline = by_dataset[name]
        _check_metric(baseline)
        role: Role = "guard" if name in guards else "trained"
        rows += _baseline_rows(baseline, role, sampling)
        for candidate in (evaluation for evaluation in candidates if evaluation.dataset == name):
            _check_metric(candidate)
            aligned = _align(baseline, candidate)
            rows += _candidate_rows(baseline, aligned, role, sampling)
            values = (baseline.values[PRIMARY], aligned.values[PRIMARY])
            paired.append(Paired(name, role, candidate.system, baseline.query_ids, *values))
    group_rows = tuple(
        _group_row(pair, group, sampling)
        for group in groups
        for pair in paired
        if pair.dataset == group.dataset and group.query_ids
    )
    systems = tuple(dict.fromkeys(evaluation.system for evaluation in candidates))
    return Comparison(PRIMARY, systems, _corrected(rows), tuple(paired), group_rows)


@dataclass(frozen=True)
class _Sampling:
    rounds: int
    seed: int

    def interval(self, values: NDArray[np.float64]) -> tuple[float, float]:
        interval = bootstrap_interval(values, rounds=self.rounds, seed=self.seed)
        return interval.low, interval.high


def _one_each(baselines: Sequence[Evaluation]) -> dict[str, Evaluation]:
    found: dict[str, Evaluation] = {}
    for evaluation in baselines:
        if evaluation.dataset in found:
            raise DataError(f"{evaluation.dataset}: two baselines were given; give one evaluation a dataset")
        found[evaluation.dataset] = evaluation
    return found


def _check_names(
    baselines: Mapping[str, Evaluation],
    candidates: Sequence[Evaluation],
    guards: Collection[str],
    groups: Sequence[QueryGroup],
) -> None:
    have = ", ".join(baselines) or "none"
    for what, names in (
        ("the candidate's dataset", [evaluation.dataset for evaluation in candidates]),
        ("the guard", guards),
        ("the query group's dataset", [group.dataset for group in groups]),
    ):
        for name in names:
            if name not in baselines:
                raise DataError(f"{what} {name!r} has no baseline (found: {have}); benchmark the base model on it")
    seen: set[tuple[str, str]] = set()
    for evaluation in candidates:
        key = (evaluation.dataset, evaluation.system)
        if key in seen:
            raise DataError(f"{evaluation.dataset}: two evaluations of {evaluation.system!r}; give each system once")
        if evaluation.system == BASELINE:
            raise DataError(f"{evaluation.dataset}: a candidate is named {BASELINE!r}; give it another name")
        seen.add(key)


def _check_metric(evaluation: Evaluation) -> None:
    if PRIMARY not in evaluation.values:
        have = ", ".join(evaluation.values) or "none"
        raise DataError(f"{evaluation.dataset}: {evaluation.system!r} has no {PRIMARY} (found: {have}); evaluate it")
    if not evaluation.query_ids:
        raise DataError(f"{evaluation.dataset}: {evaluation.system!r} has no queries; score a split that is judged")


def _align(baseline: Evaluation, candidate: Evaluation) -> Evaluation:
    """The candidate with its queries in the baseline's order, if they are the same queries of the same split."""
    what = f"{baseline.dataset}: {candidate.system!r}"
    if candidate.split != baseline.split:
        raise DataError(
            f"{what} was scored on split {candidate.split!r} and the baseline on {baseline.split!r}; score the same one"
        )
    if candidate.query_ids == baseline.query_ids:
        return candidate
    rows = {identifier: row for row, identifier in enumerate(candidate.query_ids)}
    missing = [identifier for identifier in baseline.query_ids if identifier not in rows]
    extra = rows.keys() - set(baseline.query_ids)
    if missing or extra or len(rows) != len(candidate.query_ids):
        example = next(iter(missing or sorted(extra)), "a repeated id")
        raise DataError(
            f"{what} has {len(candidate.query_ids)} queries and the baseline {len(baseline.query_ids)}: "
            f"{len(missing)} missing, {len(extra)} extra (such as {example!r}); score both on the same queries"
        )
    order = np.array([rows[identifier] for identifier in baseline.query_ids])
    values = {metric: column[order] for metric, column in candidate.values.items()}
    return replace(candidate, query_ids=baseline.query_ids, values=values)


def _baseline_rows(baseline: Evaluation, role: Role, sampling: _Sampling) -> list[ComparisonRow]:
    rows = []
    for metric, values in baseline.values.items():
        low, high = sampling.interval(values) if metric in TESTED else (None, None)
        rows.append(
            ComparisonRow(
                baseline.dataset, role, BASELINE, metric, len(values), baseline.mean(metric), ci_low=low, ci_high=high
            )
        )
    return rows


def _candidate_rows(
    baseline: Evaluation, candidate: Evaluation, role: Role, sampling: _Sampling
) -> list[ComparisonRow]:
    """A row for every metric that both have, in the baseline's order."""
    rows = []
    for metric in baseline.values:
        if metric not in candidate.values:
            continue
        differences = candidate.values[metric] - baseline.values[metric]
        row = ComparisonRow(
            dataset=baseline.dataset,
            role=role,
            system=candidate.system,
            metric=metric,
            n_queries=len(differences),
            value=candidate.mean(metric),
            change=float(np.mean(differences)),
            change_pct=_percent(float(np.mean(differences)), baseline.mean(metric)),
            out_of_fold=candidate.out_of_fold,
        )
        rows.append(_tested(row, differences, sampling) if metric in TESTED else row)
    return rows


def _tested(row: ComparisonRow, differences: NDArray[np.float64], sampling: _Sampling) -> ComparisonRow:
    low, high = sampling.interval(differences)
    counts = wins_ties_losses(differences)
    return replace(
        row,
        ci_low=low,
        ci_high=high,
        p=paired_randomization(differences, rounds=sampling.rounds, seed=sampling.seed),
        wins=counts.wins,
        ties=counts.ties,
        losses=counts.losses,
        effect_size=effect_size(differences),
        detectable=smallest_detectable_difference(differences),
    )


def _corrected(rows: Sequence[ComparisonRow]) -> tuple[ComparisonRow, ...]:
    """The rows with Holm's p and the verdict filled in, one family for each (system, metric)."""
    families: dict[tuple[str, str], list[int]] = {}
    for position, row in enumerate(rows):
        if row.p is not None:
            families.setdefault((row.system, row.metric), []).append(position)
    done = list(rows)
    for positions in families.values():
        corrected = holm(np.array([rows[position].p for position in positions], dtype=np.float64))
        for position, p_holm in zip(positions, corrected.tolist(), strict=True):
            done[position] = replace(
                rows[position], p_holm=p_holm, verdict=_verdict(rows[position].change or 0.0, p_holm)
            )
    return tuple(done)


def _verdict(change: float, p_holm: float) -> Verdict:
    if p_holm >= ALPHA:
        return "no evidence"
    return "improved" if change > 0 else "regressed"


def _group_row(pair: Paired, group: QueryGroup, sampling: _Sampling) -> GroupRow:
    wanted = set(group.query_ids)
    mask = np.array([identifier in wanted for identifier in pair.query_ids])
    if mask.sum() != len(wanted):
        example = next(iter(sorted(wanted - set(pair.query_ids))))
        raise DataError(
            f"{group.dataset}: {len(wanted) - int(mask.sum())} of the {len(wanted)} queries of the group "
            f"{group.name!r} were not scored (such as {example!r}); name scored queries only"
        )
    baseline, differences = float(pair.baseline[mask].mean()), pair.differences[mask]
    change = float(differences.mean())
    low, high = sampling.interval(differences)
    return GroupRow(
        dataset=pair.dataset,
        group=group.name,
        system=pair.system,
        n_queries=len(differences),
        baseline=baseline,
        value=float(pair.value[mask].mean()),
        change=change,
        change_pct=_percent(change, baseline),
        ci_low=low,
        ci_high=high,
    )


def _percent(change: float, baseline: float) -> float | None:
    return 100 * change / baseline if baseline > 0 else None
