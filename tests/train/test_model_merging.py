from __future__ import annotations

import pytest
import torch

from ranksaga.errors import StageError
from ranksaga.train.model_merging import average, interpolate


def states() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    base = {"a": torch.randn(3, 4, generator=generator), "b": torch.tensor([-0.0, 1e-30]), "p": torch.arange(4)}
    tuned = {"a": torch.randn(3, 4, generator=generator), "b": torch.tensor([3.0, float("inf")]), "p": torch.arange(4)}
    return base, tuned


def test_the_ends_are_exact_copies() -> None:
    base, tuned = states()
    for weight, expected in ((0.0, base), (1.0, tuned)):
        merged = interpolate(base, tuned, weight)
        for name in ("a", "b"):
            # Bits: -0.0 stays -0.0, and infinity times 0 does not become NaN.
            assert torch.equal(merged[name].view(torch.int32), expected[name].view(torch.int32))
        merged["a"].zero_()
        assert expected["a"].abs().sum() > 0


def test_between_by_hand() -> None:
    merged = interpolate({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([5.0, 0.0])}, 0.25)
    assert merged["a"].tolist() == [2.0, 1.5]


def test_half_precision_is_merged_in_float32_and_given_back() -> None:
    base, tuned = {"a": torch.tensor([1.0]).bfloat16()}, {"a": torch.tensor([1.0078125]).bfloat16()}
    merged = interpolate(base, tuned, 0.6)["a"]
    assert merged.dtype == torch.bfloat16
    assert merged.item() == 1.0078125  # 1.0047 lies nearer to it than to 1


def test_average_of_three_and_positions_of_the_first() -> None:
    parts = [{"a": torch.tensor([float(value)]), "p": torch.tensor([7])} for value in (1, 2, 6)]
    merged = average(parts)
    assert merged["a"].item() == pytest.approx(3.0)
    assert merged["p"].tolist() == [7]
    with pytest.raises(StageError, match="at least one model"):
        average([])


def test_other_architectures_are_refused() -> None:
    base, tuned = states()
    with pytest.raises(StageError, match="differ in 1 tensors, a among them"):
        interpolate(base, {**tuned, "a": torch.zeros(3, 5)}, 0.5)
    with pytest.raises(StageError, match="z among them"):
        interpolate(base, {**tuned, "z": torch.zeros(1)}, 0.5)
