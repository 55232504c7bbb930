"""The estimate's arithmetic by hand, its counts against the real encoder and trainer, and that it leaves nothing."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ranksaga.config.recipe import Recipe
from ranksaga.config.training import Distilled
from ranksaga.data.beir import write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.errors import DataError
from ranksaga.estimate.estimate import Estimate, Line, estimate
from ranksaga.estimate.machines import RentedGpu, ThisMachine
from ranksaga.estimate.probe import Pace, Range, Steps, _of_step, _pace_of, range_of, sample_steps, sources_like
from ranksaga.estimate.tokens import Shape, TokenCounter, shape_of
from ranksaga.estimate.workload import Load, trainings, workload
from ranksaga.run.console import Silent
from ranksaga.run.context import Context
from ranksaga.run.gpu_prices import Gpu
from ranksaga.run.plan import draw_plan
from ranksaga.run.stages.train import DocumentsPhase
from ranksaga.run.store import Store
from ranksaga.train.embed import MicroBatch

HELPERS = Path(__file__).parents[1] / "train" / "tiny_training.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, 32 dimensions, whose vocabulary is word0 ... word59."""
    folder: Path = runpy.run_path(str(HELPERS))["build_tiny_bert"](tmp_path_factory.mktemp("tiny"))
    return folder


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    return load_encoder(str(model), precision="fp32", query_prompt="query : ")


def folder_with(target: Path, splits: tuple[str, ...], first: int, queries: int = 12) -> str:
    """A dataset of 20 documents ("word1 word1 ...", 3 to 7 words) and queries of a word; query i answers document i.
    ``first`` is the number of the first word: datasets with words in common would leak."""
    corpus = Corpus(
        tuple(f"d{row}" for row in range(20)),
        ("",) * 20,
        tuple(" ".join([f"word{first + row}"] * (3 + row % 5)) for row in range(20)),
    )
    asked = Queries(
        tuple(f"{target.name}-{row}" for row in range(queries)), tuple(f"word{first + row}" for row in range(queries))
    )
    parts = np.array_split(np.arange(queries), len(splits))
    judged = {
        split: Qrels.of([(int(row), int(row), 1) for row in part]) for split, part in zip(splits, parts, strict=True)
    }
    write_beir(Dataset(target.name, corpus, asked, judged), target)
    return str(target)


PLAIN = {"method": "labelled", "titles": False, "merge_weights": [1.0]}


@pytest.fixture(scope="module")
def recipe(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("data")
    return Recipe.model_validate(
        {
            "model": str(model),
            "datasets": [
                folder_with(folder / "full", ("train", "dev", "test"), 0),
                folder_with(folder / "only", ("test",), 20),
            ],
            "guards": [folder_with(folder / "guard", ("test",), 40)],
            "precision": "fp32",
            "folds": 2,
            "systems": {
                "v1": {**PLAIN, "splits": "train", "epochs": 3, "batch_size": 2},
                "v2": {**PLAIN, "epochs": 2, "batch_size": 4},
                "best": {"epochs": 2, "distillation": {"pseudo_queries": 64, "queries": 4, "labelled": 2}},
            },
        }
    )


@pytest.fixture
def context(recipe: Recipe, tmp_path: Path) -> Context:
    return Context(recipe, Store(tmp_path), Silent())


def near(low: float, high: float) -> Range:
    """A range that equals one but for rounding."""
    ends: list[Any] = [pytest.approx(low), pytest.approx(high)]
    return Range(*ends)


def test_tokens_are_counted_with_prompt_and_truncation_and_each_text_once(encoder: Encoder) -> None:
    counter = TokenCounter(encoder)
    # [CLS] query : word1 [SEP], and [CLS] word1 word2 [SEP].
    assert counter.queries(["word1", "word1", "word2"]).tolist() == [5, 5]
    assert counter.documents(["word1 word2", "word3 " * 500]).tolist() == [4, encoder.spec.max_length]
    before = counter.tokens
    assert before == 5 + 5 + 4 + encoder.spec.max_length
    counter.documents(["word1 word2"])
    assert counter.tokens == before


def test_flop_of_a_forward_pass_by_hand(encoder: Encoder) -> None:
    # Of a text: twice the weights a token, and 4 x length x length x hidden in each of 2 layers.
    shape = Shape(1, 10, lambda lengths: sum(2.0 * 1000 * one + 4 * one * one * 10 * 2 for one in lengths))
    # Of length 4: 2 x 4 x 1000 + 4 x 16 x 10 x 2 = 9280; of length 2: 4000 + 4 x 4 x 10 x 2 = 4320.
    assert shape.forward(np.array([2, 4], np.int32), budget=4) == 9280 + 4320
    assert shape.forward(np.array([4, 2], np.int32), budget=8) == 9280 + 4320  # in two batches, as a GPU is given them
    many = [99] + 100 * [100]  # one token of padding costs less than a batch
    assert shape.forward(np.array(many, np.int32), budget=10**6) == 101 * (2 * 100 * 1000 + 4 * 100**2 * 20)
    # A layer has 4 x 32 x 32 weights of attention, 2 x 32 x 64 between, 4 x 32 + 64 + 32 biases and 4 x 32 of norms;
    # the pooler, which no vector depends on, 32 x 32 + 32; 67 words, 64 places, 2 kinds of text, and a norm.
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    found = shape_of(encoder)
    others = 2 * (4 * 32 + 64 + 32 + 4 * 32) + 32 * 32 + 32 + (67 + 64 + 2) * 32 + 2 * 32
    assert (found.parameters, found.width) == (weights + others, 32)
    assert found.flops([5]) == 2 * 5 * weights + 4 * 5 * 5 * 32 * 2


def test_trainings_are_those_of_the_run(context: Context) -> None:
    found = [
        (training.name, training.views, len(training.judgments))
        for training in trainings(context, draw_plan(context)[0])
    ]
    assert found == [
        ("v1", ("shipped",), 1),
        ("v2", ("shipped",), 2),
        ("v2", ("fold-1",), 2),
        ("v2", ("fold-2",), 2),
        ("best", ("shipped", "fold-1", "fold-2"), 2),
        ("best documents", ("shipped", "fold-1", "fold-2"), 2),
    ]


def test_the_baseline_reads_every_document_and_judged_query(context: Context) -> None:
    counter, shape = TokenCounter(context.encoder), shape_of(context.encoder)
    works = workload(context, draw_plan(context)[0], counter, shape)
    lines = [work for work in works if work.stage == "baseline"]
    # 20 documents of 3 to 7 words and 12 queries of one word, each with [CLS] and [SEP].
    assert [(work.low.tokens, work.high.tokens) for work in lines] == [(20 * 5 + 2 * 20 + 12 * 3,) * 2] * 3
    assert lines[0].low.products == 2 * 12 * 20 * 32


def test_documents_are_read_again_where_they_may_change(context: Context) -> None:
    works = workload(context, draw_plan(context)[0], TokenCounter(context.encoder), shape_of(context.encoder))
    scoring = {(work.system, work.what.split("/")[-1]): work for work in works if work.stage == "score"}
    # 4 test queries and 4 dev queries, 3 tokens each; v2 reads the 140 tokens of the corpus too, best perhaps.
    once = scoring["best", "full, 1 model"]
    assert (once.low.tokens, once.high.tokens) == (8 * 3, 8 * 3 + 140)
    assert scoring["v2", "full, 1 model"].low.tokens == 8 * 3 + 140
    shared = scoring["best", "only, 2 models"]
    # One training; the folds may choose different weights.
    assert shared.high.tokens == 2 * (shared.low.tokens + 140)
    apart = scoring["v2", "only, 2 models"]
    assert apart.high.tokens == apart.low.tokens
    select = {work.what: work for work in works if work.stage == "select"}
    assert list(select) == ["best shipped, fold-1, fold-2: 24 candidates on dev"]  # v1 and v2 take their last epoch
    parameters = shape_of(context.encoder).parameters / 1e6
    assert select.popitem()[1].low.host == pytest.approx(24 * 3 * 0.03 * parameters)


def test_selection_reads_the_dev_queries_and_pools_that_the_run_will_take(context: Context) -> None:
    plan = draw_plan(context)[0]
    works = workload(context, plan, TokenCounter(context.encoder), shape_of(context.encoder))
    (best,) = (work for work in works if work.stage == "select")
    # 4 dev queries of full, all 12 of only, which train nothing, and those of the guard that watch; 3 tokens each.
    watching = plan.dev(context.recipe.guards[0], "shipped", context.recipe.systems["best"])
    assert watching is not None
    queries = 4 + 12 + len(watching.query_rows)
    # 2 epochs and 3 weights of queries; 3 weights of documents above 0; a pool is the whole corpus of 20.
    assert best.low.tokens == best.high.tokens == 6 * 3 * queries + 3 * 3 * 140
    assert best.low.products == 24 * 2 * queries * 20 * 32


def test_a_pool_is_what_is_judged_and_the_tops_of_two_rankings(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranksaga.run.selection.DEV_CUT", {"some": (2, 3)})
    plan = draw_plan(context)[0]
    works = workload(context, plan, TokenCounter(context.encoder), shape_of(context.encoder))
    (best,) = (work for work in works if work.stage == "select")
    # Two queries of each of full and the guard; of only two in each of three views, of which some are the same.
    only = {
        int(row)
        for view in ("shipped", "fold-1", "fold-2")
        if (dev := plan.dev(context.recipe.datasets[1], view, context.recipe.systems["best"])) is not None
        for row in (dev.query_rows[0], dev.query_rows[-1])
    }
    queries = 2 + len(only) + 2
    # Each query judges one document; on top are 3 for half the queries at least, and 6 for each at most.
    few = (2 + 3) + min(20, len(only) + 3 * len(only) // 2) + (2 + 3)
    many = (2 + 12) + min(20, len(only) + 6 * len(only)) + (2 + 12)
    assert best.low.tokens == pytest.approx(6 * 3 * queries + 3 * 7 * few)
    assert best.high.tokens == pytest.approx(6 * 3 * queries + 3 * 7 * many)


def test_what_a_run_refuses_is_not_estimated(recipe: Recipe) -> None:
    values = {**recipe.model_dump(), "systems": {"v1": recipe.systems["v1"]}, "datasets": recipe.datasets[1:]}
    with pytest.raises(DataError, match="v1: trains on train splits only"):
        estimate(Recipe.model_validate(values), Silent(), gpu="A10G")


def test_steps_and_tokens_are_those_of_the_real_batches(context: Context) -> None:
    plan, counter, shape = draw_plan(context)[0], TokenCounter(context.encoder), shape_of(context.encoder)
    v1 = trainings(context, plan)[0]
    steps = sample_steps(context, v1, sources_like(context, v1), counter, shape)
    # 4 training pairs, 2 a batch, 3 epochs; documents of 3, 4, 5 and 6 words, queries of one.
    assert steps.total == 6
    assert steps.low == steps.high
    assert steps.low.tokens * 6 == pytest.approx(3 * (4 * 3 + 3 + 4 + 5 + 6 + 4 * 2))
    assert sum(steps.first_tokens) == 3 * (4 * 3 + 18 + 8)


def test_a_distillation_is_counted_without_encoding_a_corpus(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "encode_documents", lambda *_: pytest.fail("a corpus was encoded"))
    monkeypatch.setattr(Encoder, "encode_queries", lambda *_: pytest.fail("queries were encoded"))
    best, documents = trainings(context, draw_plan(context)[0])[-2:]
    sources = sources_like(context, best)
    steps = sample_steps(context, best, sources, TokenCounter(context.encoder), shape_of(context.encoder))
    each = [round(max(1.0, len(one.pseudo) / 4)) for one in sources]
    assert steps.total == 2 * sum(each)
    second = sample_steps(context, documents, sources, TokenCounter(context.encoder), shape_of(context.encoder))
    assert second.total == sum(each)
    assert second.low.tokens > steps.low.tokens
    assert steps.low.products > 0
    assert steps.setup_high.tokens > steps.setup_low.tokens > 0


GPU = Gpu("X", 3.6, half=100.0, single=10.0, bandwidth=1.0, memory=1.0, confirmed=True)


def test_queries_are_not_padded_to_documents_where_they_share_a_tower() -> None:
    shape = Shape(parameters=1, width=10, flops=lambda lengths: 1000.0 * sum(lengths))
    batch = SimpleNamespace(queries=["a", "b"], documents=["c", "d"], bank=None)

    def load(towers: Any, *places: int) -> Load:
        parts = [
            MicroBatch(tower, (0, 1), (np.zeros(size, dtype=np.int32),) * 2, 2 * size)
            for tower, size in zip(places, (3, 10), strict=True)
        ]
        settings = DocumentsPhase() if towers == "document" else Distilled(towers=towers)
        return _of_step(batch, SimpleNamespace(passes=lambda *_: parts), shape, settings, 0.0)

    # Forward, and backward as twice that: of two texts of 3 tokens and two of 10; of documents alone.
    assert load("shared", 0, 0) == Load(26.0, 3 * 26_000)
    assert load("query", 0, 1) == Load(26.0, 3 * 26_000)
    assert load("document", 0, 1) == Load(26.0, 6_000 + 3 * 20_000)


def test_a_card_is_its_peak_at_15_to_45_percent_and_half_to_twice_the_processor() -> None:
    card = RentedGpu(GPU, tokenise=0.01)
    low, high = Load(100, 4500, 90, 2), Load(100, 4500, 90, 2)
    # 4500 / 45 + 90 / 4.5 + (2 + 1) / 2, and 4500 / 15 + 90 / 1.5 + 2 x (2 + 1).
    assert card.seconds(low, high) == near(121.5, 366.0)
    steps = Steps(10, Load(5, 45, 0, 1), Load(5, 45, 0, 1), (5.0,), Load(), Load())
    # 10 steps of 45 / 45 + 1 / 2, and of 45 / 15 + 2.
    assert card.training("best", steps) == near(15.0, 50.0)


def test_this_machine_is_its_measured_paces() -> None:
    here = ThisMachine(Pace(Range(1, 2), 3), Pace(Range(0.1, 0.2), 3), {"v1": Pace(Range(3, 4), 5)})
    assert here.seconds(Load(10, 1e9, 20, 1), Load(10, 1e9, 20, 3)) == Range(13.0, 27.0)
    steps = Steps(2, Load(5), Load(6), (5.0,), Load(1), Load(1))
    assert here.training("v1", steps) == Range(2 * 5 * 3 + 1, 2 * 6 * 4 + 2)


def test_the_error_range_is_the_spread_of_repeats_and_at_least_15_percent() -> None:
    assert range_of([1.0, 2.0, 3.0]) == Range(1.0, 3.0)
    assert range_of([10.0, 10.0, 10.0]) == near(8.5, 11.5)


def test_steps_are_paced_without_the_first_and_by_their_tokens() -> None:
    steady = _pace_of([0.0, 50.0, 51.0, 53.0, 54.0], [10, 10, 20, 10])
    assert steady == Pace(near(0.085, 0.115), 3)
    few = _pace_of([0.0, 50.0, 51.0], [10, 10])
    assert few == Pace(near(0.07, 0.13), 1)
    assert _pace_of([0.0, 5.0], [10]).probes == 1


def test_totals_and_costs_are_sums() -> None:
    lines = (
        Line("baseline", "x", 1e6, Range(60, 120), Range(1, 2)),
        Line("train", "y", 2e6, Range(600, 1800), Range(10, 30)),
    )
    found = Estimate("r", "one X", "derived, not measured", 60.0, lines, ("note",))
    assert found.total == Line("total", "", 3e6, Range(660, 1920), Range(11.0, 32.0))
    text = found.text()
    assert text.splitlines()[-3].split() == ["total", "3.00M", "11", "-", "32", "min", "$11.00", "-", "32.00"]
    assert found.as_json()["total"]["usd"] == {"low": 11.0, "high": 32.0}


@pytest.mark.slow
def test_an_estimate_probes_every_training_and_leaves_nothing(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ranksaga.estimate.estimate.PROBE_SECONDS", 0.2)
    monkeypatch.chdir(tmp_path)
    found = estimate(recipe, Silent(), price=2.0)
    assert [line.stage for line in found.lines] == [
        "data", "baseline", *["train"] * 7, "select", *["score"] * 3, "report",
    ]  # fmt: skip
    for line in found.lines[1:]:
        assert 0 < line.seconds.low < line.seconds.high
        assert line.usd is not None
        assert line.usd.high == pytest.approx(line.seconds.high / 1800)
    assert found.how.startswith("measured")
    assert list(tmp_path.iterdir()) == []


def test_a_card_is_estimated_without_a_probe(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranksaga.estimate.estimate.timed_steps", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr("ranksaga.estimate.estimate.encode_pace", lambda *_: pytest.fail("encoded"))
    found = estimate(recipe, Silent(), gpu="a10g")
    assert found.machine == "one A10G"
    assert found.how.startswith("derived, not measured")
    assert found.price == pytest.approx(3600 * 0.000306 + 0.18864 + 0.127872)


def test_mistakes_are_one_line(recipe: Recipe) -> None:
    command = [sys.executable, "-m", "ranksaga", "estimate", "--gpu", "H10"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert shown.stderr.strip().splitlines() == [shown.stderr.strip()]
    assert "did you mean H100" in shown.stderr
    assert json.dumps(shown.stdout) == '""'
