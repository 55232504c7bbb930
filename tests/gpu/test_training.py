"""Training on a stand-in for a GPU: the CPU's figures, no waiting, few copies, little padding, and memory that ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ranksaga.config.training import Labelled
from ranksaga.encode.memory_budget import kept_bytes
from ranksaga.errors import StageError
from ranksaga.train.batches import Bank, Batch
from ranksaga.train.embed import Embedder, MicroBatch
from ranksaga.train.process_group import ProcessGroup
from ranksaga.train.step import Step
from ranksaga.train.trainer import train


def fit(
    small: SimpleNamespace, model: Any, folder: Path, precision: str = "fp32", **changes: Any
) -> dict[str, torch.Tensor]:
    settings = Labelled(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, **changes})
    train(
        model,
        [small.word_pairs()],
        settings,
        query_prompt="query: ",
        document_prompt="",
        max_length=32,
        precision=precision,
        seed=7,
        folder=folder,
    )
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "loss.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def on_cpu(small: SimpleNamespace, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the ten steps on the CPU."""
    folder = tmp_path_factory.mktemp("cpu")
    fit(small, small.load(tiny_folder), folder)
    return losses(folder)


def test_losses_are_the_cpus_and_no_step_waits(
    gpu: Any, small: SimpleNamespace, tiny_folder: Path, tmp_path: Path, on_cpu: list[float]
) -> None:
    model = small.load(tiny_folder).to("cuda")
    moved = gpu.unpinned
    fit(small, model, tmp_path)
    assert losses(tmp_path) == pytest.approx(on_cpu, abs=1e-4)
    waits = {cause: count for cause, count in gpu.waits.items() if "train/" in cause}
    # Files are written from weights; transformers asks of each mask whether it masks anything. Nothing else waits, but
    # for the loss of each of the ten steps, which is asked for when the next one is under way.
    known = {
        "copy to the CPU at encode/weight_files.py:save_weights",
        "aten::_local_scalar_dense at train/embed.py:forward",
    }
    assert waits.keys() <= known, waits
    assert sum(count for cause, count in gpu.waits.items() if cause.startswith("event")) == 10
    assert gpu.unpinned - moved == 1, "the keys of the weights' fingerprint alone come from memory that is not pinned"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near(
    gpu: Any, small: SimpleNamespace, tiny_folder: Path, tmp_path: Path, precision: str, on_cpu: list[float]
) -> None:
    fit(small, small.load(tiny_folder).to("cuda"), tmp_path, precision)
    # The scaler of fp16 starts too high and leaves the first steps out.
    assert losses(tmp_path) == pytest.approx(on_cpu, abs=0.1 if precision == "bf16" else 0.3)
    assert losses(tmp_path) != on_cpu


class OutOfMemory:
    """Lets passes of more padded tokens than fit fail: in forward passes, or when their graph is walked back."""

    def __init__(self, embedder: type[Embedder], fits: float, *, backward: bool) -> None:
        self.failures = 0
        self._forward, self._fits, self._backward = embedder.forward, fits, backward

    def __call__(self, embedder: Embedder, texts: MicroBatch) -> torch.Tensor:
        vectors = self._forward(embedder, texts)
        if len(texts.rows) * max(map(len, texts.tokens)) <= self._fits:
            return vectors
        if not self._backward:
            self.failures += 1
            raise torch.OutOfMemoryError
        if vectors.requires_grad:
            # Behind the loss's gradient, and before the last of the weights has got its own.
            weight = next(iter(embedder._towers[0].parameters()))
            return _fail_on_the_way(vectors, weight, self)
        return vectors


def _fail_on_the_way(vectors: torch.Tensor, weight: torch.Tensor, count: OutOfMemory) -> torch.Tensor:
    def fail(gradient: torch.Tensor) -> None:
        count.failures += 1
        raise torch.OutOfMemoryError

    extra = (weight * 0.0).sum()
    extra.register_hook(fail)  # type: ignore[no-untyped-call]
    return vectors + extra


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True])
def test_a_pass_that_memory_does_not_hold_goes_in_halves(
    gpu: Any,
    small: SimpleNamespace,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_cpu: list[float],
    backward: bool,
) -> None:
    memory = OutOfMemory(Embedder, 30, backward=backward)
    monkeypatch.setattr(Embedder, "forward", lambda embedder, texts: memory(embedder, texts))
    monkeypatch.setattr(Embedder, "memory_budget", lambda embedder: 1000)
    fit(small, small.load(tiny_folder).to("cuda"), tmp_path)
    assert memory.failures > 0
    assert gpu.emptied == memory.failures
    assert losses(tmp_path) == pytest.approx(on_cpu, abs=1e-4), "a step whose pass failed has the same gradient"


def test_a_single_text_that_memory_does_not_hold_is_one_line(
    gpu: Any, small: SimpleNamespace, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = OutOfMemory(Embedder, 5, backward=False)
    monkeypatch.setattr(Embedder, "forward", lambda embedder, texts: memory(embedder, texts))
    monkeypatch.setattr(Embedder, "memory_budget", lambda embedder: 1000)
    with pytest.raises(StageError, match=r"no memory on cuda:0 to train on a text of \d+ tokens; set a smaller max_le"):
        fit(small, small.load(tiny_folder).to("cuda"), tmp_path)


def test_a_loss_that_is_not_finite_names_its_step(
    gpu: Any, small: SimpleNamespace, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Callable[..., torch.Tensor] = Embedder.forward
    calls = iter(range(10**6))
    per_step = 2  # at least: passes of a step
    monkeypatch.setattr(
        Embedder, "forward", lambda self, texts: whole(self, texts) * (1.0 if next(calls) < 4 * per_step else np.nan)
    )
    with pytest.raises(StageError, match=r"the loss became nan at step \d+ of 10 \(batch from words\)"):
        fit(small, small.load(tiny_folder).to("cuda"), tmp_path)
    assert not (tmp_path / "training.json").exists()
    assert np.isfinite(losses(tmp_path)).all()


def test_the_budget_is_what_free_memory_holds(gpu: Any, small: SimpleNamespace, tiny_folder: Path) -> None:
    model = small.load(tiny_folder).to("cuda")
    model.train(False)
    budgets = []
    for free in (2**26, 2**27, 2**40):
        gpu.memory = (free, free)
        budgets.append(Embedder(model, ("", ""), max_length=32, precision="fp32").memory_budget())
    weights = sum(one.numel() for one in model.parameters())
    kept = (0.8 * 2**26 - 20 * weights) / budgets[0]
    # Two layers of 32 dimensions, each 55 times that in bytes for BERT in float32, as base and MiniLM shapes have it.
    assert 2 * 32 * 45 < kept < 2 * 32 * 75
    assert budgets[1] == pytest.approx(2 * budgets[0], rel=0.01)
    assert budgets[2] == 131072


def test_kept_bytes_are_those_of_the_graph() -> None:
    layer = torch.nn.Linear(8, 4)
    # A sigmoid keeps its result (4 floats a text); the layer's input has no gradient, but its weight has: 8 floats.
    kept = kept_bytes(lambda count: layer(torch.zeros(count, 8)).sigmoid(), layer.parameters())
    assert kept == 4 * (8 + 4)


def test_padding_is_at_most_a_tenth_of_what_is_computed(gpu: Any, small: SimpleNamespace, tiny_folder: Path) -> None:
    embedder = Embedder(small.load(tiny_folder).to("cuda"), ("", ""), max_length=256, precision="fp32")
    rng = np.random.default_rng(0)
    shares = []
    for count in (32, 64, 128):
        # Lengths in tokens as of questions and of abstracts, cut at 256.
        lengths = [*np.clip(rng.lognormal(2.6, 0.45, count), 4, 64), *np.clip(rng.lognormal(4.9, 0.7, count), 8, 256)]
        tokens = [np.zeros(round(length), dtype=np.int32) for length in lengths]
        passes = embedder._cut(0, range(len(tokens)), tokens)
        assert sorted(row for part in passes for row in part.rows) == list(range(len(tokens)))
        assert [part.load for part in passes] == [len(part.rows) * max(map(len, part.tokens)) for part in passes]
        assert len(passes) <= 12
        shares.append(1 - sum(map(len, tokens)) / sum(part.load for part in passes))
    assert max(shares) <= 0.1, shares


def test_a_bank_is_sent_once(gpu: Any, small: SimpleNamespace, tiny_folder: Path) -> None:
    model = small.load(tiny_folder).to("cuda").eval()
    embedder = Embedder(model, ("", ""), max_length=32, precision="fp32")
    step = Step(model, embedder, Labelled(), 3, 0, ProcessGroup())
    rng = np.random.default_rng(0)
    documents = rng.standard_normal((500, 32)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    target = np.full((2, 500), 1 / 500, dtype=np.float32)
    bank = Bank(documents, target, np.zeros((2, 500), dtype=bool), np.array([3, 4]), 1.0)
    none = np.zeros((2, 2), dtype=bool)
    batch = Batch(("words",), ("word1", "word2"), ("word1 word3", "word4"), np.eye(2, dtype=np.float32), none, bank)
    sizes, unpinned = [], gpu.unpinned
    for number in range(3):
        gpu.uploads.clear()
        step(number, batch).loss()
        sizes.append(sum(gpu.uploads))
    assert sizes[0] - sizes[1] == documents.nbytes
    assert sizes[1] == sizes[2] < target.nbytes + 500 * 2 + 1000
    assert gpu.unpinned == unpinned
