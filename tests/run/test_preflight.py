"""Runs of a tiny random model on tiny datasets: what is refused before training, and the corners of a run."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranksaga.config.recipe import Recipe
from ranksaga.data.beir import write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import DataError
from ranksaga.run.console import Silent
from ranksaga.run.pipeline import Outcome, is_finished, run_recipe, stages_done
from ranksaga.run.stages import COMPARE, REPORT, SCORE, STAGES, compare, report, score

QUERIES = 16
SMALL: dict[str, Any] = {"epochs": 1, "max_steps": 1}
PLAIN: dict[str, Any] = {**SMALL, "method": "labelled", "batch_size": 4, "titles": False, "merge_weights": [1.0]}
SETTINGS: dict[str, Any] = {
    "v1": {**PLAIN, "splits": "train"},
    "v2": PLAIN,
    "best": {
        **SMALL,
        "seeds": 1,
        "merge_weights": [1.0],
        "documents": {"weights": [0.0]},
        "distillation": {"pseudo_queries": 64, "queries": 4, "labelled": 4, "documents": 4},
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random words count more than where they stand, so that texts without common words are not near-copies."""
    from safetensors.torch import load_file, save_file

    helpers = runpy.run_path(str(Path(__file__).parents[1] / "train" / "tiny_training.py"))
    folder: Path = helpers["build_tiny_bert"](tmp_path_factory.mktemp("tiny"))
    weights = next(folder.rglob("model.safetensors"))
    state = load_file(weights)
    state["embeddings.word_embeddings.weight"] *= 50
    save_file(state, weights, metadata={"format": "pt"})
    return str(folder)


Build = Callable[..., str]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def make(name: str, *, seed: int = 0, queries: int = QUERIES, **splits: range) -> str:
        """A dataset whose queries share words with their documents, with the query rows of each split."""
        rng = np.random.default_rng(seed)
        texts = [" ".join(f"word{word}" for word in rng.choice(60, 8, replace=False)) for _ in range(queries)]
        asked = tuple(" ".join(text.split()[:4]) for text in texts)
        ids = tuple(str(row) for row in range(queries))
        data = Dataset(
            name,
            Corpus(tuple(f"d{one}" for one in ids), ("",) * queries, tuple(texts)),
            Queries(tuple(f"q{one}" for one in ids), asked),
            {split: Qrels.of([(row, row, 1) for row in rows]) for split, rows in splits.items()},
        )
        write_beir(data, tmp_path / "data" / name)
        return str(tmp_path / "data" / name)

    return make


class Listener(Silent):
    """Remembers which stages did something, and what was said."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.said: list[str] = []

    def stage(self, stage: str, label: str, reused: bool) -> None:
        if not reused:
            self.done.append(stage)

    def say(self, text: str) -> None:
        self.said.append(text)


def recipe(
    model: str, *datasets: str, system: str = "v2", changes: dict[str, Any] | None = None, **more: Any
) -> Recipe:
    names = more.pop("systems", [system])
    systems = {name: {**SETTINGS[name], **(changes or {} if name == system else {})} for name in names}
    values = {"model": model, "datasets": datasets, "systems": systems, "folds": 2, **more}
    return Recipe.model_validate(values)


def run(one: Recipe, folder: Path, **options: Any) -> tuple[Outcome, Listener]:
    listener = Listener()
    return run_recipe(one, folder, listener, **options), listener


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "changes"),
    [("v2", {}), ("best", {}), ("best", {"cross_fitted": "labels"})],
    ids=["v2", "corpus", "labels"],
)
def test_datasets_with_test_alone_and_no_guard(
    system: str, changes: dict[str, Any], model: str, build: Build, tmp_path: Path
) -> None:
    one = recipe(model, build("alone", test=range(QUERIES)), system=system, changes=changes)
    outcome, _ = run(one, tmp_path / "run")
    systems = outcome.summary["systems"]
    assert systems[system]["datasets"] == 1
    assert (tmp_path / "run" / "model" / "modules.json").is_file()
    values = json.loads((tmp_path / "run" / "per_query" / system / "alone.json").read_text())
    assert len(values["query_ids"]) == QUERIES
    assert values["out_of_fold"]


def test_what_trains_nothing_is_refused_before_a_model_reads(model: str, build: Build, tmp_path: Path) -> None:
    alone, trained = build("alone", test=range(16)), build("full", seed=1, train=range(8), test=range(8, 16))
    with pytest.raises(DataError, match=r"^v1: trains on train splits only, and none of the datasets \(.*\) has one; "):
        run(recipe(model, alone, system="v1", systems=["best", "v1"]), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()
    twice = build("twice", seed=2, train=range(8), test=range(16))
    with pytest.raises(DataError, match=r"^v2: no query is there to train on"):
        run(recipe(model, twice), tmp_path / "run")
    # A guard's train split trains nothing, either.
    with pytest.raises(DataError, match=r"^v1: trains on train splits only"):
        run(recipe(model, alone, system="v1", guards=[trained]), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


def test_what_the_audit_leaves_is_looked_at_for_all_systems_before_the_first_trains(
    model: str, build: Build, tmp_path: Path
) -> None:
    """Every training query is a near-copy of a test query."""
    folder = Path(build("leaky", train=range(8), test=range(8, 16)))
    lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    for row in range(8):
        lines[row]["text"] = lines[row + 8]["text"]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    listener = Listener()
    with pytest.raises(DataError, match=r"no query is there to train on .* the leakage audit dropped 8"):
        run_recipe(recipe(model, str(folder), system="v1"), tmp_path / "run", listener)
    assert "train" not in listener.done


def test_positives_without_text_are_refused_before_training(model: str, build: Build, tmp_path: Path) -> None:
    folder = Path(build("titled", train=range(8), test=range(8, 16)))
    lines = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    blank = [{**line, "title": line["text"], "text": ""} for line in lines]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, blank)))
    listener = Listener()
    with pytest.raises(DataError, match="no positive pair to train on"):
        run_recipe(recipe(model, str(folder), system="v1", systems=["best", "v1"]), tmp_path / "run", listener)
    assert "train" not in listener.done


@pytest.mark.slow
@pytest.mark.parametrize("queries", [1, 2])
def test_a_tiny_guard_is_scored(queries: int, model: str, build: Build, tmp_path: Path) -> None:
    guard = build("guard", seed=5, queries=queries, test=range(queries))
    trained = build("full", seed=1, train=range(8), test=range(8, 16))
    outcome, _ = run(recipe(model, trained, system="v1", guards=[guard]), tmp_path / "run")
    assert "guard (guard)" in outcome.table


@pytest.mark.slow
def test_of_two_systems_the_named_one_ships(model: str, build: Build, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from ranksaga.encode.weight_files import load_weights

    systems = {"first": {**PLAIN, "learning_rate": 1e-2}, "second": {"like": "first", "learning_rate": 1e-3}}
    data = build("full", train=range(6), dev=range(6, 8), test=range(8, 16))
    one = Recipe.model_validate({"model": model, "datasets": [data], "systems": systems, "ships": "first"})
    outcome, _ = run(one, tmp_path / "run")
    assert list(outcome.summary["systems"]) == ["bm25", "baseline_hybrid", "first", "hybrid", "second"]
    (compared,) = (tmp_path / "run/stages/compare").glob("*/comparison.json")
    assert json.loads(compared.read_text())["answer"]["model"] == "first"
    chosen = {
        json.loads(marker.read_text())["label"]: load_weights(marker.parent / "model.safetensors")
        for marker in (tmp_path / "run/stages/select").glob("*/done.json")
    }
    shipped = load_file(next((tmp_path / "run/model").rglob("model.safetensors")))
    (name,) = (name for name in shipped if name.endswith("word_embeddings.weight"))
    (long,) = (long for long in chosen["first shipped"] if long.endswith(name))
    assert shipped[name].equal(chosen["first shipped"][long])
    assert not shipped[name].equal(chosen["second shipped"][long])
    # In another order and with another one that ships, nothing is trained again and yet it is another run.
    other = Recipe.model_validate({"model": model, "datasets": [data], "systems": systems})
    outcome, listener = run(other, tmp_path / "run")
    assert not {"train", "select"} & set(listener.done)
    assert list(outcome.summary["systems"]) == ["bm25", "baseline_hybrid", "first", "second", "hybrid"]


@pytest.mark.slow
def test_dollars_in_names_and_names_that_look_alike(model: str, build: Build, tmp_path: Path) -> None:
    names = ["a$b", "c$ d", "x y", "x_y"]
    folders = [build(name, seed=place, train=range(8), test=range(8, 16)) for place, name in enumerate(names)]
    run(recipe(model, *folders, system="v1"), tmp_path / "run")
    for where, pattern in (("per_query/v1", "*.json"), ("rankings", "v1.*.trec"), ("results", "*v1/*/*.json")):
        files = [file for file in (tmp_path / "run" / where).glob(pattern) if file.name != "model_meta.json"]
        assert len(files) == len(names), where
    stored = [json.loads(file.read_text())["dataset"] for file in (tmp_path / "run/per_query/v1").iterdir()]
    assert sorted(stored) == sorted(names)
    assert "a$b" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_a_part_of_another_recipe_leaves_a_finished_run_alone(model: str, build: Build, tmp_path: Path) -> None:
    data = build("full", train=range(8), test=range(8, 16))
    first = recipe(model, data, system="v1")
    run(first, tmp_path / "run")
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    other = recipe(model, data, system="v1", changes={"learning_rate": 1e-3})
    outcome, listener = run(other, tmp_path / "run", stop="select")
    assert outcome.stopped_after == "select"
    assert "train" in listener.done
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before
    assert is_finished(first, tmp_path / "run")
    assert run(first, tmp_path / "run")[0].reused
    # The whole of it is another run.
    run(other, tmp_path / "run")
    assert is_finished(other, tmp_path / "run")
    assert "0.001" in (tmp_path / "run" / "recipe.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "stage"),
    [(report, "write_report", REPORT), (compare, "compare", COMPARE), (score, "evaluate", SCORE)],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_fails_after_training_repeats_its_stage_and_the_later_ones_alone(
    module: Any, name: str, stage: Any, model: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(model, build("full", train=range(8), test=range(8, 16)), system="v1")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(module, name, fails)
        with pytest.raises(RuntimeError, match="injected"):
            run(one, tmp_path / "run")
    assert not is_finished(one, tmp_path / "run")
    left = STAGES[STAGES.index(stage.name) :]
    shown = stages_done(one, tmp_path / "run")
    assert [(each.name, done) for each, done in shown] == [(name, name not in left) for name in STAGES]
    _, listener = run(one, tmp_path / "run")
    assert set(listener.done) == set(left)
    assert is_finished(one, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()
    assert all(done for _, done in stages_done(one, tmp_path / "run"))


def test_a_run_says_how_many_documents_are_the_query_itself(model: str, build: Build, tmp_path: Path) -> None:
    folder = Path(build("self", train=range(8), test=range(8, 16)))
    for name in ("queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("q9\t", "d1\t").replace('"q9"', '"d1"'))
    _, listener = run(recipe(model, str(folder), system="v1"), tmp_path / "run", stop="data")
    left_out = "1 query has the id of a document, which is left out of their rankings, as BEIR does"
    assert any(left_out in line for line in listener.said)
