"""What the command line makes of a user's mistakes: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ranksaga import cli
from ranksaga.data.beir import write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries


def ranksaga(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ranksaga", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = Corpus(("d1", "d2"), ("a title", ""), ("one text", "another text"))
    dataset = Dataset("pets", corpus, Queries(("q1",), ("which one?",)), {"test": Qrels.of([(0, 1, 1)])})
    write_beir(dataset, tmp_path / "pets")
    return tmp_path


def test_a_path_that_cannot_be_used_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, file = folder / "recipe.yaml", folder / "file"
    recipe.write_text(f"datasets: [{folder / 'pets'}]\n", encoding="utf-8")
    file.write_text("", encoding="utf-8")
    for command in (
        ["run", recipe, "--out", file],
        ["benchmark", "-m", "minilm", "-d", folder / "pets", "--out", file],
    ):
        assert ranksaga(*command, monkeypatch=monkeypatch) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"ranksaga: {file}")
        assert said.count("\n") == 1


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ranksaga.data.resolve.available", interrupted)
    assert ranksaga("datasets", "list", monkeypatch=monkeypatch) == 130
    assert capsys.readouterr().err == "ranksaga: interrupted; the same command continues from here\n"


def test_a_report_is_of_a_finished_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "runs" / "half"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(f"datasets: [{folder / 'pets'}]\n", encoding="utf-8")
    assert ranksaga("report", run, monkeypatch=monkeypatch) == 2
    assert "not finished" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["recipe.yaml"], "nothing was begun"


def test_lengths_that_hold_no_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for length in ("-5", "0", "1"):
        command = ["benchmark", "-m", "minilm", "-d", "scifact", "--max-length", length]
        assert ranksaga(*command, monkeypatch=monkeypatch) == 2


def test_a_dataset_is_shown_with_an_example(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ranksaga("datasets", "show", folder / "pets", "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["example"] == {"query": "q1: which one?", "relevant": "d2: another text"}


def test_datasets_of_one_name_or_one_content_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Corpus(("d1",), ("",), ("something else",))
    other = Dataset("pets", corpus, Queries(("q1",), ("what?",)), {"test": Qrels.of([(0, 0, 1)])})
    write_beir(other, folder / "other" / "pets")
    (folder / "copy").symlink_to(folder / "pets")
    for second, said in ((folder / "other" / "pets", "both called 'pets'"), (folder / "copy", "are one dataset")):
        command = ["benchmark", "-m", "minilm", "-d", folder / "pets", "-d", second]
        assert ranksaga(*command, monkeypatch=monkeypatch) == 2
        assert said in capsys.readouterr().err


def test_a_dry_run_names_what_is_not_there_and_loads_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, pets = folder / "recipe.yaml", folder / "pets"
    (folder / "empty").mkdir()

    def dry(datasets: str, *more: str, model: str = "org/name") -> tuple[int, str]:
        recipe.write_text(f"model: {model}\ndatasets: [{datasets}]\n", encoding="utf-8")
        code = ranksaga("run", recipe, "--dry-run", *more, monkeypatch=monkeypatch)
        return code, capsys.readouterr().err

    assert dry(f"{pets}, scifact, 'python:json'") == (0, "")
    for datasets, model, on, said in (
        (str(folder / "gone"), "org/name", "local", "gone"),
        (str(folder / "empty"), "org/name", "local", "none of them is there"),
        ("no-such-dataset", "org/name", "local", "there is no dataset 'no-such-dataset'"),
        ("'python:no_such_package'", "org/name", "local", "no package 'no_such_package' is installed"),
        (str(pets), "./gone", "local", "there is no such folder"),
        (str(pets), "'two words'", "local", "neither a folder nor a hub id"),
        (str(pets), str(pets), "local", "is no model"),
        (str(pets), "org/name", "moon", "--on moon"),
        (str(pets), "org/name", "torchrun:none", "number of processes"),
    ):
        code, error = dry(datasets, "--on", on, model=model)
        assert code == 2, said
        assert said in error
        assert error.count("\n") == 1
    names = f"{pets}, scifact, 'python:json'"
    recipe.write_text(f"datasets: [{names}]\n", encoding="utf-8")
    program = f"import sys; sys.argv = ['ranksaga', 'run', {str(recipe)!r}, '--dry-run']; import ranksaga.cli; "
    program += (
        "import contextlib\nwith contextlib.suppress(SystemExit): ranksaga.cli.main()\nprint('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"
    assert sorted(path.name for path in folder.iterdir()) == ["empty", "pets", "recipe.yaml"]


def test_check_says_what_a_run_would_refuse(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qrels = folder / "pets" / "qrels"
    assert ranksaga("datasets", "check", folder / "pets", monkeypatch=monkeypatch) == 0
    assert "too few for 3 folds" in capsys.readouterr().out
    (qrels / "test.tsv").rename(qrels / "validation.tsv")
    assert ranksaga("datasets", "check", folder / "pets", monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    assert "there is no split test (found: dev)" in shown.out
    assert "good" not in shown.out
