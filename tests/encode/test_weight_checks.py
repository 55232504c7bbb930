"""Weights that do not fit their architecture are refused by name; what a file may lack or have more is not."""

from __future__ import annotations

import runpy
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.models import assumed_pooling, load_model, revision_of
from ranksaga.encode.towers import in_two_towers
from ranksaga.errors import ModelError

MODELS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_models.py"))))
SIZES = MODELS.SIZES
KEYS = {**SIZES, "num_key_value_heads": 1, "head_dim": 8}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 20}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 20, "max_position_embeddings": 40}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
# The class that wrote the file, its config, and a tensor of its second layer.
RIGHT: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "BERT": ("BertModel", "BertConfig", SIZES, "encoder.layer.1.output.dense.weight"),
    "BERT from its pretraining": (
        "BertForPreTraining",
        "BertConfig",
        SIZES,
        "bert.encoder.layer.1.output.dense.weight",
    ),
    "BERT without pooler": ("BertForMaskedLM", "BertConfig", SIZES, "bert.encoder.layer.1.output.dense.weight"),
    "RoBERTa": ("RobertaForMaskedLM", "RobertaConfig", SIZES, "roberta.encoder.layer.1.output.dense.weight"),
    "XLM-R": ("XLMRobertaModel", "XLMRobertaConfig", SIZES, "encoder.layer.1.output.dense.weight"),
    "DistilBERT": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        DISTIL,
        "distilbert.transformer.layer.1.ffn.lin1.weight",
    ),
    "MPNet": ("MPNetForMaskedLM", "MPNetConfig", SIZES, "mpnet.encoder.layer.1.output.dense.weight"),
    "DeBERTa": ("DebertaV2ForMaskedLM", "DebertaV2Config", SIZES, "deberta.encoder.layer.1.output.dense.weight"),
    "ModernBERT": ("ModernBertForMaskedLM", "ModernBertConfig", SIZES, "model.layers.1.mlp.Wo.weight"),
    "T5 with its decoder": (
        "T5ForConditionalGeneration",
        "T5Config",
        T5,
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
    ),
    "Qwen3, head tied": (
        "Qwen3ForCausalLM",
        "Qwen3Config",
        {**KEYS, "tie_word_embeddings": True},
        "model.layers.1.mlp.up_proj.weight",
    ),
    "Qwen3, head of its own": (
        "Qwen3ForCausalLM",
        "Qwen3Config",
        {**KEYS, "tie_word_embeddings": False},
        "model.layers.1.mlp.up_proj.weight",
    ),
    "Qwen3 with experts": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**KEYS, **EXPERTS},
        "model.layers.1.mlp.experts.2.up_proj.weight",
    ),
    "Gemma3": ("Gemma3TextModel", "Gemma3TextConfig", KEYS, "layers.1.mlp.up_proj.weight"),
    "GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 20, "n_positions": 40},
        "transformer.h.1.mlp.c_fc.weight",
    ),
}


@cache
def saved(name: str) -> tempfile.TemporaryDirectory[str]:
    """The model, saved once; removed when the process ends."""
    folder = tempfile.TemporaryDirectory()
    network, config, sizes, _ = RIGHT[name]
    made = getattr(transformers, network)(getattr(transformers, config)(**sizes))
    MODELS.save_transformer(Path(folder.name), made)
    return folder


def save(name: str, folder: Path) -> Path:
    """A copy of the model, to be changed."""
    return Path(shutil.copytree(saved(name).name, folder))


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.mark.parametrize("name", RIGHT)
def test_right_weights_load_and_are_the_same_at_every_load(name: str, folders: Path) -> None:
    folder = save(name, folders / name)
    model = load_model(str(folder))
    expected = SentenceTransformer(str(folder), device="cpu").encode(["the fox", "a dog"])
    np.testing.assert_allclose(model.encode(["the fox", "a dog"]), expected, atol=1e-6)
    assert revision_of(load_model(str(folder))) == revision_of(model)  # also where the file lacks a pooler


def rename(prefix: str) -> Callable[[dict[str, Any], str], dict[str, Any]]:
    return lambda weights, _: {f"{prefix}{key}": value for key, value in weights.items()}


def without_layer(weights: dict[str, Any], key: str) -> dict[str, Any]:
    layer = key[: key.index(".1.") + 3]
    return {name: value for name, value in weights.items() if not name.startswith(layer)}


def one_layer_more(weights: dict[str, Any], key: str) -> dict[str, Any]:
    before = key[: key.index(".1.")]
    more = {name.replace(f"{before}.1.", f"{before}.2."): value for name, value in weights.items()}
    return {**more, **weights}


def with_nan(weights: dict[str, Any], key: str) -> dict[str, Any]:
    value = weights[key].clone()
    value[0, 0] = float("nan")
    return {**weights, key: value}


FAULTS: dict[str, tuple[Callable[[dict[str, Any], str], dict[str, Any]], str]] = {
    "data parallel": (rename("module."), "missing"),
    "compiled": (rename("_orig_mod."), "missing"),
    "a tensor missing": (lambda w, key: {name: value for name, value in w.items() if name != key}, "missing"),
    "a tensor renamed": (lambda w, key: {name.replace(key, f"{key}s"): value for name, value in w.items()}, "missing"),
    "a layer missing": (without_layer, "missing"),
    "a layer more": (one_layer_more, "no place for"),
    "another shape": (lambda w, key: {**w, key: torch.cat([w[key], w[key]])}, "of another shape"),
    "all zero": (lambda w, key: {**w, key: 0 * w[key]}, "all zero"),
    "NaN": (with_nan, "NaN"),
    "a bias more": (lambda w, key: {**w, key.replace("weight", "extra"): w[key]}, "no place for"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "T5 with its decoder", "Qwen3, head tied", "ModernBERT", "GPT-2"])
def test_weights_that_do_not_fit_are_refused_by_name(name: str, fault: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path / "model")
    change, kind = FAULTS[fault]
    MODELS.edit_weights(folder / "model.safetensors", lambda weights: change(weights, RIGHT[name][3]))
    said = refusal(folder)
    assert kind in said
    assert "tensors" in said
    if fault in ("a tensor missing", "another shape", "all zero", "NaN"):
        assert ".".join(RIGHT[name][3].split(".")[-3:]) in said
        assert " 1 tensors" in said


@pytest.mark.parametrize("fault", ["a tensor missing", "all zero", "NaN"])
def test_one_expert_among_many_counts(fault: str, folders: Path, tmp_path: Path) -> None:
    folder = save("Qwen3 with experts", tmp_path / "model")
    change, _ = FAULTS[fault]
    key = RIGHT["Qwen3 with experts"][3]
    MODELS.edit_weights(folder / "model.safetensors", lambda weights: change(weights, key))
    assert "layers.1.mlp.experts" in refusal(folder)


def test_a_dead_normalisation_is_refused_and_one_that_adds_1_is_not(tmp_path: Path) -> None:
    bert, gemma = save("BERT", tmp_path / "bert"), save("Gemma3", tmp_path / "gemma")
    for folder, key in ((bert, "encoder.layer.1.output.LayerNorm.weight"), (gemma, "norm.weight")):
        MODELS.edit_weights(folder / "model.safetensors", lambda w, key=key: {**w, key: 0 * w[key]})
    assert "1 tensors all zero (encoder.layer.1.output.LayerNorm.weight)" in refusal(bert)
    load_model(str(gemma))


def test_what_no_vector_depends_on_may_be_anything(tmp_path: Path) -> None:
    folder = save("BERT", tmp_path / "model")
    zero = {"pooler.dense.weight": float("nan"), "embeddings.token_type_embeddings.weight": 0.0}
    MODELS.edit_weights(
        folder / "model.safetensors",
        lambda weights: (
            {key: torch.full_like(value, zero[key]) if key in zero else value for key, value in weights.items()}
            | {"embeddings.position_ids": torch.arange(40)[None], "linear.weight": torch.ones(2, 16)}
        ),
    )
    assert np.isfinite(load_model(str(folder)).encode(["the fox"])).all()


def test_shards_and_pickles_are_checked_as_well(tmp_path: Path) -> None:
    key = RIGHT["BERT"][3]
    whole = save("BERT", tmp_path / "whole")
    kept = {name: value for name, value in load_file(whole / "model.safetensors").items() if name != key}
    pickled = Path(shutil.copytree(whole, tmp_path / "pickled"))
    (pickled / "model.safetensors").unlink()
    torch.save(kept, pickled / "pytorch_model.bin")
    assert f"1 tensors missing ({key})" in refusal(pickled, allow_pickle=True)
    assert "--allow-pickle" in refusal(pickled)
    sharded = tmp_path / "shards"
    network = transformers.AutoModel.from_pretrained(whole)
    network.save_pretrained(sharded, max_shard_size="4KB")
    MODELS.tiny_tokenizer().save_pretrained(sharded)
    load_model(str(sharded))
    shard = next(file for file in sharded.glob("*.safetensors") if key in load_file(file))
    MODELS.edit_weights(shard, lambda weights: {**weights, key: weights[key] * float("nan")})
    assert f"1 tensors with NaN or infinite values ({key})" in refusal(sharded)
    shard.unlink()
    assert shard.name in refusal(sharded)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: {"linear.weight": w["linear.weight"]}, "linear.bias"),
        (lambda w: {**w, "linear.weight": w["linear.weight"][:3]}, "linear.weight"),
        (lambda w: {f"module.{key}": value for key, value in w.items()}, "linear.weight"),
        (lambda w: {**w, "linear.weight": 0 * w["linear.weight"]}, "1 tensors all zero (2.linear.weight)"),
        (lambda w: {**w, "linear.bias": w["linear.bias"] * float("inf")}, "NaN or infinite values (2.linear.bias)"),
    ],
)
def test_a_dense_layer_is_checked_as_well(change: Any, said: str, tmp_path: Path) -> None:
    folder = MODELS.save_tiny(tmp_path / "model")
    load_model(str(folder))
    MODELS.edit_weights(folder / "2_Dense" / "model.safetensors", change)
    assert said in refusal(folder)


def test_a_dense_layer_in_a_pickle_needs_the_permission(tmp_path: Path) -> None:
    folder = MODELS.save_tiny(tmp_path / "model")
    before = revision_of(load_model(str(folder)))
    dense = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(dense), dense.with_name("pytorch_model.bin"))
    dense.unlink()
    assert "2_Dense/pytorch_model.bin is a pickle" in refusal(folder)
    assert revision_of(load_model(str(folder), allow_pickle=True)) == before


def test_each_tower_is_checked(tmp_path: Path) -> None:
    two = in_two_towers(load_model(str(MODELS.save_tiny(tmp_path / "one"))))
    two.save_pretrained(str(tmp_path / "two"))
    load_model(str(tmp_path / "two"))
    files = [file for file in (tmp_path / "two").rglob("model.safetensors") if "Transformer" in str(file)]
    assert len(files) == 2
    key = RIGHT["BERT"][3]
    MODELS.edit_weights(files[1], lambda weights: {name: value for name, value in weights.items() if name != key})
    assert f"1 tensors missing ({key})" in refusal(tmp_path / "two")


@pytest.mark.parametrize("name", ["T5 with its decoder", "Qwen3, head tied"])
def test_tying_that_another_load_left_switched_off_is_made_up_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(name, tmp_path / "model")
    expected = load_model(str(folder)).encode(["the fox"])
    revision = revision_of(load_model(str(folder)))
    # What transformers leaves behind where two threads loaded a model at the same time.
    monkeypatch.setattr(transformers.PreTrainedModel, "tie_weights", lambda *_, **__: None)
    model = load_model(str(folder))
    np.testing.assert_array_equal(model.encode(["the fox"]), expected)
    assert revision_of(model) == revision
    MODELS.edit_weights(folder / "model.safetensors", lambda weights: rename("module.")(weights, ""))
    said = refusal(folder)
    assert "tensors missing" in said
    assert "meta tensor" not in said


def test_the_loader_is_left_as_it_was(tmp_path: Path) -> None:
    folder = save("BERT", tmp_path / "model")
    before = transformers.PreTrainedModel.__dict__["from_pretrained"]
    load_model(str(folder))
    MODELS.edit_weights(folder / "model.safetensors", lambda weights: {})
    refusal(folder)
    assert transformers.PreTrainedModel.__dict__["from_pretrained"] is before


def test_a_bare_transformers_pooling_is_said(tmp_path: Path) -> None:
    bert, qwen = save("BERT", tmp_path / "bert"), save("Qwen3, head tied", tmp_path / "qwen")
    tiny = MODELS.save_tiny(tmp_path / "tiny")
    pooling = {folder.name: assumed_pooling(str(folder), load_model(str(folder))) for folder in (bert, qwen, tiny)}
    assert pooling == {"bert": "mean of tokens", "qwen": "last token", "tiny": None}
    spec = load_encoder(str(bert), precision="fp32").spec
    assert str(spec).endswith("; no pooling configuration: mean of tokens")
    load_model(str(bert)).save_pretrained(str(tmp_path / "saved"))
    saved = load_encoder(str(tmp_path / "saved"), precision="fp32").spec
    assert (saved.assumed_pooling, saved.identity) == ("", spec.identity)


@pytest.mark.parametrize("name", ["BERT", "T5 with its decoder"])
def test_tensors_that_the_loader_leaves_without_values_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the model cannot be moved to any device, which says nothing to a user."""
    from transformers import PreTrainedModel

    folder = save(name, tmp_path / "model")
    key = RIGHT[name][3]
    MODELS.edit_weights(folder / "model.safetensors", lambda weights: {k: v for k, v in weights.items() if k != key})
    for step in ("_move_missing_keys_from_meta_to_device", "_initialize_missing_keys"):
        monkeypatch.setattr(PreTrainedModel, step, lambda *_: None)
    said = refusal(folder)
    assert "missing" in said
    assert ".".join(key.split(".")[-3:]) in said
