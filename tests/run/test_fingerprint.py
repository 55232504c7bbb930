"""Whatever changes a file that a run reads is seen; a fingerprint looks at no content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ranksaga.config.recipe import Recipe
from ranksaga.files import files_below
from ranksaga.run.fingerprint import fingerprint
from ranksaga.run.model_results import _Kept
from ranksaga.run.pipeline import finished, is_finished


def in_place(file: Path) -> None:
    status = file.stat()
    file.write_text("b" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy that keeps times


def older_moved_in(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("b" * file.stat().st_size)
    os.utime(other, (1e9, 1e9))
    other.replace(file)


def same_time_moved_in(file: Path) -> None:
    """As rsync -t does it: another file of the same size and time."""
    status, other = file.stat(), file.with_name("other")
    other.write_text("b" * status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)


def renamed(file: Path) -> None:
    file.rename(file.with_name("renamed" + file.suffix))


def swapped(file: Path) -> None:
    """Two files of equal size change names."""
    other = file.with_name("twin" + file.suffix)
    file.rename(file.with_name("third"))
    other.rename(file)
    file.with_name("third").rename(other)


CHANGES: list[Callable[[Path], object]] = [
    in_place,
    older_moved_in,
    same_time_moved_in,
    renamed,
    swapped,
    lambda file: file.unlink(),
    lambda file: file.with_name("added" + file.suffix).write_text(""),
    lambda file: file.write_text(""),
]


def make(folder: Path, suffix: str = ".txt") -> Path:
    """A folder with two files of equal size below it; the first is given back."""
    (folder / "deep").mkdir(parents=True)
    for name in ("file", "twin"):
        (folder / "deep" / f"{name}{suffix}").write_text("a" * 10)
    return folder / "deep" / f"file{suffix}"


def recipe(model: Path | str = "none/such", dataset: str = "python:logging") -> Recipe:
    return Recipe.model_validate({"name": "x", "model": str(model), "datasets": [dataset]})


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["model", "dataset", "python", "linked folder", "linked file"])
def test_every_change_of_a_file_is_seen(tmp_path: Path, kind: str, change: Callable[[Path], object]) -> None:
    source = tmp_path / "source"
    file = make(source, ".py" if kind == "python" else ".txt")
    place = source
    if kind.startswith("linked"):
        place = tmp_path / "place"
        place.mkdir()
        for name in ("file.txt", "twin.txt") if kind == "linked file" else ("deep",):
            (place / name).symlink_to(source / "deep" / ("" if name == "deep" else name))
    asked = {"python": recipe(dataset=f"python:{place}"), "model": recipe(place)}.get(kind, recipe(dataset=str(place)))
    before = fingerprint(asked)
    assert fingerprint(asked) == before
    change(file)
    if kind == "linked file" and (source / "deep" / "added.txt").exists():
        (place / "added.txt").symlink_to(source / "deep" / "added.txt")
    assert fingerprint(asked) != before


def test_a_link_to_another_file_or_folder_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name, target in {"one": "a" * 10, "two": "b" * 10}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.txt").write_text(target)
        os.utime(tmp_path / name / "file.txt", (1e9, 1e9))
    for inside, target in {"link.txt": "file.txt", "link": ""}.items():
        (place / inside).symlink_to(tmp_path / "one" / target)
        before = fingerprint(recipe(dataset=str(place)))
        (place / inside).unlink()
        (place / inside).symlink_to(tmp_path / "two" / target)
        assert fingerprint(recipe(dataset=str(place))) != before


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "deep" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "twice").symlink_to(tmp_path / "a" / "deep")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / ".git").mkdir()
    (tmp_path / "a" / ".git" / "index").write_text("")
    names = [inside for inside, _ in files_below(tmp_path / "a")]
    assert names == ["deep/file.txt", "deep/twin.txt", "gone", "self", "twice/file.txt", "twice/twin.txt"]
    assert fingerprint(recipe(tmp_path / "a")) == fingerprint(recipe(tmp_path / "a"))


def test_a_model_of_the_hub_is_known_by_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--name"
    for revision in ("1" * 40, "2" * 40):
        (repository / "snapshots" / revision).mkdir(parents=True)
        (repository / "snapshots" / revision / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    assert fingerprint(recipe("org/name"))["model"] == ["org/name"]
    found = []
    for revision in ("1" * 40, "2" * 40):
        (repository / "refs" / "main").write_text(revision)
        found.append(fingerprint(recipe("org/name"))["model"])
        assert revision in found[-1][0]
    assert found[0] != found[1]


@pytest.mark.parametrize("change", [in_place, older_moved_in, same_time_moved_in, renamed])
def test_a_kept_benchmark_is_of_the_content_behind_links(tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = make(tmp_path / "elsewhere")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "linked").symlink_to(file.parent)
    before = _Kept.of(str(model), [])
    assert _Kept.of(str(model), []) == before
    change(file)
    assert _Kept.of(str(model), []) != before


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "3", '{"state": null}'])
def test_a_damaged_marker_or_record_is_no_finished_run(tmp_path: Path, damage: str) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "finished.json").write_text(damage)
    (tmp_path / "run.json").write_text(damage)
    assert not is_finished(recipe(), tmp_path)
    assert finished(recipe(), tmp_path) is None


def test_another_order_of_the_systems_is_another_report(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    values = {"model": str(tmp_path / "model"), "datasets": [str(tmp_path)], "ships": "best"}
    one, other = (
        Recipe.model_validate({**values, "systems": {name: {"like": "best"} for name in names}})
        for names in (("best", "more"), ("more", "best"))
    )
    assert one == other  # mappings that differ in order alone are equal
    assert fingerprint(one) != fingerprint(other)
