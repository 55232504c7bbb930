"""A run as data: what travels, and what the far side does with it, twice if need be."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ranksaga import errors
from ranksaga.backends import job as module
from ranksaga.backends.job import Job, Places, Saving, pack, perform
from ranksaga.config.recipe import Recipe
from ranksaga.errors import DataError, RankSagaError, RecipeError
from ranksaga.run.pipeline import Outcome


def all_errors() -> list[type[RankSagaError]]:
    return [kind for kind in (getattr(errors, name) for name in errors.__all__) if isinstance(kind, type)]


def folder_of(path: Path) -> Path:
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text('{"_id": "d", "title": "", "text": "a"}\n')
    (path / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n')
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    return path


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({"name": "r", "datasets": ["python:logging"], **changes})


def places(root: Path) -> Places:
    return Places(*(str(root / name) for name in ("cache", "runs", "models", "scratch")))


def test_folders_travel_and_public_names_do_not(tmp_path: Path) -> None:
    mine, model = folder_of(tmp_path / "here" / "mydata"), tmp_path / "weights"
    model.mkdir()
    told = recipe(datasets=[str(mine), "scifact", "python:logging"], model=str(model))
    job, uploads = pack(told, places=Places())
    assert job.recipe["datasets"] == ["mydata", "scifact", "python:logging"]
    assert job.recipe["model"] == "/cache/uploads/r/model"
    assert uploads == {"uploads/r/datasets/mydata": mine, "uploads/r/model": model}
    assert Job.from_json(json.loads(json.dumps(job.as_json()))) == job


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    both = [str(folder_of(tmp_path / parent / "mydata")) for parent in ("a", "b")]
    with pytest.raises(RecipeError, match="rename one"):
        pack(recipe(datasets=both), places=Places())


def test_what_was_to_be_done_anew_is_done_anew_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Mapping[str, Any]] = []

    def run_recipe(recipe: Recipe, folder: Path, console: Saving, **options: Any) -> Outcome:
        told.append(options)
        if len(told) == 1:
            raise KeyboardInterrupt  # how a machine that is wanted elsewhere announces itself
        return Outcome(folder, "select", False, 1.0, "", {})

    monkeypatch.setattr(module, "run_recipe", run_recipe)
    job, _ = pack(recipe(), places=places(tmp_path), stop="select", fresh=True)
    saved: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        perform(job, lambda: saved.append(1))
    assert saved == [1]  # the interrupt is no reason to lose what is there
    perform(job, lambda: None)
    other, _ = pack(recipe(), places=places(tmp_path), stop="select", start="train")
    perform(other, lambda: None)
    assert [(one["fresh"], one["start"]) for one in told] == [(True, None), (False, None), (False, "train")]


def test_a_mistake_of_the_user_comes_back_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Outcome:
        raise DataError("no such thing")

    monkeypatch.setattr(module, "run_recipe", refuse)
    job, _ = pack(recipe(), places=places(tmp_path))
    told = json.loads(json.dumps(perform(job, lambda: None)))
    assert told == {"error": "no such thing", "type": "DataError"}
    error = RankSagaError.from_json(told)
    assert (type(error), str(error), error.exit_code) == (DataError, "no such thing", 2)


def test_a_long_piece_of_work_is_saved_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    saved: list[int] = []
    console = Saving(lambda: saved.append(1))
    console.stage("train", "best", False)
    with console.progress("train", 10) as advance:
        step: Callable[..., None] = advance
        for _ in range(10):
            step(1)
    assert 2 <= len(saved) <= 8


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_an_error_keeps_its_type_on_the_way_to_another_process(kind: type[RankSagaError]) -> None:
    back = RankSagaError.from_json(json.loads(json.dumps(kind("why").as_json())))
    assert (type(back), str(back), back.exit_code) == (kind, "why", kind.exit_code)


def test_an_error_of_another_release_is_one_all_the_same() -> None:
    for values in ({"error": "why", "exit_code": 2}, {"error": "why", "type": "NewError"}):
        assert type(RankSagaError.from_json(values)) is RankSagaError


def test_all_folders_of_the_shipped_model_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    towers = ["model", "model_query", "model_document"]

    def run_recipe(recipe: Recipe, folder: Path, console: Saving, **options: Any) -> Outcome:
        for name in towers:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "modules.json").write_text(name)
        return Outcome(folder, "report", False, 1.0, "", {})

    monkeypatch.setattr(module, "run_recipe", run_recipe)
    job, _ = pack(recipe(), places=places(tmp_path), model="mine")
    perform(job, lambda: None)
    kept = {str(path.parent): path.read_text() for path in sorted((tmp_path / "models").rglob("modules.json"))}
    shipped = tmp_path / "models" / "mine"
    places_of = [shipped, shipped / "model_query", shipped / "model_document"]
    assert kept == {str(place): name for place, name in zip(places_of, towers, strict=True)}
    # The next recipe's model has one tower.
    for name in towers[1:]:
        shutil.rmtree(tmp_path / "runs" / "r" / name)
    del towers[1:]
    perform(job, lambda: None)
    assert [path.parent.name for path in (tmp_path / "models").rglob("modules.json")] == ["mine"]
