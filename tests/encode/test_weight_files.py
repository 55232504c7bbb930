"""Files of weights: what is written comes back, and what is damaged is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ranksaga.encode.weight_files import floating_dtype, load_weights, load_weights_and_metadata, save_weights
from ranksaga.errors import StageError


def test_tied_and_transposed_weights_come_back_and_damaged_files_are_refused(tmp_path: Path) -> None:
    tied = torch.randn(2, 2)
    save_weights(tmp_path / "w.safetensors", {"a": tied, "b": tied, "t": torch.randn(2, 3).T})
    read = load_weights(tmp_path / "w.safetensors")
    assert torch.equal(read["a"], tied)
    assert torch.equal(read["b"], tied)
    assert read["t"].shape == (3, 2)
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-3])
    for name in ("cut", "missing"):
        with pytest.raises(StageError, match=rf"{name}\.safetensors: the weights cannot be read"):
            load_weights(tmp_path / f"{name}.safetensors")


def test_metadata_comes_back(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"a": torch.tensor([1, 2])}, {"identity": "x"})
    tensors, metadata = load_weights_and_metadata(tmp_path / "w.safetensors")
    assert tensors["a"].tolist() == [1, 2]
    assert metadata == {"identity": "x"}


def test_the_type_of_floating_numbers_is_read_from_the_header(tmp_path: Path) -> None:
    for kind, expected in ((torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float32, "F32"), (None, None)):
        positions = {"positions": torch.arange(3)}
        weights = {} if kind is None else {"weight": torch.ones(2, dtype=kind)}
        save_weights(tmp_path / "w.safetensors", positions | weights)
        assert floating_dtype(tmp_path / "w.safetensors") == expected
