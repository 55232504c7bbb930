"""Is a difference between two systems real, how large is it, and what could this many queries show?

Everything works on per-query values: queries are what is sampled, so queries are what is
flipped, resampled and counted. Random draws come from a given seed and are made in chunks
of bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ranksaga.errors import DataError

__all__ = [
    "FEWEST_QUERIES",
    "Interval",
    "WinsTiesLosses",
    "bootstrap_interval",
    "effect_size",
    "hierarchical_interval",
    "holm",
    "paired_randomization",
    "smallest_detectable_difference",
    "smallest_detectable_mean",
    "stratified_randomization",
    "wins_ties_losses",
]

ROUNDS = 10_000
"""Random draws of a test or an interval: a p of 0.05 is then known to about 0.002."""

# Values drawn at once: 8 MiB of float64.
_CHUNK = 1 << 20
# Differences below this are rounding, not a difference of metrics.
_ROUNDING = 1e-12
ALPHA = 0.05  # of every test
POWER = 0.8  # of the smallest difference that is said to be detectable
FEWEST_QUERIES = 6
"""Of n differences all of one sign two of the 2^n flips are as extreme: below 6 queries no p can be under 0.05."""


@dataclass(frozen=True)
class Interval:
    """Both ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class WinsTiesLosses:
    """On how many queries the candidate was better, equal and worse."""

    wins: int
    ties: int
    losses: int


def paired_randomization(differences: NDArray[np.float64], *, seed: int, rounds: int = ROUNDS) -> float:
    """Two-sided p of the hypothesis that the two systems are exchangeable, by random sign flips.

    The statistic is the absolute mean difference; p = (b + 1) / (rounds + 1), where b counts
    the flips that reach the observed value, so it is never 0 (Smucker, Allan and Carterette,
    CIKM 2007; Phipson and Smyth, 2010, for the added one).

    Args:
        differences: (n,) candidate minus baseline, one a query.
        seed: seed of the flips.
        rounds: number of random flips.

    Raises:
        DataError: there are no differences, or one is not finite.
    """
    sample = _checked(differences)
    moving = sample[np.abs(sample) > _ROUNDING]
    observed = abs(float(moving.sum()))
    # A flip that mirrors the observed signs must count, whatever order its sum was rounded in.
    limit = observed - _ROUNDING * max(1.0, float(np.abs(moving).sum()))

    def reached(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        flipped = rng.integers(0, 2, size=(count, len(moving)), dtype=np.int8).astype(np.float64)
        sums = moving.sum() - 2 * (flipped @ moving)
        extreme: NDArray[np.float64] = (np.abs(sums) >= limit).astype(np.float64)
        return extreme

    extreme = int(_in_chunks(reached, rounds, len(moving), seed).sum())
    return (extreme + 1) / (rounds + 1)


def bootstrap_interval(
    values: NDArray[np.float64], *, seed: int, confidence: float = 0.95, rounds: int = ROUNDS
) -> Interval:
    """Confidence interval of a mean over queries (of values or of paired differences).

    Bias-corrected and accelerated bootstrap (BCa; Efron, JASA 1987; for retrieval: Sakai,
    SIGIR 2006): right for the skewed values that metrics have, where the plain percentile
    interval is shifted.

    Args:
        values: (n,) one a query.
        seed: seed of the resamples.
        confidence: share of such intervals that hold the true mean.
        rounds: number of resamples.

    Raises:
        DataError: there are no values, or one is not finite.
    """
    sample = _checked(values)
    mean = float(sample.mean())
    deviations = sample - mean
    if float(np.abs(deviations).max()) <= _ROUNDING:
        return Interval(mean, mean)

    def resampled(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        means: NDArray[np.float64] = sample[rng.integers(0, len(sample), size=(count, len(sample)))].mean(axis=1)
        return means

    means = _in_chunks(resampled, rounds, len(sample), seed)
    normal = NormalDist()
    # Ties count half: the means of few distinct values often equal the observed one.
    below = (np.mean(means < mean - _ROUNDING) + np.mean(means <= mean + _ROUNDING)) / 2
    bias = normal.inv_cdf(float(np.clip(below, 1 / (rounds + 1), rounds / (rounds + 1))))
    # The jackknife's acceleration, which has a closed form for a mean.
    acceleration = float(np.sum(deviations**3) / (6 * np.sum(deviations**2) ** 1.5))
    tail = (1 - confidence) / 2
    levels = []
    for quantile in (normal.inv_cdf(tail), normal.inv_cdf(1 - tail)):
        shifted = bias + quantile
        levels.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(means, levels)
    return Interval(float(low), float(high))


def hierarchical_interval(
    samples: Sequence[NDArray[np.float64]], *, seed: int, confidence: float = 0.95, rounds: int = ROUNDS
) -> Interval:
    """Confidence interval of the mean over datasets of their means over queries, where both were sampled.

    Hierarchical bootstrap (Davison and Hinkley, 1997, section 3.8): each round draws as many datasets as there are,
    with replacement, and as many queries of each drawn dataset as it has; percentiles of the rounds' means. So it is
    about other datasets of this kind too, and with few of them it is wide. Of a single dataset it is that dataset's
    own interval (:func:`bootstrap_interval`).

    Args:
        samples: (n,) values or paired differences of each dataset, one a query; n may differ.
        seed: seed of the resamples.
        confidence: share of such intervals that hold the true mean.
        rounds: number of resamples.

    Raises:
        DataError: there is no dataset, one has no values, or a value is not finite.
    """
    checked = _all_checked(samples)
    if len(checked) == 1:
        return bootstrap_interval(checked[0], seed=seed, confidence=confidence, rounds=rounds)
    count = len(checked)

    def resampled(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        drawn = rng.integers(0, count, size=(size, count))
        means = np.empty((size, count))
        for place, sample in enumerate(checked):
            chosen = drawn == place
            rows = rng.integers(0, len(sample), size=(int(chosen.sum()), len(sample)))
            means[chosen] = sample[rows].mean(axis=1)
        mean: NDArray[np.float64] = means.mean(axis=1)
        return mean

    means = _in_chunks(resampled, rounds, count * max(map(len, checked)), seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))


def stratified_randomization(samples: Sequence[NDArray[np.float64]], *, seed: int, rounds: int = ROUNDS) -> float:
    """Two-sided p of the hypothesis that two systems are exchangeable on every one of these datasets.

    As :func:`paired_randomization`; the statistic is the absolute mean over datasets of their mean differences, so a
    small dataset weighs as much as a large one.

    Args:
        samples: (n,) candidate minus baseline of each dataset, one a query; n may differ.
        seed: seed of the flips.
        rounds: number of random flips.

    Raises:
        DataError: as for :func:`hierarchical_interval`.
    """
    # A mean of means is a sum of differences, each divided by how many its dataset has.
    weighted = [sample / len(sample) for sample in _all_checked(samples)]
    return paired_randomization(np.concatenate(weighted), seed=seed, rounds=rounds)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down correction (1979): p values that may each be held against one alpha.

    Keeps the order of the input. The chance of any false finding among all stays below alpha.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=np.float64)[order] * np.arange(count, 0, -1)
    corrected = np.empty(count)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def wins_ties_losses(differences: NDArray[np.float64]) -> WinsTiesLosses:
    """Count queries by the sign of their difference; up to 1e-12 is a tie."""
    wins = int(np.count_nonzero(differences > _ROUNDING))
    losses = int(np.count_nonzero(differences < -_ROUNDING))
    return WinsTiesLosses(wins, len(differences) - wins - losses, losses)


def effect_size(differences: NDArray[np.float64]) -> float | None:
    """Cohen's d_z: mean difference over the standard deviation of the differences (Cohen, 1988).

    None where it is not defined: fewer than two queries, or differences without spread.
    """
    spread = _spread(differences)
    return None if spread is None else float(np.mean(differences)) / spread


def smallest_detectable_difference(differences: NDArray[np.float64]) -> float | None:
    """The true mean difference that a two-sided test on this many queries finds 4 times out of 5.

    Normal approximation from the observed spread: (z(1 - alpha/2) + z(power)) * sd / sqrt(n)
    (Webber, Moffat and Zobel, CIKM 2008; Sakai, 2016). None as for :func:`effect_size`.
    """
    spread = _spread(differences)
    if spread is None:
        return None
    normal = NormalDist()
    return (normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER)) * spread / math.sqrt(len(differences))


def smallest_detectable_mean(samples: Sequence[NDArray[np.float64]]) -> float | None:
    """As :func:`smallest_detectable_difference`, of the mean over datasets of their mean differences.

    The test is about these datasets, so their variances over queries add up: sqrt(sum of sd^2 / n) / datasets takes
    the place of sd / sqrt(n). None where no dataset has a spread, or one has a single query.
    """
    if not samples or any(len(sample) < 2 for sample in samples):
        return None
    spreads = [_spread(sample) or 0.0 for sample in samples]
    error = math.sqrt(sum(spread**2 / len(sample) for spread, sample in zip(spreads, samples, strict=True)))
    normal = NormalDist()
    return (normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER)) * error / len(samples) if error else None


def _spread(differences: NDArray[np.float64]) -> float | None:
    """Sample standard deviation, or None where there is none to speak of."""
    if len(differences) < 2:
        return None
    spread = float(np.std(differences, ddof=1))
    return spread if spread > _ROUNDING else None


def _checked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0 or not np.isfinite(sample).all():
        raise DataError(
            f"statistics need one finite value a query, found an array of shape {sample.shape}; "
            "check that both systems were scored on the same judged queries"
        )
    return sample


def _all_checked(samples: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    if not samples:
        raise DataError("a mean over datasets needs at least one dataset, found none; compare on a dataset")
    return [_checked(sample) for sample in samples]


def _in_chunks(
    draw: Callable[[np.random.Generator, int], NDArray[np.float64]], rounds: int, width: int, seed: int
) -> NDArray[np.float64]:
    """``rounds`` values from ``draw(rng, count)``, a bounded number of ``width``-wide rows at a time."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(1, width))
    return np.concatenate([draw(rng, min(size, rounds - start)) for start in range(0, rounds, size)])
