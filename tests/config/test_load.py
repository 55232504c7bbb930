"""Recipes: precedence, and one clear line for every mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ranksaga.config.load import load_recipe
from ranksaga.config.presets import PRESETS
from ranksaga.config.quickstart import QUICKSTART
from ranksaga.config.recipe import Recipe, dump_recipe
from ranksaga.errors import RecipeError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_recipe_is_the_quickstart() -> None:
    assert load_recipe(None, environment={}) == QUICKSTART


def test_precedence_is_file_environment_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "datasets: [scifact]\nseed: 1\nsystems: {best: {epochs: 7}}\n")
    environment = {"RANKSAGA_RECIPE_SEED": "2", "RANKSAGA_RECIPE_SYSTEMS__BEST__LEARNING_RATE": "1e-6"}
    assert load_recipe(path, environment={}).seed == 1
    assert load_recipe(path, environment=environment).seed == 2
    recipe = load_recipe(path, ["seed=3"], environment)
    assert recipe.seed == 3
    expected = PRESETS["best"].model_copy(update={"epochs": 7, "learning_rate": 1e-6})
    assert recipe.systems == {"best": expected}
    assert recipe.name == "recipe"


def test_a_dumped_recipe_loads_to_the_same(tmp_path: Path) -> None:
    text = "datasets: [scifact]\nguards: [cisi]\nsystems: {best: {epochs: 2}, labels: {like: best, method: labelled}}\n"
    recipe = load_recipe(write(tmp_path, text + "ships: best\n"), environment={})
    again = load_recipe(write(tmp_path, dump_recipe(recipe)), environment={})
    assert again == recipe
    assert list(again.systems) == ["best", "labels"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: expected keys and values"),
        ("- a\n- b\n", ":1: expected keys and values"),
        ("datasets: [scifact\n", "not valid YAML"),
        ("model: minilm\n", "'datasets' is missing"),
        ("datasets: []\n", ":1: datasets:"),
        ("datasets: [scifact]\nlerning_rate: 1\n", ":2: unknown key 'lerning_rate'"),
        (
            "datasets: [scifact]\nsystems:\n  best:\n    epoch: 3\n",
            ":4: unknown key 'systems.best.epoch'; did you mean 'epochs'",
        ),
        ("datasets: [scifact]\nsystems:\n  best:\n    epochs: 0\n", ":4: systems.best.epochs:"),
        (
            "datasets: [scifact]\nsystems:\n  a:\n    like: bset\n",
            ":4: systems.a.like: there is no system 'bset'; did you",
        ),
        (
            "datasets: [scifact]\nsystems: {bset: {}}\n",
            ":2: systems.bset: say what it starts from: like: best, method: la",
        ),
        (
            "datasets: [scifact]\nsystems: {best: {distillation: {pseudo_querys: 3}}}\n",
            "unknown key 'systems.best.distillation.pseudo_querys'; did you mean 'pseudo_queries'",
        ),
        ("datasets: [scifact]\nsystems: {best: {documents: {weight: 1}}}\n", "did you mean 'weights'"),
        ("datasets: [scifact]\nsystems: 5\n", ":2: systems: expected names and their settings"),
        ("datasets: [scifact]\nsystems: [best]\n", ":2: systems: expected names and their settings"),
        ("datasets: [scifact]\nsystems: {}\n", ":2: systems: expected names and their settings"),
        ("datasets: [scifact]\nsystems: {best: 5}\n", ":2: systems.best: expected settings"),
        (
            "datasets: [scifact]\nsystems: {best: {}}\nships: bets\n",
            ":3: ships: there is no system 'bets'; did you mean 'best'",
        ),
        (
            "datasets: [scifact]\nsystems:\n  best:\n    hard_negatives: 2\n",
            ":4: systems.best.hard_negatives means nothing with method: distilled, only with method: labelled (neg",
        ),
        (
            "datasets: [scifact]\nsystems:\n  a: {method: labelled, distillation: {}}\n",
            ":3: systems.a.distillation means nothing with method: labelled, only with method: distilled",
        ),
        (
            "datasets: [scifact]\nsystems: {a: {method: labeled}}\n",
            ":2: systems.a.method: there is no method 'labeled'; did",
        ),
        ("datasets: [scifact]\nsystems: {best: {search: 2}}\n", ":2: systems.best.search is no setting any more"),
        (
            "datasets: [scifact]\nsystems: {best: {distillation: {words: 2}}}\n",
            "systems.best.distillation.words is no setting",
        ),
        (
            "datasets: [scifact]\nsystems: {best: {towers: document}}\n",
            ":2: systems.best.towers: input should be 'shared'",
        ),
        (
            "datasets: [scifact]\nsystems: {best: {towers: shared}}\n",
            ":2: systems.best: documents are trained after queries",
        ),
        ("datasets: [scifact]\nguards: [scifact]\n", "in datasets and in guards"),
        ("datasets: [a, a]\n", "a is named twice"),
        ("datasets: [scifact]\nprecision: fp8\n", ":2: precision:"),
        ("datasets: [scifact]\nseed: -1\n", ":2: seed:"),
        ("datasets: [scifact]\nfolds: 1\n", ":2: folds:"),
        ("datasets: [scifact]\nname: a/b\n", ":2: name:"),
        ("datasets: [scifact]\nsystems: {best: {merge_weights: [0, 1.5]}}\n", "weights lie above 0"),
    ],
)
def test_a_broken_recipe_is_one_line_that_names_file_and_place(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, environment={})
    message = str(caught.value)
    assert message.startswith(str(path))
    assert said in message
    assert "\n" not in message


def test_a_missing_recipe_and_a_broken_override(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such recipe"):
        load_recipe(tmp_path / "none.yaml", environment={})
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        load_recipe(None, ["seed"], environment={})
    with pytest.raises(RecipeError, match="holds a value"):
        load_recipe(None, ["name.x=1"], environment={})


def test_a_mistake_outside_of_the_file_names_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, "datasets: [scifact]\nseed: 1\n")
    for overrides, environment, said in (
        ([], {"RANKSAGA_RECIPE_SEDE": "1"}, "environment variable RANKSAGA_RECIPE_SEDE: unknown key 'sede'"),
        (["systems.best.epoch=2"], {}, "--set systems.best.epoch=2: unknown key 'systems.best.epoch'"),
        (
            ["training.bset.epochs=2"],
            {},
            "--set training.bset.epochs=2: there is no system 'bset'; did you mean 'best'",
        ),
        (["seed=-1"], {"RANKSAGA_RECIPE_SEED": "2"}, "--set seed=-1: seed:"),
    ):
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, overrides, environment)
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize(
    "place",
    [
        *(
            "systems.best.learning_rate",
            "systems.best.weight_decay",
            "systems.best.dataset_temperature",
            "systems.best.tolerance",
        ),
        *("systems.best.standard_errors", "systems.best.documents.learning_rate"),
    ],
)
def test_every_number_is_finite(place: str, number: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(place)):
        load_recipe(None, [f"{place}={number}"], environment={})


@pytest.mark.parametrize("place", ["systems.best.merge_weights", "systems.best.documents.weights"])
def test_every_number_of_a_list_is_finite(place: str) -> None:
    for number in (".inf", ".nan"):
        with pytest.raises(RecipeError, match=re.escape(place)):
            load_recipe(None, [f"{place}=[0.5, {number}]"], environment={})


def test_systems_are_set_and_added_on_the_command_line_and_in_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "datasets: [scifact]\nsystems:\n  best:\n  Low-Rate: {like: best, learning_rate: 1e-5}\n")
    environment = {"RANKSAGA_RECIPE_SYSTEMS__LOW_RATE__EPOCHS": "2", "RANKSAGA_RECIPE_TRAINING__BEST__SEEDS": "1"}
    recipe = load_recipe(path, ["training.Low-Rate.seeds=3", "systems.more.like=Low-Rate"], environment)
    assert [(name, one.epochs, one.seeds, one.learning_rate) for name, one in recipe.systems.items()] == [
        ("best", 5, 1, 1e-4), ("Low-Rate", 2, 3, 1e-5), ("more", 2, 3, 1e-5)
    ]  # fmt: skip
    assert recipe.shipped == "more"
    assert load_recipe(path, ["ships=best"], {}).shipped == "best"
    # A recipe that names no system has best, and one more beside it.
    plain = write(tmp_path, "datasets: [scifact]\n")
    assert list(load_recipe(plain, ["systems.gentle={like: best, epochs: 1}"], {}).systems) == ["best", "gentle"]


OLD = """datasets: [scifact]
presets: [best]
training:
  best:
    epochs: 3
    documents: {weights: [0.5]}
"""


def test_a_recipe_of_an_earlier_release_is_read_as_before(tmp_path: Path) -> None:
    best = load_recipe(write(tmp_path, OLD), ["training.best.epochs=4"], {"RANKSAGA_RECIPE_TRAINING__BEST__SEEDS": "1"})
    expected = {"best": {"epochs": 4, "seeds": 1, "documents": {"weights": [0.5]}}}
    assert best == Recipe.model_validate({"name": "recipe", "datasets": ["scifact"], "systems": expected})
    # What such a release wrote into a run's folder has every setting, those of labels too, and those that are gone.
    whole = OLD.replace("[0.5]}", "[0.5], query_weight: 0.75}") + "".join(
        f"    {line}\n"
        for line in (
            "search: 0",
            "scale: null",
            "batch_size: 32",
            "titles: true",
            "dropout: null",
            "distillation: {pseudo_queries: 4000, words: 3.0, anchor: 0.05}",
        )
    )
    assert load_recipe(write(tmp_path, whole), environment={}) == load_recipe(write(tmp_path, OLD), environment={})
    # Without a teacher it learned from labels, with what both ways to train have in common.
    changes = "{distillation: null, towers: shared, documents: null, hard_negatives: 2}"
    off = f"datasets: [scifact]\ntraining:\n  best: {changes}\n"
    labels = {"labels": {"like": "best", "method": "labelled", "hard_negatives": 2}}
    found = load_recipe(write(tmp_path, off), environment={}).systems["best"]
    assert found == Recipe.model_validate({"datasets": ["scifact"], "systems": labels}).systems["labels"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "presets: [v1, best]\n",
            ":2: presets: v1 is no preset any more; copy its settings from studies/first-study.yaml of",
        ),
        ("presets: [v3]\n", ":2: presets: there is no preset 'v3'; known: best"),
        ("presets: [best, best]\n", ":2: presets: best is named twice"),
        ("presets: []\n", ":2: presets: expected names; write systems:"),
        ("training: 5\n", ":2: training: expected a mapping of names"),
        ("training:\n  bset: {}\n", ":3: training.bset: there is no preset 'bset'; did you mean 'best'"),
        ("training:\n  best: {search: 3}\n", ":3: systems.best.search is no setting any more"),
        ("training:\n  best: {batch_size: 8}\n", ":3: systems.best.batch_size means nothing with method: distilled"),
        ("presets: [best]\nsystems: {best: {}}\n", ":2: presets: systems has taken its place"),
    ],
)
def test_what_is_gone_is_one_line_that_says_what_to_write(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, "datasets: [scifact]\n" + text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, environment={})
    assert str(caught.value).startswith(f"{path}{said}")
    assert "\n" not in str(caught.value)
