"""Who is chosen on dev, and what is kept of dev queries to choose by."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ranksaga.run.selection import Candidate, choose, with_scores

BASE = {"a": 0.5, "b": 0.4, "guard": 0.2}
ROLES = {"a": "trained", "b": "trained", "guard": "guard"}


def candidate(epoch: int, a: float, b: float, guard: float, error: float = 0.01) -> Candidate:
    return Candidate(epoch, 1.0, None, {"a": a, "b": b, "guard": guard}, dict.fromkeys(BASE, error))


def chosen(*candidates: Candidate, tolerance: float = 0.0, standard_errors: float = 1.0) -> int | None:
    found = choose(BASE, candidates, ROLES, tolerance, standard_errors)
    return None if found is None else found.epoch


def test_the_largest_mean_relative_gain_of_trained_datasets_is_taken() -> None:
    # +10% and 0% against 0% and +15%; what the guard gains counts for nothing.
    assert chosen(candidate(1, 0.55, 0.40, 0.9), candidate(2, 0.50, 0.46, 0.2)) == 2


def test_a_loss_counts_beyond_its_standard_error() -> None:
    clear, small = candidate(1, 0.60, 0.50, 0.185), candidate(2, 0.55, 0.45, 0.191)
    assert chosen(clear, small) == 2
    assert chosen(clear, small, standard_errors=2.0) == 1
    assert chosen(clear, small, standard_errors=0.0) is None
    # 0.185 is 7.5% below the base, and its error is worth 5%.
    assert chosen(clear, tolerance=0.03) == 1
    assert chosen(clear, tolerance=0.02) is None


def test_a_trained_dataset_must_not_lose_either() -> None:
    assert chosen(candidate(1, 0.9, 0.38, 0.2)) is None


def test_without_a_gain_the_base_model_stays() -> None:
    assert chosen(candidate(1, 0.499, 0.399, 0.3)) is None


def test_errors_are_those_of_paired_differences() -> None:
    rng = np.random.default_rng(0)
    base, values = rng.random(20), rng.random(20)
    found = with_scores(Candidate(3, 0.5, 0.25, {}, {}), {"a": base, "b": np.ones(1)}, {"a": values, "b": np.zeros(1)})
    assert (found.epoch, found.weight, found.document_weight) == (3, 0.5, 0.25)
    assert found.scores["a"] == pytest.approx(values.mean())
    assert found.errors["a"] == pytest.approx(stats.sem(values - base))
    # One query says nothing of its error.
    assert (found.scores["b"], found.errors["b"]) == (0.0, 0.0)


def test_guards_alone_choose_nothing() -> None:
    found = choose({"guard": 0.2}, [Candidate(1, 1.0, None, {"guard": 0.9}, {"guard": 0.0})], ROLES, 0.0, 1.0)
    assert found is None
