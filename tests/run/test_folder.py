"""Folders that results go into: nothing of the user's is lost, and one process works there at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ranksaga.backends.base import launch
from ranksaga.config.recipe import Recipe
from ranksaga.errors import UsageError
from ranksaga.files import clear_parts
from ranksaga.run.console import Silent
from ranksaga.run.folder import LOCK, MARKER, check_results_folder, check_run_folder, held
from ranksaga.run.model_results import benchmark_model
from ranksaga.run.pipeline import run_recipe


def content(folder: Path) -> dict[str, str]:
    """Every file of a folder with its text."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, *names: str) -> Path:
    """Make files that hold their own names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def beir(folder: Path) -> Path:
    """The files of a dataset, of no use otherwise."""
    return write(folder, "corpus.jsonl", "queries.jsonl", "qrels/test.tsv")


def recipe(model: str = "none/such", *datasets: str) -> Recipe:
    return Recipe.model_validate({"name": "x", "model": model, "datasets": [*datasets] or ["python:logging"]})


FOREIGN = [
    ("results/mine.json",),
    ("model/modules.json", "model/model.safetensors"),
    ("stages/notes.txt", "recipe.yaml"),  # not what a run's stages are called
    ("stages/train/notes.txt",),
    ("recipe.yaml",),
    ("notes.txt",),
    (".hidden",),
    ("results/r.json", "rankings/r.trec", "per_query/r.json"),  # a benchmark's
]


@pytest.mark.parametrize("files", FOREIGN)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_that_is_no_runs_is_left_as_it_is(tmp_path: Path, files: tuple[str, ...], fresh: bool) -> None:
    folder = write(tmp_path / "x", *files)
    before = content(folder)
    with pytest.raises(UsageError, match="name another folder"):
        run_recipe(recipe(), folder, Silent(), fresh=fresh)
    for on in ("local", "torchrun:2"):
        with pytest.raises(UsageError, match="name another folder"):
            launch(recipe(), folder, on=on, fresh=fresh)
    assert content(folder) == before


@pytest.mark.parametrize(
    "files",
    [
        (),
        (LOCK,),
        (MARKER, "results/r.json"),  # a damaged marker
        ("recipe.yaml", "stages/data/0123/done.json", "results/r.json"),  # of a release without markers
        ("recipe.yaml", "stages/finished.json"),
        ("recipe.yaml", "run.json", "model/modules.json"),  # fetched from Modal
        ("modal.json",),
    ],
)
def test_a_runs_own_folder_is_taken(tmp_path: Path, files: tuple[str, ...]) -> None:
    (tmp_path / "x").mkdir()
    folder = write(tmp_path / "x", *files)
    check_run_folder(folder, "none/such", ["python:logging"])
    with held(folder, "run"):
        pass
    write(folder, "anything")
    check_run_folder(folder, "none/such", ["python:logging"])  # marked now


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        check_run_folder(write(tmp_path, "x") / "x", "none/such", [])


def link(link: Path, target: Path) -> Path:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    return link


OVERLAPS: dict[str, Callable[[Path, Path], Path]] = {
    "input in the folder": lambda folder, _: beir(folder / "model"),
    "input is the folder": lambda folder, _: beir(folder),
    "input is a link into the folder": lambda folder, top: link(top / "data", beir(folder / "stages" / "data")),
    "a file of the input is a link into the folder": lambda folder, top: (
        link(
            beir(top / "data") / "more.jsonl", write(folder, "stages/data/more.jsonl") / "stages/data/more.jsonl"
        ).parent
    ),
    "a folder of the input is a link into the folder": lambda folder, top: (
        link(beir(top / "data") / "more", write(folder, "model/more.json") / "model").parent
    ),
    "a link in the folder leads to the input": lambda folder, top: link(
        folder / "stages", beir(top / "data")
    ).resolve(),
    "a link in the folder leads above the input": lambda folder, top: (
        link(folder / "stages", top / "all").resolve(),
        beir(top / "all" / "data"),
    )[1],
    "folder in the input": lambda folder, top: beir(top),
    "a link in the folder leads into the input": lambda folder, top: (
        link(folder / "stages", write(top / "data" / "inside", "file")),
        beir(top / "data"),
    )[1],
}


@pytest.mark.parametrize("case", OVERLAPS)
@pytest.mark.parametrize("part", ["model", "dataset", "guard"])
def test_inputs_and_results_must_not_hold_each_other(tmp_path: Path, case: str, part: str) -> None:
    folder = tmp_path / "runs" / "x"
    write(folder, MARKER)
    place = str(OVERLAPS[case](folder, tmp_path))
    values = recipe().model_dump(mode="json")
    values[{"model": "model", "dataset": "datasets", "guard": "guards"}[part]] = place if part == "model" else [place]
    before = content(tmp_path)
    for fresh in (False, True):
        with pytest.raises(UsageError, match=r"lies in it, where|lies in the folder of"):
            run_recipe(Recipe.model_validate(values), folder, Silent(), fresh=fresh)
    assert content(tmp_path) == before


def test_python_source_may_hold_a_runs_folder_but_not_lie_in_one(tmp_path: Path) -> None:
    write(tmp_path, "code.py", "runs/x/stages/code.py")
    check_run_folder(tmp_path / "runs" / "y", "none/such", [f"python:{tmp_path}"])
    write(tmp_path / "runs" / "x", MARKER)
    with pytest.raises(UsageError, match="lies in it"):
        check_run_folder(tmp_path / "runs" / "x", "none/such", [f"python:{tmp_path}/runs/x/stages"])


def test_fresh_removes_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    folder, elsewhere = write(tmp_path / "x", MARKER), write(tmp_path / "elsewhere", "data/mine.txt")
    link(folder / "stages", elsewhere)
    with pytest.raises(UsageError, match="no such folder"):
        run_recipe(recipe("/nowhere/model"), folder, Silent(), fresh=True)
    assert content(elsewhere) == {"data/mine.txt": "data/mine.txt"}
    assert not (folder / "stages").is_symlink()


@pytest.mark.parametrize(
    "files",
    [("rankings/scifact.trec",), ("results/a.txt",), ("per_query/a.json",), (MARKER,), ("recipe.yaml", "run.json")],
)
def test_a_benchmark_overwrites_no_file_of_others(tmp_path: Path, files: tuple[str, ...]) -> None:
    folder = write(tmp_path / "out", *files)
    with pytest.raises(UsageError, match="name another folder"):
        benchmark_model("none/such", ["python:logging"], split="test", precision="fp32", max_length=None, out=folder)
    assert content(folder) == {name: name for name in files}


def test_a_benchmark_writes_beside_other_files_and_into_its_own_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", "notes.txt")
    check_results_folder(folder, "none/such", [])
    with held(folder, "benchmark"):
        write(folder, "results/r.json")
    check_results_folder(folder, "none/such", [])
    check_results_folder(write(tmp_path / "old", "results/r.json", "rankings/r.trec", "per_query/r.json"), "n/s", [])
    model = write(tmp_path / "model", "modules.json")
    with pytest.raises(UsageError, match="lies in the folder of"):
        check_results_folder(model, str(model), [])
    with pytest.raises(UsageError, match="holds results of ranksaga benchmark"):
        check_run_folder(folder, "none/such", [])


HOLD = (
    "import sys; from pathlib import Path; from ranksaga.run.folder import held\n"
    "with held(Path(sys.argv[1]), 'run'): print('held', flush=True); sys.stdin.read()"
)


def test_two_processes_are_not_at_work_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {first.pid} on .* is at work there"):
            run_recipe(recipe("/nowhere/model"), folder, Silent())
        assert json.loads((folder / MARKER).read_text())["process"] == first.pid
        first.kill()
    with pytest.raises(UsageError, match="no such folder"):  # a killed process keeps nobody out
        run_recipe(recipe("/nowhere/model"), folder, Silent())


def test_what_killed_processes_were_writing_goes(tmp_path: Path) -> None:
    parts = (".run.json.ab12.ranksaga-part", "stages/train/0/.epoch.x.ranksaga-part", ".model.y.ranksaga-part/w.bin")
    kept = (".run.json.abcdefgh", "stages/.hidden", "a.ranksaga-part", "stages/.new.x.ranksaga-part")
    write(tmp_path, *parts, *kept)
    old = time.time() - 7200
    for path in (*(tmp_path / name for name in (*parts, *kept[:3])), tmp_path / ".model.y.ranksaga-part"):
        os.utime(path, (old, old))
    clear_parts(tmp_path)
    assert set(content(tmp_path)) == set(kept)
