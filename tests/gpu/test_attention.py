"""No attention by cuDNN on a GPU, in encoding and in training, and torch as it was afterwards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ranksaga.encode.attention import without_cudnn_attention
from ranksaga.encode.engine import Engine
from ranksaga.encode.text_input import TextInput
from ranksaga.train.embed import Embedder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether cuDNN might have computed each attention."""
    seen: list[bool] = []
    flags: Any = torch.backends.cuda
    attention = torch.nn.functional.scaled_dot_product_attention

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.append(flags.cudnn_sdp_enabled())
        return attention(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    return seen


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_encoding_and_training_on_a_gpu_ask_cudnn_for_nothing(
    gpu: Any, small: SimpleNamespace, tiny_folder: Path, asked: list[bool], device: str
) -> None:
    model = small.load(tiny_folder).to(device)
    Engine(model, "fp32", "cosine", TextInput(max_length=32))([[2, 5, 6, 3], [2, 5, 3]])
    count = len(asked)
    embedder = Embedder(model, ("", ""), max_length=32, precision="fp32")
    for part in embedder.passes(["word1 word2"], ["word3"]):
        embedder.forward(part)
    assert 0 < count < len(asked)
    assert set(asked) == {device == "cpu"}
    flags: Any = torch.backends.cuda
    assert flags.cudnn_sdp_enabled()


def test_what_a_user_switched_off_stays_off() -> None:
    flags: Any = torch.backends.cuda
    flags.enable_cudnn_sdp(False)
    flags.enable_flash_sdp(False)
    try:
        with without_cudnn_attention(torch.device("cuda")):
            assert not flags.flash_sdp_enabled()
        assert not flags.cudnn_sdp_enabled()
    finally:
        flags.enable_cudnn_sdp(True)
        flags.enable_flash_sdp(True)
