"""Low-rank updates: only the linear layers move, by a product of that rank, and files look as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ranksaga.config.training import Lora, Training
from ranksaga.encode.weight_files import load_weights
from ranksaga.train.lora import add_low_rank, merge_low_rank, plain_state
from ranksaga.train.trainer import TrainingResult, train

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Load = Callable[[], "SentenceTransformer"]
RANK = 2


def run(model: SentenceTransformer, source: Any, settings: Training, folder: Path, **changes: Any) -> TrainingResult:
    fixed: dict[str, Any] = {
        "query_prompt": "",
        "document_prompt": "",
        "max_length": 32,
        "precision": "fp32",
        "seed": 3,
    }
    return train(model, [source], settings, folder=folder, **fixed, **changes)


def test_an_update_is_alpha_over_rank_times_the_product() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(5, 3))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    add_low_rank([layer], Lora(rank=RANK, alpha=6.0), seed=0)
    text = torch.randn(4, 5)
    assert torch.equal(layer(text), text @ before["0.weight"].T + before["0.bias"])  # nothing at first
    trainable = {name: tensor.shape for name, tensor in layer.named_parameters() if tensor.requires_grad}
    assert sorted(trainable.values()) == [(2, 5), (3, 2)]
    update: Any = layer[0].parametrizations.weight[0]  # type: ignore[union-attr,index]
    with torch.no_grad():
        update.up.copy_(torch.ones(3, RANK))
    expected = before["0.weight"] + 3.0 * torch.ones(3, RANK) @ update.down
    assert torch.allclose(plain_state(layer)["0.weight"], expected)
    assert plain_state(layer).keys() == before.keys()
    merge_low_rank(layer)
    assert type(layer[0]) is torch.nn.Linear
    assert torch.allclose(layer.state_dict()["0.weight"], expected)


def test_training_moves_linear_layers_by_that_rank_and_nothing_else(
    small: SimpleNamespace, tiny: Load, tmp_path: Path
) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = small.settings(epochs=3, learning_rate=1e-2, weight_decay=0.0, lora={"rank": RANK})
    result = run(model, small.word_pairs(), settings, tmp_path)
    assert result.losses[-1] < 0.9 * result.losses[0]
    after = load_weights(result.epochs[-1])
    assert after.keys() == before.keys()
    linear = {f"{name}.weight" for name, one in tiny().named_modules() if isinstance(one, torch.nn.Linear)}
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert moved <= linear
    for name in moved:
        change = (after[name] - before[name]).double().numpy()
        sizes = np.linalg.svd(change, compute_uv=False)
        assert sizes[RANK] < 1e-5 * sizes[0], name
        assert torch.equal(model.state_dict()[name], after[name])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_killed_training_ends_in_the_same_weights(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    settings = small.settings(epochs=2, learning_rate=1e-2, lora={"rank": RANK})
    whole = run(tiny(), small.word_pairs(), settings, tmp_path / "whole")

    def stop(*, step: int, **_: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), small.word_pairs(), settings, tmp_path / "cut", progress=stop, checkpoint_seconds=0.0)
    assert list((tmp_path / "cut").glob("checkpoint-*"))
    again = run(tiny(), small.word_pairs(), settings, tmp_path / "cut")
    expected = load_weights(whole.epochs[-1])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_weights(again.epochs[-1]).items())
