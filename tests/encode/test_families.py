"""Every kind of model folder: vectors and scores of plain sentence-transformers, or one line that says no."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.encode.saving import save_model, tower_models
from ranksaga.encode.towers import in_two_towers
from ranksaga.errors import ModelError

pytestmark = pytest.mark.slow  # a model of every kind

RNG = np.random.default_rng(0)
# Short ones, and some that are longer than any of the models reads.
TEXTS = [" ".join(f"word{number}" for number in RNG.integers(0, 40, count)) for count in (1, 3, 45, 12, 60, 7)]
TEXTS.append("Word1 word2 unknown")

POOLINGS = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "cls+mean")
TRAINED = [
    *("Bert", "XLMRoberta", "MPNet", "Roberta", "DistilBert", "DebertaV2", "ModernBert", "Albert", "Gemma3Text"),
    *("t5", "gemma", "qwen3", "chat", "left-leaving", "query-length", "text-length", "lower-case"),
    *("dense-normalize", "normalize-dense", "layer-norm", "token-dense", "layers", "normalize-dense dot", "t5 dot"),
    *("router", "router-deep", "router-second", "router-last", "router-lengths", "router-strict", "router-mapped"),
    *("router-one", "truncated cosine", "truncated dot", "truncated cosine normalize", "truncated dot normalize"),
    *(f"pooling {mode}" for mode in POOLINGS),
    *(f"leaving {mode}" for mode in POOLINGS),
]
SCORED_ONLY = ("gpt2", "cnn", "words", "words-lstm", "words-cnn", "static", "clip", "router-static")
SHIPPED = [
    *("Bert", "t5", "chat", "left-leaving", "query-length", "lower-case", "normalize-dense dot", "router-second"),
    *("router-last", "router-lengths", "router-mapped", "truncated dot", "truncated cosine normalize"),
    "leaving weightedmean",
]


def plain_scores(model: Any, texts: list[str] = TEXTS) -> Any:
    """(queries, documents) similarities by the library, every text encoded by itself."""
    vectors = [
        encode(texts, batch_size=1, convert_to_tensor=True) for encode in (model.encode_query, model.encode_document)
    ]
    return model.similarity(*(one.float() for one in vectors)).numpy()


def scores(encoder: Encoder, texts: list[str] = TEXTS) -> Any:
    return encoder.encode_queries(texts) @ encoder.encode_documents(texts).T


def plain(folder: Path, **options: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", **options)


def ours(folder: Path, **options: Any) -> Encoder:
    return load_encoder(str(folder), precision="fp32", device="cpu", **options)


def moved(encoder: Encoder, *, split: bool) -> Encoder:
    """The same model with other weights, as if trained."""
    import torch

    model = in_two_towers(encoder.model) if split else copy.deepcopy(encoder.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return encoder.with_model(model)


def ship(encoder: Encoder, folder: Path) -> Path:
    prompts = encoder.spec.prompts
    folder.mkdir()
    save_model(encoder.model, folder, {"query": prompts.query, "document": prompts.document}, encoder.spec.max_length)
    return folder


def near(expected: Any) -> dict[str, Any]:
    """What float32 allows."""
    return {"rtol": 1e-5, "atol": 2e-6 * max(1.0, float(np.abs(expected).max()))}


@pytest.mark.parametrize("name", TRAINED)
def test_scores_are_those_of_the_library(families: SimpleNamespace, tmp_path: Path, name: str) -> None:
    folder = families.supported(name, tmp_path)
    encoder, expected = ours(folder), plain_scores(plain(folder))
    np.testing.assert_allclose(scores(encoder), expected, **near(expected))
    assert np.ptp(expected) > 0.05  # or nothing would be tested
    for split in (False, True):
        encoder.check_trainable(two_towers=split)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("split", [False, True])
def test_what_is_shipped_scores_as_it_was_measured(
    families: SimpleNamespace, tmp_path: Path, name: str, split: bool
) -> None:
    folder = families.supported(name, tmp_path)
    base, tuned = plain(folder), moved(ours(folder), split=split)
    shipped = plain(ship(tuned, tmp_path / "shipped"))
    measured = scores(tuned)
    assert np.abs(measured - plain_scores(base)).max() > 1e-2
    np.testing.assert_allclose(measured, plain_scores(shipped), **near(measured))
    assert shipped.similarity_fn_name == base.similarity_fn_name
    assert shipped.truncate_dim == base.truncate_dim
    assert shipped.prompts == base.prompts
    assert shipped.max_seq_length == base.max_seq_length
    for task, tower in tower_models(tuned.model).items():
        alone = plain(ship(tuned.with_model(tower), tmp_path / task))
        expected = tuned.encode_queries(TEXTS) if task == "query" else tuned.encode_documents(TEXTS)
        made = alone.encode(TEXTS, normalize_embeddings=tuned.spec.similarity == "cosine")
        np.testing.assert_allclose(made, expected, **near(expected))


@pytest.mark.parametrize("name", SCORED_ONLY)
def test_what_cannot_learn_is_scored(families: SimpleNamespace, tmp_path: Path, name: str) -> None:
    folder = families.supported(name, tmp_path)
    encoder = ours(folder)
    np.testing.assert_allclose(scores(encoder), plain_scores(plain(folder)), rtol=1e-5, atol=2e-6)
    with pytest.raises(ModelError, match=r"this model cannot be trained \(.*\); it can be benchmarked"):
        encoder.check_trainable(two_towers=True)
    shipped = ship(encoder, tmp_path / "shipped")  # where training is not asked, or no candidate was better
    np.testing.assert_allclose(scores(encoder), plain_scores(plain(shipped)), rtol=1e-5, atol=2e-6)


def test_vectors_do_not_depend_on_their_batch(families: SimpleNamespace, tmp_path: Path) -> None:
    encoder = ours(families.supported("gpt2", tmp_path))  # positions are counted from the padding, by the library too
    alone = np.concatenate([encoder.encode_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), alone, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"similarity_fn_name": "euclidean"}, "its similarity is euclidean; supported are cosine and dot"),
        ({"similarity_fn_name": "manhattan"}, "its similarity is manhattan; supported are cosine and dot"),
        ({"model_type": "SparseEncoder"}, "this is a SparseEncoder; expected a SentenceTransformer"),
        ({"model_type": "MultiVectorEncoder"}, "this is a MultiVectorEncoder; expected a SentenceTransformer"),
        ({"model_type": "CrossEncoder"}, "this is a CrossEncoder; expected a SentenceTransformer"),
    ],
)
def test_another_kind_of_model_or_score_is_refused(
    families: SimpleNamespace, tmp_path: Path, change: dict[str, str], line: str
) -> None:
    folder = families.save(tmp_path, families.pooled(families.bert(tmp_path)))
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=line) as caught:
        ours(folder)
    assert "\n" not in str(caught.value)


def test_routes_that_cannot_be_compared_are_refused(families: SimpleNamespace, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Router

    short = [*families.pooled(families.bert(tmp_path)), families.dense(8)]
    folder = families.save(tmp_path, [families.router(short, families.pooled(families.bert(tmp_path)))])
    with pytest.raises(ModelError, match="8 dimensions for queries and 16 for documents"):
        ours(folder)
    other = tmp_path / "other"
    other.mkdir()
    routes = {"left": families.pooled(families.bert(other)), "right": families.pooled(families.bert(other))}
    with pytest.raises(ModelError, match="routes left, right; expected a route for each of query and document"):
        ours(families.save(other, [Router(routes)]))


def test_what_the_library_cannot_encode_is_refused(families: SimpleNamespace, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import LSTM, Pooling

    folder = families.save(tmp_path, [families.bert(tmp_path), LSTM(16, 8), Pooling(16)])
    with pytest.raises(ModelError, match="sentence-transformers itself cannot encode with this model") as caught:
        ours(folder)
    assert "\n" not in str(caught.value)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ModelError, match="the tokenizer does not have a padding token"):
        ours(families.save(other, families.last_token(other, pad=False)))


def test_a_length_is_no_longer_than_the_table_of_positions(families: SimpleNamespace, tmp_path: Path) -> None:
    long = families.transformer(tmp_path, "Roberta", {"pad_token_id": 0}, load={"max_seq_length": 500})
    folder = families.save(tmp_path, families.pooled(long))
    encoder = ours(folder)
    assert encoder.spec.max_length == 39  # of 40, one is before the first
    cut = plain(folder)
    cut.max_seq_length = 39
    np.testing.assert_allclose(scores(encoder), plain_scores(cut), atol=2e-6)
    assert plain(ship(encoder, tmp_path / "shipped")).max_seq_length == 39


def test_a_length_that_is_asked_for_is_that_of_the_shipped_model(families: SimpleNamespace, tmp_path: Path) -> None:
    encoder = ours(families.supported("router-lengths", tmp_path), max_length=12)
    assert encoder.spec.max_length == 12  # queries keep their 9
    shipped = plain(ship(encoder, tmp_path / "shipped"))
    np.testing.assert_allclose(scores(encoder), plain_scores(shipped), atol=2e-6)
    with pytest.raises(ModelError, match="StaticEmbedding reads whole texts and truncates none; leave it out"):
        ours(families.supported("static", tmp_path / "static"), max_length=12)


def test_prompts_of_the_base_and_its_default_are_kept(families: SimpleNamespace, tmp_path: Path) -> None:
    prompts = {**families.PROMPTS, "web": "search : "}
    modules = families.pooled(families.bert(tmp_path))
    folder = families.save(tmp_path, modules, prompts=prompts, default_prompt_name="web")
    encoder = ours(folder, query_prompt="a : ")
    for split in (False, True):
        shipped = plain(ship(moved(encoder, split=split), tmp_path / f"shipped-{split}"))
        assert shipped.prompts == {**prompts, "query": "a : "}
        assert shipped.default_prompt_name == "web"


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("split", [False, True])
def test_half_precision_stays_and_scores_are_those_of_the_rounded_weights(
    families: SimpleNamespace, tmp_path: Path, kind: str, split: bool
) -> None:
    import torch

    modules = families.pooled(families.bert(tmp_path))
    modules[0].auto_model.to(getattr(torch, kind))
    folder = families.save(tmp_path, modules)
    encoder = ours(folder)
    tuned = moved(encoder, split=split)
    shipped = ship(tuned, tmp_path / "shipped")
    model = plain(shipped)
    assert {str(one.dtype) for one in model.parameters()} == {f"torch.{kind}"}
    np.testing.assert_array_equal(scores(tuned), scores(ours(shipped)))
    full = plain(shipped, model_kwargs={"dtype": torch.float32})
    np.testing.assert_allclose(scores(tuned), plain_scores(full), atol=2e-6)
    np.testing.assert_allclose(scores(tuned), plain_scores(model), atol=2e-2)  # it computes in half precision, too
    sizes = [sum(path.stat().st_size for path in one.rglob("*.safetensors")) for one in (folder, shipped)]
    assert sizes[1] == pytest.approx((1 + split) * sizes[0], rel=0.01)
    assert all(one.dtype == torch.float32 for one in tuned.model.parameters())


MODEL_CODE = {
    "configuration_mine.py": """
from transformers import BertConfig
class MineConfig(BertConfig):
    model_type = "mine"
""",
    "modeling_mine.py": """
from transformers import BertModel
from .configuration_mine import MineConfig
class MineModel(BertModel):
    config_class = MineConfig
""",
}
MODULE_CODE = """
from sentence_transformers.base.modules import Module
class Scale(Module):
    config_keys = ["by"]
    config_file_name = "scale.json"
    def __init__(self, by):
        super().__init__()
        self.by = by
    def forward(self, features):
        features["sentence_embedding"] = features["sentence_embedding"].clone()
        features["sentence_embedding"][:, :8] *= self.by
        return features
    def save(self, output_path, *args, **options):
        self.save_config(output_path)
"""


def with_model_code(families: SimpleNamespace, folder: Path) -> Path:
    """A bare transformers folder with a model class of its own."""
    families.bert(folder)
    bare = next(folder.glob("Bert-*"))
    config = json.loads((bare / "config.json").read_text())
    config |= {"model_type": "mine", "architectures": ["MineModel"]}
    config["auto_map"] = {"AutoConfig": "configuration_mine.MineConfig", "AutoModel": "modeling_mine.MineModel"}
    (bare / "config.json").write_text(json.dumps(config))
    for name, code in MODEL_CODE.items():
        (bare / name).write_text(code)
    return bare


def with_module_code(families: SimpleNamespace, folder: Path) -> Path:
    """A sentence-transformers folder with a module of its own behind the pooling."""
    model: Path = families.save(folder, families.pooled(families.bert(folder)))
    modules = json.loads((model / "modules.json").read_text())
    (model / "2_Scale").mkdir()
    (model / "2_Scale" / "scale.json").write_text('{"by": 3.0}')
    (model / "scaling.py").write_text(MODULE_CODE)
    modules.append({"idx": 2, "name": "2", "path": "2_Scale", "type": "scaling.Scale"})
    (model / "modules.json").write_text(json.dumps(modules))
    return model


@pytest.mark.parametrize("build", [with_model_code, with_module_code])
@pytest.mark.parametrize("split", [False, True])
def test_code_that_a_model_brings_is_shipped(
    families: SimpleNamespace, tmp_path: Path, build: Any, split: bool
) -> None:
    folder = build(families, tmp_path)
    encoder = ours(folder, trust_remote_code=True)
    np.testing.assert_allclose(scores(encoder), plain_scores(plain(folder, trust_remote_code=True)), atol=2e-6)
    tuned = moved(encoder, split=split)
    shipped = ship(tuned, tmp_path / "shipped")
    shutil.rmtree(folder)
    np.testing.assert_allclose(scores(tuned), plain_scores(plain(shipped, trust_remote_code=True)), atol=2e-6)
    for task, tower in tower_models(tuned.model).items():
        plain(ship(tuned.with_model(tower), tmp_path / task), trust_remote_code=True)


@pytest.mark.parametrize(("bias", "said"), [(-1e9, "its vectors are all zero"), (float("inf"), "are not finite")])
def test_a_model_that_ranks_nothing_is_refused(
    families: SimpleNamespace, tmp_path: Path, bias: float, said: str
) -> None:
    """Weights of which none is all zero, and vectors that are, or are no numbers."""
    import torch
    from sentence_transformers import SentenceTransformer

    modules = [*families.pooled(families.bert(tmp_path)), families.dense(6, activation_function=torch.nn.ReLU())]
    model = SentenceTransformer(str(families.save(tmp_path, modules)), device="cpu")
    with torch.no_grad():
        model[2].linear.bias.fill_(min(bias, 3e38))
        model[2].linear.weight.mul_(1.0 if bias < 0 else 1e38)
    model.save(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=said) as caught:
        ours(tmp_path / "empty")
    assert str(tmp_path / "empty") in str(caught.value)
    assert "\n" not in str(caught.value)
