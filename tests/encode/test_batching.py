"""Cuts into batches of like length."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from ranksaga.encode.batching import PRICE, evenly


def cost(lengths: list[int], cuts: list[tuple[int, int]]) -> float:
    return sum((stop - start) * lengths[start] for start, stop in cuts) + PRICE * sum(lengths) * len(cuts)


def test_no_other_cut_costs_less() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        lengths = sorted(rng.integers(1, 60, 9).tolist(), reverse=True)
        found = evenly(lengths, 10**6)
        edges = [(0, *inner, 9) for count in range(9) for inner in combinations(range(1, 9), count)]
        assert cost(lengths, found) == pytest.approx(min(cost(lengths, list(pairwise(one))) for one in edges))
        assert [start for start, _ in found] == [0, *(stop for _, stop in found)][:-1]
        assert found[-1][1] == 9


def test_the_budget_holds_and_all_rows_are_covered() -> None:
    lengths = sorted(np.random.default_rng(1).integers(5, 300, 400).tolist(), reverse=True)
    cuts = evenly(lengths, 2000)
    assert all((stop - start) * lengths[start] <= 2000 for start, stop in cuts)
    assert [row for start, stop in cuts for row in range(start, stop)] == list(range(400))
    assert evenly([], 10) == []
    assert evenly([50], 10) == [(0, 1)]


def test_a_chunk_of_documents_has_little_padding() -> None:
    rng = np.random.default_rng(2)
    for count, most in ((8192, 0.1), (1000, 0.1), (300, 0.1)):
        lengths = sorted(np.clip(rng.lognormal(4.9, 0.7, count), 8, 512).astype(int).tolist(), reverse=True)
        computed = sum((stop - start) * lengths[start] for start, stop in evenly(lengths, 131072))
        assert 1 - sum(lengths) / computed <= most
