"""The count of a transformer's arithmetic, by hand."""

from __future__ import annotations

from types import SimpleNamespace

from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from ranksaga.encode.flops import ForwardFlops


def test_a_small_bert_by_hand() -> None:
    config = BertConfig(vocab_size=100, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    flops = ForwardFlops(SimpleNamespace(auto_model=BertModel(config)))
    weights = 3 * (4 * 8 * 8 + 2 * 8 * 32)  # queries, keys, values, output; up and down; no pooler
    assert flops([5]) == 2 * weights * 5 + 3 * 4 * 8 * 5 * 5
    assert flops([5, 7]) == flops([5]) + flops([7])


def test_a_small_gpt2_by_hand() -> None:
    flops = ForwardFlops(SimpleNamespace(auto_model=GPT2Model(GPT2Config(vocab_size=9, n_embd=8, n_layer=3, n_head=2))))
    weights = 3 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 32)
    assert flops([5]) == 2 * weights * 5 + 3 * 4 * 8 * 5 * 5


def test_a_module_of_unknown_shape_counts_nothing() -> None:
    assert ForwardFlops(SimpleNamespace())([5]) == 0
