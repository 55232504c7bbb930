"""An encoder's identity moves exactly where sentence-transformers' own vectors or scores move."""

from __future__ import annotations

import copy
import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import CTRLConfig, CTRLModel, Qwen3Config, Qwen3Model

from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.models import load_model, revision_of
from ranksaga.encode.towers import in_two_towers
from ranksaga.errors import ModelError

MODELS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_models.py"))))
TEXTS = ["the fox", "a Fox the dog a cat the short text a dog the cat the dog", "dog"]
Change = Callable[[Path], object]


def identity(folder: Path, **options: Any) -> str:
    return load_encoder(str(folder), precision="fp32", **options).spec.identity


def scores(folder: Path, **options: Any) -> list[np.ndarray]:
    """Vectors of queries and of documents, and how alike they are, all as sentence-transformers says."""
    model = SentenceTransformer(str(folder), device="cpu", **options)
    queries, documents = model.encode_query(TEXTS), model.encode_document(TEXTS)
    return [queries, documents, model.similarity(queries, documents).numpy()]


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b, atol=1e-6) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(MODELS.save_tiny(tmp_path_factory.mktemp("identity") / "tiny"))


@pytest.fixture(scope="module")
def before(tiny: Path) -> tuple[list[np.ndarray], str]:
    """Scores and identity of the unchanged model."""
    return scores(tiny), identity(tiny)


def config(**values: Any) -> Change:
    return lambda folder: MODELS.edit_json(folder / "config.json", lambda one: one.update(values))


def tokenizer_file(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda folder: MODELS.edit_json(folder / "tokenizer.json", change)


def settings(file: str, **values: Any) -> Change:
    return lambda folder: MODELS.edit_json(folder / file, lambda one: one.update(values))


def swap_words(values: dict[str, Any]) -> None:
    words = values["model"]["vocab"]
    words["fox"], words["dog"] = words["dog"], words["fox"]


def one_weight(file: str) -> Change:
    def change(folder: Path) -> None:
        MODELS.edit_weights(
            folder / file, lambda weights: {key: value + (value.dim() > 1) for key, value in weights.items()}
        )

    return change


def without_last_module(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:-1]))


def of_lengths_too(folder: Path) -> None:
    without_last_module(folder)
    settings("config_sentence_transformers.json", similarity_fn_name="dot")(folder)


def move_pooling(folder: Path) -> None:
    (folder / "1_Pooling").rename(folder / "pooled")
    text = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(text.replace("1_Pooling", "pooled"))


def in_shards(folder: Path) -> None:
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="4KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def in_half_the_bytes(folder: Path) -> None:
    """Numbers that bfloat16 holds, stored as float32."""
    MODELS.edit_weights(
        folder / "model.safetensors", lambda w: {key: value.bfloat16().float() for key, value in w.items()}
    )


MOVES: dict[str, Change] = {
    "weights": one_weight("model.safetensors"),
    "weights rounded": in_half_the_bytes,
    "dense weights": one_weight("2_Dense/model.safetensors"),
    "layer norm": config(layer_norm_eps=1e-2),
    "activation": config(hidden_act="relu"),
    "heads": config(num_attention_heads=4),
    "vocabulary": tokenizer_file(swap_words),
    "normaliser": tokenizer_file(lambda values: values["normalizer"]["normalizers"].append({"type": "Lowercase"})),
    "special tokens": tokenizer_file(lambda values: values["post_processor"]["single"].pop()),
    "tokenizer's limit": settings("tokenizer_config.json", model_max_length=6),
    "padding side": settings("tokenizer_config.json", padding_side="left"),
    "truncation side": settings("tokenizer_config.json", truncation_side="left"),
    "sentence limit": settings("sentence_bert_config.json", max_seq_length=6),
    "lower case": settings("sentence_bert_config.json", do_lower_case=True),
    "pooling": settings("1_Pooling/config.json", pooling_mode="cls"),
    "prompt out of the pooling": settings("1_Pooling/config.json", include_prompt=False),
    "dense activation": settings("2_Dense/config.json", activation_function="torch.nn.modules.activation.ReLU"),
    "modules": without_last_module,
    "query prompt": settings("config_sentence_transformers.json", prompts={"query": "the ", "document": ""}),
    "document prompt": settings("config_sentence_transformers.json", prompts={"query": "query ", "document": "a "}),
    "similarity": of_lengths_too,
    "truncation": settings("config_sentence_transformers.json", truncate_dim=4),
}
STAYS: dict[str, Change] = {
    "card": lambda folder: (folder / "README.md").write_text("---\ntags: [x]\n---\nAnother card"),
    "another file": lambda folder: (folder / "notes.txt").write_text("x"),
    "where it came from": config(_name_or_path="/home/me/x", transformers_version="4.1.0", architectures=["BertForX"]),
    "what initialised it": config(initializer_range=0.5),
    "labels of a head": config(id2label={"0": "a", "1": "b"}),
    "last truncation": tokenizer_file(
        lambda values: values.update(
            truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
        )
    ),
    "indentation": lambda folder: (folder / "config.json").write_text(
        json.dumps(json.loads((folder / "config.json").read_text()), indent=9)
    ),
    "a module's folder": move_pooling,
    "shards": in_shards,
}


@pytest.mark.parametrize("name", [*MOVES, *STAYS])
def test_identity_moves_exactly_where_vectors_move(
    name: str, before: tuple[list[np.ndarray], str], tiny: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(tiny, tmp_path / "changed"))
    ({**MOVES, **STAYS}[name])(changed)
    assert equal(scores(changed), before[0]) == (name in STAYS)
    assert (identity(changed) == before[1]) == (name in STAYS)


def test_pickled_weights_are_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    pickled = Path(shutil.copytree(tiny, tmp_path / "pickled"))
    for file in list(pickled.rglob("model.safetensors")):
        torch.save(load_file(file), file.with_name("pytorch_model.bin"))
        file.unlink()
    assert identity(pickled, allow_pickle=True) == identity(tiny)


def test_a_limit_that_the_user_sets_replaces_the_models(tiny: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(tiny, tmp_path / "changed"))
    settings("sentence_bert_config.json", max_seq_length=10)(changed)
    assert identity(changed, max_length=6) == identity(tiny, max_length=6)


def test_rotary_positions_count(tmp_path: Path) -> None:
    folder = MODELS.save_transformer(
        tmp_path / "qwen3", Qwen3Model(Qwen3Config(**MODELS.SIZES, num_key_value_heads=1, head_dim=8))
    )
    before, vectors = identity(folder), scores(folder)
    MODELS.edit_json(folder / "config.json", lambda one: one["rope_parameters"].update(rope_theta=50.0))
    assert not equal(scores(folder), vectors)
    assert identity(folder) != before


def test_a_tokenizer_in_python_counts_with_its_merges(tmp_path: Path) -> None:
    from transformers import CTRLTokenizer

    words = ["<unk>", *"abcdefghijklmnopqrstuvwxyz", "th@@", "he</w>", *[f"{letter}</w>" for letter in "abcdefghijkl"]]
    words += [f"{letter}@@" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["t@@he", "he", "fo@@", "x"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nf o\nextra line\n")
    tokenizer = CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), pad_token="<unk>")  # type: ignore[no-untyped-call]
    sizes: dict[str, Any] = {"n_embd": 16, "dff": 32, "n_layer": 1, "n_head": 2, "n_positions": 40}
    network = CTRLModel(CTRLConfig(vocab_size=len(words), **sizes))
    folder = MODELS.save_transformer(tmp_path / "ctrl", network, tokenizer)
    assert not load_model(str(folder)).tokenizer.is_fast
    before, vectors = identity(folder), scores(folder)
    merges = folder / "merges.txt"
    merges.write_text(merges.read_text().replace("t h", "h e"))
    assert not equal(scores(folder), vectors)
    assert identity(folder) != before


MODELING = """
from transformers import BertConfig, BertModel
from .scale import FACTOR

class ScaledConfig(BertConfig):
    model_type = "scaled"

class ScaledModel(BertModel):
    config_class = ScaledConfig

    def forward(self, *values, **options):
        output = super().forward(*values, **options)
        output.last_hidden_state = output.last_hidden_state[..., :8].repeat(1, 1, 2) ** FACTOR
        return output
"""


def own_code_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for models' code, which Python does not look for where an earlier test has kept its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


def test_code_that_comes_with_a_model_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_code_cache(tmp_path, monkeypatch)
    folder = MODELS.save_tiny(tmp_path / "scaled")
    (folder / "modeling.py").write_text(MODELING)
    (folder / "scale.py").write_text("FACTOR = 1\n")
    (folder / "unused.py").write_text("")
    names = {"AutoConfig": "modeling.ScaledConfig", "AutoModel": "modeling.ScaledModel"}
    config(model_type="scaled", auto_map=names)(folder)
    for flag in ("--trust-remote-code", "trust_remote_code: true"):
        with pytest.raises(ModelError, match=flag):
            load_model(str(folder))
    before = identity(folder, trust_remote_code=True)
    vectors = scores(folder, trust_remote_code=True)
    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    (elsewhere / "unused.py").write_text("FACTOR = 7\n")
    assert identity(elsewhere, trust_remote_code=True) == before
    (elsewhere / "scale.py").write_text("FACTOR = 3\n")
    assert not equal(scores(elsewhere, trust_remote_code=True), vectors)
    assert identity(elsewhere, trust_remote_code=True) != before


@pytest.mark.parametrize("two", [False, True])
def test_a_model_in_memory_is_what_it_will_be_when_saved(two: bool, tiny: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny))
    model = in_two_towers(model) if two else model
    first = revision_of(model)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)  # as a training does
    tuned = revision_of(model)
    assert tuned != first
    assert revision_of(copy.deepcopy(model)) == tuned
    model.save_pretrained(str(tmp_path / "saved"))
    assert revision_of(load_model(str(tmp_path / "saved"))) == tuned


def test_what_a_tokenizer_was_last_asked_for_does_not_count(tiny: Path) -> None:
    model = load_model(str(tiny))
    before = revision_of(model)
    model.tokenizer(TEXTS, truncation=True, max_length=4, padding="max_length")
    assert revision_of(model) == before


def test_both_towers_tokenizers_count(tiny: Path) -> None:
    model = in_two_towers(load_model(str(tiny)))
    before = revision_of(model)
    model[0].sub_modules["document"][0].tokenizer.backend_tokenizer.normalizer = None
    assert revision_of(model) != before


POOLING = """
from sentence_transformers.sentence_transformer.modules import Pooling

class LastPooling(Pooling):
    def forward(self, features, **options):
        output = super().forward(features, **options)
        output["sentence_embedding"] = output["sentence_embedding"] + features["token_embeddings"][:, SHOWN]
        return output
"""


def test_a_module_that_comes_with_a_model_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_code_cache(tmp_path, monkeypatch)
    folders: list[Path] = []
    for shown in ("0", "1"):
        folder = MODELS.save_tiny(tmp_path / f"with {len(folders)}")
        (folder / "last.py").write_text(POOLING.replace("SHOWN", shown))
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["type"] = "last.LastPooling"
        (folder / "modules.json").write_text(json.dumps(modules))
        folders.append(folder)
    with pytest.raises(ModelError, match="--trust-remote-code"):
        load_model(str(folders[0]))
    first, second = (identity(folder, trust_remote_code=True) for folder in folders)
    assert not equal(*(scores(folder, trust_remote_code=True) for folder in folders))
    assert first != second
