"""Two measured models: what differs, what is proven, and what a gate lets pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import pytest

from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.evaluate.per_query import evaluation_json
from ranksaga.files import write_json
from ranksaga.run.model_comparison import compare_results

FACTS = {"prompts": {"query": "q", "document": ""}, "max_length": 256, "precision": "fp32", "similarity": "cosine"}


def written(folder: Path, *, datasets: tuple[str, ...] = ("a",), origin: Origin | None, values: float = 0.5) -> Path:
    """A result folder with 10 queries of each dataset."""
    ids = tuple(f"q{row}" for row in range(10))
    for name in datasets:
        column = np.full(10, values)
        one = Evaluation(name, "test", "x", ids, {"ndcg_at_10": column}, origin=origin)
        write_json(folder / "per_query" / f"{name}.json", evaluation_json(one))
    return folder


def test_equal_origins_compare_without_a_remark(tmp_path: Path) -> None:
    before = written(tmp_path / "before", origin=Origin("f1", {**FACTS, "revision": "1"}))
    after = written(tmp_path / "after", origin=Origin("f1", {**FACTS, "revision": "2"}), values=0.6)
    compared = compare_results(before, after)
    assert compared.remarks == []
    assert [row.change for row in compared.rows] == [pytest.approx(0.1)]


def test_other_data_under_one_name_is_refused(tmp_path: Path) -> None:
    before = written(tmp_path / "before", origin=Origin("f1", FACTS))
    after = written(tmp_path / "after", origin=Origin("f2", FACTS))
    with pytest.raises(DataError, match=r"a: .*fingerprint f1 against f2"):
        compare_results(before, after)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"max_length": 32}, "settings", "the length in tokens differs, 256 against 32: a"),
        ({"prompts": {"query": "", "document": ""}}, "settings", "the query prompt differs, 'q' against '': a"),
        ({"prompts": {"query": "q", "document": "d"}}, "settings", "the document prompt differs, '' against 'd': a"),
        ({"precision": "bf16"}, "notes", "the precision differs, 'fp32' against 'bf16': a"),
        ({"similarity": "dot"}, "notes", "the similarity differs, 'cosine' against 'dot': a"),
    ],
)
def test_other_settings_are_said(change: dict[str, Any], kind: str, said: str, tmp_path: Path) -> None:
    before = written(tmp_path / "before", origin=Origin("f1", FACTS))
    compared = compare_results(before, written(tmp_path / "after", origin=Origin("f1", {**FACTS, **change})))
    assert list(getattr(compared, kind)) == compared.remarks == [said]


def test_a_missing_dataset_and_a_missing_record_are_said(tmp_path: Path) -> None:
    before = written(tmp_path / "before", datasets=("a", "b"), origin=Origin("f1", FACTS))
    after = written(tmp_path / "after", origin=None)
    compared = compare_results(before, after)
    assert compared.unmatched == ("b",)
    assert compared.remarks[0] == "not compared, measured with one of the two only: b"
    assert len(compared.notes) == 1
    assert "cannot be checked" in compared.notes[0]


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path / "old", origin=None)
    file = folder / "per_query" / "a.json"
    stored = json.loads(file.read_text())
    del stored["dataset_fingerprint"], stored["encoder"]
    file.write_text(json.dumps(stored))
    assert len(compare_results(folder, folder).rows) == 1


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda stored: [stored],
    "a text": lambda _: "x",
    "null": lambda _: None,
    "a number": lambda _: 3,
    "no values": lambda stored: {key: value for key, value in stored.items() if key != "values"},
    "values in a list": lambda stored: {**stored, "values": [1]},
    "values that are texts": lambda stored: {**stored, "values": {"ndcg_at_10": ["x"] * 10}},
    "too few values": lambda stored: {**stored, "values": {"ndcg_at_10": [0.5]}},
    "values that are null": lambda stored: {**stored, "values": {"ndcg_at_10": [None] * 10}},
    "huge values": lambda stored: {**stored, "values": {"ndcg_at_10": [10**400] * 10}},
    "a name that is a list": lambda stored: {**stored, "dataset": ["a"]},
    "an id twice": lambda stored: {**stored, "query_ids": ["q"] * 10},
    "ids that are numbers": lambda stored: {**stored, "query_ids": list(range(10))},
    "ids that are null": lambda stored: {**stored, "query_ids": None},
}


@pytest.mark.parametrize("name", [*BROKEN, "cut", "no JSON", "deep", "no text"])
def test_a_broken_file_is_one_line_with_its_name(name: str, tmp_path: Path) -> None:
    good = written(tmp_path / "good", origin=Origin("f1", FACTS))
    bad = written(tmp_path / "bad", origin=Origin("f1", FACTS))
    file = bad / "per_query" / "a.json"
    text = file.read_text()
    raw = {"cut": text[:60].encode(), "no JSON": b"x", "deep": b"[" * 100_000, "no text": b"\xff\xfe\x00"}
    file.write_bytes(raw[name] if name in raw else json.dumps(BROKEN[name](json.loads(text))).encode())
    with pytest.raises(DataError) as caught:
        compare_results(good, bad)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dataset_twice_in_a_folder_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", origin=None)
    shutil.copy(folder / "per_query" / "a.json", folder / "per_query" / "b.json")
    with pytest.raises(DataError, match=r"b\.json: a second file of 'a'"):
        compare_results(folder, folder)


GATE = ["--fail-on-regression"]


@pytest.mark.parametrize(
    ("change", "options", "code"),
    [
        ({}, [], 0),
        ({}, GATE, 0),
        ({"max_length": 32}, [], 0),
        ({"max_length": 32}, GATE, 3),
        ({"prompts": {"query": "", "document": ""}}, GATE, 3),
        ({"prompts": {"query": "", "document": ""}}, [*GATE, "--allow-other-settings"], 0),
        ({"precision": "bf16"}, GATE, 0),
    ],
)
def test_the_gate_passes_on_like_for_like_only(
    change: dict[str, Any], options: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "before", origin=Origin("f1", FACTS))
    after = written(tmp_path / "after", origin=Origin("f1", {**FACTS, **change}))
    assert cli(["compare", str(before), str(after), *options]) == code
    assert ("differs" in "".join(capsys.readouterr())) == bool(change)


def test_the_gate_fails_where_a_dataset_is_missing_or_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = Origin("f1", FACTS)
    before = written(tmp_path / "before", datasets=("a", "b"), origin=origin)
    after = written(tmp_path / "after", origin=origin)
    assert cli(["compare", str(before), str(after), *GATE]) == 3
    assert "b: not compared, measured with one of the two only" in capsys.readouterr().err
    worse = written(tmp_path / "worse", datasets=("a", "b"), origin=origin, values=0.2)
    assert cli(["compare", str(before), str(worse), *GATE]) == 3
    said = capsys.readouterr().err
    assert "a: significantly worse (-60.0% [-60.0%, -60.0%], Holm-corrected p = 0.0" in said
    assert "; b: significantly worse (" in said
    other = written(tmp_path / "other", datasets=("a", "b"), origin=Origin("f2", FACTS))
    assert cli(["compare", str(before), str(other), *GATE]) == 2


def cli(arguments: list[str]) -> int:
    """The exit code of a command."""
    from ranksaga.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["ranksaga", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
    return cast("int", caught.value.code or 0)


@pytest.mark.parametrize(
    ("value", "limit", "code", "said"),
    [
        (0.49, "2%", 0, ""),  # -2% exactly is not more than 2%
        (0.49, "1.9", 3, "a: lost more than 1.9% (-2.0% [-10.0%, +0.0%], Holm-corrected p = 1, n = 10)"),
        (0.51, "0%", 0, ""),
        (0.49, "two", 2, "--max-loss two: expected a percentage from 0 to 100, such as 2%"),
        (0.49, "-1%", 2, "expected a percentage"),
        (0.49, "nan", 2, "expected a percentage"),
    ],
)
def test_the_largest_loss_that_passes_is_told(
    value: float, limit: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "before", origin=Origin("f1", FACTS), values=0.5)
    after = written(tmp_path / "after", origin=Origin("f1", FACTS), values=0.5)
    # One query loses, so that no test could prove it.
    stored = json.loads((after / "per_query" / "a.json").read_text())
    stored["values"]["ndcg_at_10"][0] += 10 * (value - 0.5)
    write_json(after / "per_query" / "a.json", stored)
    assert cli(["compare", str(before), str(after), f"--max-loss={limit}"]) == code
    assert said in capsys.readouterr().err


def test_a_program_is_told_n_interval_and_p_and_who_has_too_few_queries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "before", origin=Origin("f1", FACTS), values=0.5)
    after = written(tmp_path / "after", origin=Origin("f1", FACTS), values=0.5)
    stored = json.loads((after / "per_query" / "a.json").read_text())
    stored["values"]["ndcg_at_10"][0] = 0.0
    write_json(after / "per_query" / "a.json", stored)
    assert cli(["compare", str(before), str(after), "--json"]) == 0
    shown = capsys.readouterr()
    (row,) = json.loads(shown.out)
    assert (row["n_queries"], row["change_pct"], row["p"], row["unresolved"]) == (10, pytest.approx(-10.0), 1.0, True)
    assert row["ci_low"] <= row["change"] <= row["ci_high"]
    assert "too few queries to see a loss of 5%: a (10 queries)" in shown.err


def test_a_run_is_compared_by_what_it_ships_or_by_any_of_its_systems(tmp_path: Path) -> None:
    before = written(tmp_path / "before", origin=Origin("f1", FACTS))
    run = tmp_path / "run"
    for system, values in (("baseline", 0.5), ("first", 0.6), ("second", 0.7)):
        made = written(tmp_path / system, origin=Origin("f1", FACTS), values=values) / "per_query"
        shutil.copytree(made, run / "per_query" / system)
    (run / "recipe.yaml").write_text(
        "datasets: [a]\nsystems: {first: {like: best}, second: {like: best}}\nships: first\n"
    )
    assert [row.change for row in compare_results(before, run).rows] == [pytest.approx(0.1)]
    assert [row.change for row in compare_results(run, run / "per_query" / "second").rows] == [pytest.approx(0.1)]


def test_every_format_has_n_interval_and_p(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = Origin("f1", FACTS)
    before = written(tmp_path / "before", datasets=("a", "b\ufffe<&>", "c"), origin=origin)
    worse = written(tmp_path / "worse", datasets=("a", "b\ufffe<&>"), origin=origin, values=0.4)
    shown = {}
    for form in ("text", "json", "markdown", "junit"):
        assert cli(["compare", str(before), str(worse), *GATE, "--format", form]) == 3
        shown[form] = capsys.readouterr().out
    (first, _) = json.loads(shown["json"])
    assert (first["n_queries"], first["change_pct"], first["ci_low"]) == (10, pytest.approx(-20), pytest.approx(-0.1))
    suite = ElementTree.fromstring(shown["junit"])
    assert suite.attrib == {"name": "ranksaga compare ndcg_at_10", "tests": "3", "failures": "3"}
    names = [case.attrib["name"] for case in suite]
    assert names == ["a", "b\ufffd<&>", "c"]
    reasons = [case.find("failure").attrib["message"] for case in suite]  # type: ignore[union-attr]
    assert reasons[0].startswith("significantly worse (-20.0% [-20.0%, -20.0%], Holm-corrected p = 0.0")
    assert reasons[0].endswith(", n = 10)")
    assert reasons[2] == "not compared, measured with one of the two only"
    for form in ("text", "markdown"):
        assert "not compared, measured with one of the two only: c" in shown[form]
        assert "-20.0%" in shown[form]


@pytest.mark.parametrize("options", [["--metric", "ndcg_at_3"], ["--metric", "map_at_100"], ["--format", "xml"]])
def test_a_metric_or_format_that_is_not_there_is_one_line(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "one", origin=Origin("f1", FACTS))  # with nDCG@10 alone
    assert cli(["compare", str(folder), str(folder), *options]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
