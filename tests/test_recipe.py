"""Recipes: presets as the study wrote them, precedence, and one clear line for every mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ranksaga.errors import RecipeError
from ranksaga.recipe import PRESETS, QUICKSTART, dump_recipe, load_recipe


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_presets_are_those_of_the_study() -> None:
    v1, v2 = PRESETS["v1"], PRESETS["v2"]
    assert (v1.splits, v1.epochs, v1.learning_rate, v1.warmup_steps, v1.batch_size) == ("train", 3, 2e-5, 100, 16)
    assert (v2.splits, v2.epochs, v2.learning_rate, v2.warmup_steps, v2.batch_size) == ("all", 5, 1e-5, 500, 32)
    for old in (v1, v2):
        assert (old.batches, old.titles, old.prompts, old.mask_false_negatives) == ("mixed", False, False, False)
    best = PRESETS["best"]
    assert (best.batches, best.titles, best.prompts, best.mask_false_negatives) == ("per_dataset", True, True, True)


def test_no_recipe_is_the_quickstart() -> None:
    assert load_recipe(None, environment={}) == QUICKSTART


def test_precedence_is_file_environment_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "datasets: [scifact]\nseed: 1\ntraining: {best: {epochs: 7}}\n")
    environment = {"RANKSAGA_RECIPE_SEED": "2", "RANKSAGA_RECIPE_TRAINING__BEST__LEARNING_RATE": "1e-6"}
    assert load_recipe(path, environment={}).seed == 1
    assert load_recipe(path, environment=environment).seed == 2
    recipe = load_recipe(path, ["seed=3"], environment)
    assert recipe.seed == 3
    assert recipe.training["best"].epochs == 7
    assert recipe.training["best"].learning_rate == 1e-6
    assert recipe.training["best"].batch_size == PRESETS["best"].batch_size
    assert recipe.name == "recipe"


def test_a_dumped_recipe_loads_to_the_same(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, "datasets: [scifact]\nguards: [cisi]\ntraining: {best: {epochs: 2}}\n"), environment={}
    )
    assert load_recipe(write(tmp_path, dump_recipe(recipe)), environment={}) == recipe


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
            "datasets: [scifact]\ntraining:\n  best:\n    epoch: 3\n",
            ":4: unknown key 'training.best.epoch'; did you mean 'epochs'",
        ),
        ("datasets: [scifact]\ntraining:\n  best:\n    epochs: 0\n", ":4: training.best.epochs:"),
        ("datasets: [scifact]\ntraining: {bset: {}}\n", "did you mean 'best'"),
        (
            "datasets: [scifact]\ntraining: {best: {distillation: {pseudo_querys: 3}}}\n",
            "unknown key 'training.best.distillation.pseudo_querys'; did you mean 'pseudo_queries'",
        ),
        ("datasets: [scifact]\ntraining: {best: {documents: {weight: 1}}}\n", "did you mean 'weights'"),
        ("datasets: [scifact]\ntraining: 5\n", "expected a mapping"),
        ("datasets: [scifact]\npresets: [v3]\n", ":2: presets.0:"),
        ("datasets: [scifact]\npresets: [v1, v1]\n", "v1 is named twice"),
        ("datasets: [scifact]\nguards: [scifact]\n", "in datasets and in guards"),
        ("datasets: [a, a]\n", "a is named twice"),
        ("datasets: [scifact]\nprecision: fp8\n", ":2: precision:"),
        ("datasets: [scifact]\nseed: -1\n", ":2: seed:"),
        ("datasets: [scifact]\nfolds: 1\n", ":2: folds:"),
        ("datasets: [scifact]\nname: a/b\n", ":2: name:"),
        ("datasets: [scifact]\ntraining: {best: {merge_weights: [0, 1.5]}}\n", "weights lie above 0"),
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
        (["training.best.epoch=2"], {}, "--set training.best.epoch=2: unknown key 'training.best.epoch'"),
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
            "training.best.learning_rate",
            "training.best.weight_decay",
            "training.best.scale",
            "training.best.tolerance",
        ),
        *("training.best.standard_errors", "training.best.distillation.words", "training.best.distillation.anchor"),
        "training.best.documents.learning_rate",
    ],
)
def test_every_number_is_finite(place: str, number: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(place)):
        load_recipe(None, [f"{place}={number}"], environment={})


@pytest.mark.parametrize("place", ["training.best.merge_weights", "training.best.documents.weights"])
def test_every_number_of_a_list_is_finite(place: str) -> None:
    for number in (".inf", ".nan"):
        with pytest.raises(RecipeError, match=re.escape(place)):
            load_recipe(None, [f"{place}=[0.5, {number}]"], environment={})
