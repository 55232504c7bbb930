"""Files to import that want to be more than data: one line, or the data and nothing else."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ranksaga import cli
from ranksaga.cli.output import echo
from ranksaga.config.load import load_recipe
from ranksaga.data.importing.tables import read_json_value, read_table
from ranksaga.data.importing.text_files import read_bytes
from ranksaga.errors import DataError
from ranksaga.run.first_recipe import _word
from ranksaga.untrusted.yaml_input import read_yaml

BELLS = "a\x1b]0;owned\x07 \x9b31m \u202egpj.exe"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ranksaga", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"question,answer\n" + b"a,b\n" * (8 << 20), mtime=0))


def make_workbook_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b"<row/>" * (4 << 20))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe.csv": (make_fifo, "there is no such file"),
    "bomb.csv.gz": (make_bomb, "it unpacks to more than 10485760 bytes"),
    "bomb.xlsx": (make_workbook_bomb, "it unpacks to 25165824 bytes"),
    "twice.jsonl": (lambda path: path.write_text('{"query": "a", "query": "b", "passage": "c"}\n'), "stands twice"),
    "twice.json": (lambda path: path.write_text('[{"query": "a", "query": "b", "passage": "c"}]'), "stands twice"),
    "deep.json": (lambda path: path.write_text("[" * 100_000), "nested too deeply"),
    "long.json": (lambda path: path.write_text('[{"query": ' + "9" * 5000 + "}]"), "a number of 5000 digits"),
    "endless.jsonl": (lambda path: path.write_text('{"query": Infinity}\n'), "Infinity is no JSON"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(60)
def test_a_table_that_is_made_to_harm_is_one_line(name: str, tmp_path: Path) -> None:
    make, said = HOSTILE[name]
    if name.endswith(".xlsx"):
        pytest.importorskip("openpyxl")
    make(tmp_path / name)
    with pytest.raises(DataError, match=said) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.timeout(60)
def test_a_pipe_among_texts_is_not_waited_for(tmp_path: Path) -> None:
    make_fifo(tmp_path / "notes.md")
    with pytest.raises(DataError, match="a FIFO, expected a regular file"):
        read_bytes(tmp_path / "notes.md")


def test_nan_in_a_table_is_an_empty_cell(tmp_path: Path) -> None:
    """As Python's json and pandas write one."""
    rows = [{"query": "a", "passage": "b", "title": float("nan")}, {"query": "c", "passage": "d", "title": "e"}]
    for path, text in (
        (tmp_path / "a.json", json.dumps(rows)),
        (tmp_path / "a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows)),
    ):
        path.write_text(text)
        assert [record["title"] for record in read_table(path).records] == [None, "e"]
        assert read_json_value(path)[0][0]["title"] is None


def test_what_a_command_prints_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"{BELLS}\nnext")
    assert capsys.readouterr().out == "a\\x1b]0;owned\\x07 \\x9b31m \\u202egpj.exe\nnext\n"


def test_texts_of_an_import_cannot_act_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("faq.csv").write_text(f"question,answer\n{BELLS},{BELLS} b\nq,c\nr,d\n", encoding="utf-8")
    assert command(monkeypatch, "datasets", "import", "faq.csv", "--to", "datasets/faq") == 0
    Path("x\x1b[2Jy.csv").write_text("question,answer\na,b\n", encoding="utf-8")
    assert command(monkeypatch, "init") == 0
    shown = "".join(capsys.readouterr())
    assert "gpj.exe" in shown
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


@pytest.mark.parametrize(
    "name",
    [
        *("12", "1.5", "true", "null"),
        "a, b",
        "a]",
        "no",
        "1:30",
        "010",
        "# c",
        "x: y",
        "'q'",
        '"q"',
        "- d",
        "\x85 e",
        "\u2028f",
        "😀",
        "*x",
        "a\nb",
        "~",
        "",
    ],
)
def test_any_name_is_a_value_of_a_recipe(name: str) -> None:
    assert read_yaml(f"guards: [{_word(name)}, {_word(name)}]\nmodel: {_word(name)}\n").value == {
        "guards": [name, name],
        "model": name,
    }


def test_a_folders_name_writes_no_key_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    for name in ("a", "z\ntrust_remote_code: true\n#"):
        (here / name).mkdir(parents=True)
        (here / name / "modules.json").write_text("[]")
    monkeypatch.chdir(here)
    assert command(monkeypatch, "init") == 0
    recipe = load_recipe(here / "recipe.yaml", environment={})
    assert recipe.model == "./a"
    assert not recipe.trust_remote_code
    assert "# Also here: ./z\\ntrust_remote_code: true" in (here / "recipe.yaml").read_text()
