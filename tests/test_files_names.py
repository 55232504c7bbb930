"""A name as a file's: readable, and never another name's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranksaga.files import file_name

NAMES = [
    "x/y",
    "x_y",
    "x y",
    "x:y",
    "x?y",
    "x__y",
    ".x",
    "..x",
    "x",
    "",
    "_",
    "../x",
    "_.._x",
    "数据/集",
    "数据_集",
    "a" * 300,
    "a" * 301,
]


def test_no_two_names_give_one_file() -> None:
    files = [file_name(name) for name in NAMES]
    assert len(set(files)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_can_be_written_and_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{file_name(name)}.json"
    path.write_text("{}", encoding="utf-8")
    assert path.resolve().parent == tmp_path.resolve()


def test_plain_names_stay_as_they_are() -> None:
    for name in ("scifact", "cystic-fibrosis", "MyData_1.2", "数据"):
        assert file_name(name) == name
