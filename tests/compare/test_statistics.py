from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.compare import statistics as module
from ranksaga.compare.statistics import (
    ALPHA,
    FEWEST_QUERIES,
    Interval,
    WinsTiesLosses,
    bootstrap_interval,
    effect_size,
    hierarchical_interval,
    holm,
    paired_randomization,
    smallest_detectable_difference,
    smallest_detectable_mean,
    stratified_randomization,
    wins_ties_losses,
)
from ranksaga.errors import DataError


def sample(seed: int, size: int, shift: float = 0.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(shift, 1.0, size)


def exact_p(differences: NDArray[np.float64]) -> float:
    sums = [abs(float(np.dot(signs, differences))) for signs in itertools.product((1, -1), repeat=len(differences))]
    return float(np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_p_is_near_the_exact_one(seed: int) -> None:
    differences = sample(seed, 10, 0.4)
    assert paired_randomization(differences, seed=1, rounds=20_000) == pytest.approx(exact_p(differences), abs=0.012)


def test_p_of_tied_and_equal_differences_is_exact_too() -> None:
    # All of one size: every flip is a tie with a count, and rounding must not lose the extreme ones.
    differences = np.array([0.1] * 6 + [-0.1] + [0.0] * 5)
    assert exact_p(differences) == 16 / 128
    assert paired_randomization(differences, seed=1, rounds=20_000) == pytest.approx(16 / 128, abs=0.01)


def test_p_is_near_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = sample(7, 80)
    differences += 0.2 - differences.mean()
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=10_000, rng=np.random.default_rng(0)
    )
    assert paired_randomization(differences, seed=1) == pytest.approx(theirs.pvalue, abs=0.015)


def test_p_is_never_zero_and_one_where_nothing_differs() -> None:
    assert paired_randomization(np.ones(200), seed=0, rounds=999) == 1 / 1000
    assert paired_randomization(np.zeros(20), seed=0, rounds=99) == 1.0


def test_p_is_two_sided_and_seeded() -> None:
    differences = sample(3, 50, 0.2)
    first = paired_randomization(differences, seed=5)
    assert first == paired_randomization(differences, seed=5) == paired_randomization(-differences, seed=5)
    assert first != paired_randomization(differences, seed=6)


def test_under_no_difference_five_percent_are_rejected() -> None:
    # 4000 experiments: a standard error of 0.35 points, so 1 point is nearly three of them.
    rejected = sum(
        paired_randomization(np.random.default_rng([9, number]).laplace(0, 1, 40), seed=number, rounds=199) <= 0.05
        for number in range(4000)
    )
    assert rejected / 4000 == pytest.approx(0.05, abs=0.01)


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 64)
    differences = sample(4, 30, 0.3)
    assert paired_randomization(differences, seed=2, rounds=5000) == pytest.approx(
        paired_randomization(differences, seed=3, rounds=5000), abs=0.03
    )


def test_interval_is_scipys_bca() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).beta(0.3, 0.9, 60)
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(1))
    ours = bootstrap_interval(values, seed=1, rounds=20_000)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.004)


def test_interval_covers_the_mean() -> None:
    # Skewed like a metric; 95% +-2.5 points over 600 experiments (three standard errors).
    rng = np.random.default_rng(11)
    inside = 0
    for number in range(600):
        interval = bootstrap_interval(rng.beta(0.5, 1.0, 100), seed=number, rounds=500)
        inside += interval.low <= 1 / 3 <= interval.high
    assert inside / 600 == pytest.approx(0.95, abs=0.03)


def test_interval_narrows_with_confidence_and_is_seeded() -> None:
    values = sample(0, 100)
    wide, narrow = (bootstrap_interval(values, seed=0, confidence=level) for level in (0.99, 0.8))
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high
    assert wide == bootstrap_interval(values, seed=0, confidence=0.99)


@pytest.mark.parametrize("count", [1, 5])
def test_interval_without_spread_is_the_mean(count: int) -> None:
    assert bootstrap_interval(np.full(count, 0.25), seed=0) == Interval(0.25, 0.25)


def test_holm_by_hand() -> None:
    # 4 x 0.01, 3 x 0.02 = 0.06, 2 x 0.03 = 0.06, 1 x 0.04 lifted to 0.06.
    assert holm(np.array([0.03, 0.01, 0.04, 0.02])).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


def test_wins_ties_losses() -> None:
    assert wins_ties_losses(np.array([0.1, 0.0, 1e-15, -0.2, 0.3])) == WinsTiesLosses(2, 2, 1)


def test_effect_size_and_detectable_difference_by_hand() -> None:
    differences = np.array([1.0, 3.0, 2.0, 4.0])
    spread = (5 / 3) ** 0.5
    assert effect_size(differences) == pytest.approx(2.5 / spread)
    assert smallest_detectable_difference(differences) == pytest.approx((1.959964 + 0.841621) * spread / 2, rel=1e-6)


@pytest.mark.parametrize("differences", [np.array([0.3]), np.array([0.2, 0.2])])
def test_without_spread_there_is_no_effect_size(differences: NDArray[np.float64]) -> None:
    assert effect_size(differences) is None
    assert smallest_detectable_difference(differences) is None


def test_the_detectable_difference_is_found_with_its_power() -> None:
    size = smallest_detectable_difference(sample(0, 2000))
    assert size is not None
    rng = np.random.default_rng(1)
    needed = size * (2000 / 60) ** 0.5
    found = sum(
        paired_randomization(rng.normal(needed, 1, 60), seed=number, rounds=199) <= 0.05 for number in range(500)
    )
    assert found / 500 == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("values", [np.array([]), np.array([0.1, np.nan]), np.ones((2, 2))])
def test_bad_values_are_refused(values: NDArray[np.float64]) -> None:
    for function in (paired_randomization, bootstrap_interval):
        with pytest.raises(DataError, match="one finite value a query"):
            function(values, seed=0)


def exact_hierarchical(samples: list[list[float]], levels: tuple[float, float]) -> list[float]:
    """Quantiles of all equally likely draws of datasets and, in each, of queries."""
    outcomes: dict[float, float] = {}
    count = len(samples)
    for drawn in itertools.product(samples, repeat=count):
        means = [[float(np.mean(queries)) for queries in itertools.product(one, repeat=len(one))] for one in drawn]
        share = 1 / count**count / np.prod([len(one) for one in means])
        for combination in itertools.product(*means):
            mean = round(float(np.mean(combination)), 9)
            outcomes[mean] = outcomes.get(mean, 0.0) + float(share)
    values = sorted(outcomes)
    below = np.cumsum([outcomes[value] for value in values])
    return [values[int(np.searchsorted(below, level))] for level in levels]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # A query each: of two datasets the mean is -1, 0 or 1 with probabilities 1/4, 1/2, 1/4.
        ([[-1.0], [1.0]], (-1.0, 1.0)),
        # Of four datasets all draws are one dataset with probability 1/256: the ends are 1/4 and 3/4.
        ([[0.0], [0.0], [1.0], [1.0]], (0.0, 1.0)),
        ([[0.0], [0.0], [0.0], [1.0]], (0.0, 0.75)),
    ],
)
def test_the_hierarchical_interval_by_hand(samples: list[list[float]], expected: tuple[float, float]) -> None:
    assert exact_hierarchical(samples, (0.025, 0.975)) == list(expected)
    found = hierarchical_interval([np.array(one) for one in samples], seed=0)
    assert (found.low, found.high) == expected


def test_the_hierarchical_interval_draws_datasets_and_queries() -> None:
    samples = [[0.0, 3.0, 7.0], [20.0, 30.0], [45.0]]
    low, high = exact_hierarchical(samples, (0.025, 0.975))
    found = hierarchical_interval([np.array(one) for one in samples], seed=0, rounds=40_000)
    assert found.low == pytest.approx(low, abs=0.5)
    assert found.high == pytest.approx(high, abs=0.5)


def test_the_hierarchical_interval_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    samples = [rng.normal(mean, 8.0, size) for mean, size in ((2, 30), (9, 12), (5, 80), (-1, 50))]
    means = []
    for _ in range(6000):
        chosen = [samples[place] for place in rng.choice(4, 4)]
        means.append(np.mean([rng.choice(one, len(one)).mean() for one in chosen]))
    low, high = np.percentile(means, [2.5, 97.5])
    found = hierarchical_interval(samples, seed=0)
    assert found.low == pytest.approx(low, abs=0.25)
    assert found.high == pytest.approx(high, abs=0.25)
    # Queries alone, the datasets being these four, would give a narrower one.
    within = 1.96 * float(np.sqrt(sum(np.var(one, ddof=1) / len(one) for one in samples))) / 4
    assert found.high - found.low > 1.4 * 2 * within


def test_of_one_dataset_the_interval_is_its_own() -> None:
    one = sample(3, 40, 0.4) ** 3
    assert hierarchical_interval([one], seed=4) == bootstrap_interval(one, seed=4)


def test_the_hierarchical_interval_is_seeded_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [sample(seed, 50, 0.2) for seed in range(3)]
    whole = hierarchical_interval(samples, seed=1)
    assert hierarchical_interval(samples, seed=1) == whole
    assert hierarchical_interval(samples, seed=2) != whole
    monkeypatch.setattr(module, "_CHUNK", 150 * 64)
    parts = hierarchical_interval(samples, seed=1)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.02)


def test_the_stratified_test_weighs_datasets_alike() -> None:
    """Two queries of +1 beside four of -0.5: 64 flips, of which the mean of means reaches 0.25 in 36: the 32
    in which the two of +1 agree, and of the others the 4 in which the four of -0.5 do."""
    samples = [np.array([1.0, 1.0]), np.array([-0.5] * 4)]
    observed = abs(np.mean([one.mean() for one in samples]))
    reached = [
        abs((np.dot(signs[:2], samples[0]) / 2 + np.dot(signs[2:], samples[1]) / 4) / 2) >= observed - 1e-9
        for signs in itertools.product((1, -1), repeat=6)
    ]
    assert sum(reached) == 36
    assert stratified_randomization(samples, seed=1, rounds=40_000) == pytest.approx(36 / 64, abs=0.01)
    one = sample(7, 30, 0.3)
    assert stratified_randomization([one], seed=1) == pytest.approx(paired_randomization(one, seed=1), abs=1e-9)


def test_the_smallest_detectable_mean_by_hand() -> None:
    two = np.array([0.0, 2.0])  # sd sqrt(2), so 1 over its two queries
    assert smallest_detectable_mean([two]) == smallest_detectable_difference(two)
    assert smallest_detectable_mean([two, two]) == pytest.approx((1.959964 + 0.841621) * 2**0.5 / 2)
    assert smallest_detectable_mean([two, np.ones(3)]) == pytest.approx((1.959964 + 0.841621) / 2)
    assert smallest_detectable_mean([np.ones(3), np.ones(4)]) is None
    assert smallest_detectable_mean([two, np.ones(1)]) is None
    assert smallest_detectable_mean([]) is None


def test_below_the_fewest_queries_nothing_can_be_shown() -> None:
    assert exact_p(np.ones(FEWEST_QUERIES)) < ALPHA < exact_p(np.ones(FEWEST_QUERIES - 1))


@pytest.mark.parametrize("samples", [[], [np.ones(3), np.array([])], [np.array([np.nan])]])
def test_a_mean_over_nothing_is_refused(samples: list[NDArray[np.float64]]) -> None:
    for statistic in (hierarchical_interval, stratified_randomization):
        with pytest.raises(DataError):
            statistic(samples, seed=0)
