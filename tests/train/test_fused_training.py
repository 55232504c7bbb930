"""The fused training pass against the library's own: the same vectors and the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ranksaga.config.training import Labelled
from ranksaga.kernels.available import compiled_kernels
from ranksaga.train import embed
from ranksaga.train.embed import Embedder
from ranksaga.train.fused_training import fuse_training

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

pytestmark = pytest.mark.skipif(
    compiled_kernels() is None, reason="no kernels: no compiler at the installation, or no AVX-512 BF16"
)
QUERIES = ["word1 word2", "word3 word4 word5 word6 word7"]
DOCUMENTS = ["word8 word9 word10 word11", "word12", "word1 word13 word14"]


def gradients(model: SentenceTransformer, precision: str) -> tuple[torch.Tensor, dict[str, torch.Tensor], bool]:
    """Vectors, gradients of a loss that weighs them all differently, and whether the fused pass gave them."""
    import torch

    embedder = Embedder(model, ("", ""), max_length=32, precision=precision)
    passes = embedder.passes(QUERIES, DOCUMENTS)
    vectors = torch.cat([embedder.forward(part) for part in passes])
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    model.zero_grad()
    torch.autograd.backward((vectors * weights).sum())
    found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return vectors.detach(), found, embedder._fused[0] is not None


@pytest.mark.parametrize("budget", [2048, 12])
def test_vectors_and_gradients_are_those_of_the_library(
    budget: int, tiny: Callable[[], SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(embed, "FUSED_BUDGET", budget)
    model = tiny().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6))
    vectors, expected, used = gradients(model, "fp32")
    assert not used
    close, found, used = gradients(model, "bf16")
    assert used
    passes = Embedder(model, ("", ""), max_length=32, precision="bf16").passes(QUERIES, DOCUMENTS)
    assert [part.load for part in passes] == ([25] if budget == 2048 else [12, 6, 7])
    assert float((vectors * close).sum(dim=1).min()) > 0.9995
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient.norm() < 1e-4:  # a key's bias moves all scores of a query alike: its gradient is rounding
            continue
        alike = torch.nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
        assert float(alike) > 0.99, name
        assert float(found[name].norm() / gradient.norm()) == pytest.approx(1.0, abs=0.05), name


def test_a_width_that_the_kernels_do_not_take_keeps_the_other_path(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertConfig, BertModel

    monkeypatch.setattr("ranksaga.train.fused_training.fuse", lambda _: "encoding knows no such limit")
    shape: dict[str, Any] = {
        "vocab_size": 50,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    for width, fused in ((32, True), (40, False)):
        model: Any = BertModel(BertConfig(hidden_size=width, **shape), add_pooling_layer=False)
        model.eval()
        assert (fuse_training([SimpleNamespace(auto_model=model)]) is not None) == fused


def test_weights_that_are_not_float32_keep_the_other_path(tiny: Callable[[], SentenceTransformer]) -> None:
    model = tiny().eval()
    assert fuse_training(list(model)) is not None
    assert fuse_training(list(model.bfloat16())) is None


def test_a_padding_in_a_text_teaches_its_own_vector_nothing(tiny: Callable[[], SentenceTransformer]) -> None:
    import torch

    model = tiny().eval()
    embedder = Embedder(model, ("", ""), max_length=32, precision="bf16")
    (part,) = embedder.passes(["word1 [PAD] word2"], [])
    assert 0 in part.tokens[0]
    torch.autograd.backward(embedder.forward(part).sum())
    weights = model[0].auto_model.embeddings.word_embeddings.weight
    assert weights.grad[0].norm() == 0
    assert weights.grad.norm() > 0


def test_a_changed_weight_is_packed_again(tiny: Callable[[], SentenceTransformer]) -> None:
    import torch

    model = tiny().eval()
    embedder = Embedder(model, ("", ""), max_length=32, precision="bf16")
    (part,) = embedder.passes(QUERIES, [])
    before = embedder.forward(part).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = embedder.forward(part).detach()
    fresh = Embedder(model, ("", ""), max_length=32, precision="bf16").forward(part).detach()
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, fresh, atol=0, rtol=0)


def test_training_goes_through_it_and_ends_near_the_other_path(
    tiny: Callable[[], SentenceTransformer], small: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ranksaga.train.trainer import train

    pairs = small.word_pairs()  # type: ignore[attr-defined]
    settings = Labelled(epochs=2, learning_rate=1e-3, batch_size=8)

    def losses(folder: str) -> tuple[float, ...]:
        return train(
            tiny(),
            [pairs],
            settings,
            query_prompt="",
            document_prompt="",
            max_length=32,
            precision="bf16",
            seed=0,
            folder=tmp_path / folder,
        ).losses

    fused = losses("fused")
    monkeypatch.setattr(embed, "fuse_training", lambda _: None)
    assert losses("plain") == pytest.approx(fused, rel=0.02)
    assert fused[1] < fused[0]
