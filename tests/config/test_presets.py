"""Systems: like one another, by names that can be files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ranksaga.config.load import load_recipe
from ranksaga.config.presets import PRESETS
from ranksaga.config.recipe import Recipe
from ranksaga.config.training import Distilled, Labelled, Training

STUDIES = Path(__file__).parents[2] / "studies"


def systems(values: Any) -> dict[str, Training]:
    return dict(Recipe.model_validate({"datasets": ["scifact"], "systems": values}).systems)


def said_of(values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        systems(values)
    return str(caught.value.errors()[0]["msg"])


def test_a_system_is_like_another_but_for_what_it_says() -> None:
    found = systems(
        {
            "last": {"like": "gentle", "documents": {"epochs": 2}},  # an order of their own
            "best": {"epochs": 7, "documents": {"weights": [0.5]}},
            "gentle": {"like": "best", "learning_rate": 5e-5},
            "again": {"like": "best"},
        }
    )
    best = found["best"]
    assert isinstance(best, Distilled)
    assert best.documents is not None
    assert best == PRESETS["best"].model_copy(
        update={"epochs": 7, "documents": best.documents.model_copy(update={"weights": (0.5,)})}
    )
    assert found["again"] == best
    assert found["gentle"] == best.model_copy(update={"learning_rate": 5e-5})
    after = best.documents.model_copy(update={"epochs": 2, "weights": (0.5,)})
    assert found["last"] == found["gentle"].model_copy(update={"documents": after})
    assert list(found) == ["last", "best", "gentle", "again"]


def test_a_method_is_a_start_of_its_own() -> None:
    found = systems({"labels": {"method": "labelled", "epochs": 2}, "taught": {"method": "distilled"}, "best": None})
    assert found["labels"] == Labelled(epochs=2)
    assert found["taught"] == found["best"] == PRESETS["best"]


def test_another_method_takes_over_what_both_have_in_common() -> None:
    found = systems({"labels": {"like": "best", "method": "labelled", "batch_size": 8}})["labels"]
    common = {name: getattr(PRESETS["best"], name) for name in Training.model_fields}
    assert found == Labelled(batch_size=8, **common)
    back = systems(
        {"a": {"method": "labelled", "batch_size": 8, "seeds": 4}, "b": {"like": "a", "method": "distilled"}}
    )
    assert back["b"] == PRESETS["best"].model_copy(
        update={**{name: getattr(Labelled(), name) for name in Training.model_fields}, "seeds": 4}
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": {"like": "a"}}, "no system starts from itself (a like a)"),
        ({"a": {"like": "b"}, "b": {"like": "a"}}, "no system starts from itself (a like b like a)"),
        ({"best": {"like": "b"}, "b": {"like": "best"}}, "no system starts from itself (best like b like best)"),
        (
            {"c": {"like": "a"}, "a": {"like": "b"}, "b": {"like": "a"}},
            "no system starts from itself (a like b like a)",
        ),
        ({"a": {"like": "gentel"}, "gentle": {"like": "best"}}, "there is no system 'gentel'; did you mean 'gentle'?"),
        ({"a": {"like": "v1"}}, "there is no system 'v1'; known: best"),
        ({"a": {"like": ["best"]}}, "there is no system ['best']; "),
        ({"a": {"method": ["labelled"]}}, "there is no method ['labelled']; "),
        ({"a": {}}, "say what it starts from: like: best, method: labelled or method: distilled"),
        ({"baseline": {"like": "best"}}, "baseline is what the report calls another system"),
        ({"BM25": {"like": "best"}}, "BM25 is what the report calls another system"),
        ({"hybrid": {"like": "best"}}, "hybrid is what the report calls another system"),
        ({"baseline_hybrid": {"like": "best"}}, "baseline_hybrid is what the report calls another system"),
        ({"a/b": {"like": "best"}}, "'a/b' names files too"),
        ({"..": {"like": "best"}}, "'..' names files too"),
        ({"a.b": {"like": "best"}}, "'a.b' names files too"),
        ({"-a": {"like": "best"}}, "'-a' names files too"),
        ({"a b": {"like": "best"}}, "'a b' names files too"),
        ({"": {"like": "best"}}, "'' names files too"),
        ({"a\n": {"like": "best"}}, "'a\\n' names files too"),
        ({"é": {"like": "best"}}, "'é' names files too"),
        ({"a" * 65: {"like": "best"}}, "names files too"),
        ({"Best": {"like": "best"}, "best": {}}, "Best and best can be one file"),
        ({1: {"like": "best"}}, "a system's name is text"),
        ({True: {"like": "best"}}, "a system's name is text"),
    ],
)
def test_names_and_starts_that_cannot_be(values: Any, said: str) -> None:
    message = said_of(values)
    assert said in message
    assert "\n" not in message


def test_the_last_system_ships_unless_another_is_named() -> None:
    values: dict[str, Any] = {"datasets": ["scifact"], "systems": {"best": {}, "gentle": {"like": "best", "epochs": 1}}}
    assert Recipe.model_validate(values).shipped == "gentle"
    named = Recipe.model_validate({**values, "ships": "best"})
    assert named.shipped == "best"
    assert named.shipped_training == PRESETS["best"]
    assert Recipe.model_validate({"datasets": ["scifact"]}).systems == PRESETS


@pytest.mark.parametrize(
    ("name", "capped"), [("first-study", {}), ("offline-study", {"max_steps": 150, "max_length": 128})]
)
def test_the_first_studys_systems_are_its_own(name: str, capped: dict[str, int]) -> None:
    recipe = load_recipe(STUDIES / f"{name}.yaml", environment={})
    faults: dict[str, Any] = {
        "titles": False,
        "prompts": False,
        "batches": "mixed",
        "mask_false_negatives": False,
        "merge_weights": (1.0,),
        **capped,
    }
    first = {"splits": "train", "epochs": 3, "learning_rate": 2e-5, "warmup_steps": 100, "batch_size": 16}
    second = {"splits": "all", "epochs": 5, "learning_rate": 1e-5, "warmup_steps": 500, "batch_size": 32}
    assert recipe.systems == {
        "v1": Labelled.model_validate({**first, **faults}),
        "v2": Labelled.model_validate({**second, **faults}),
        "best": PRESETS["best"],
    }
    assert recipe.shipped == "best"
