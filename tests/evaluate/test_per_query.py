"""Per-query values on disk: what is written comes back, and what is something else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.evaluate.per_query import evaluation_json, evaluation_of, read_evaluations, write_evaluation
from ranksaga.files import write_json

VALUES = {"ndcg_at_10": np.array([0.123456789123, 1.0]), "recall_at_100": np.array([0.0, 0.5])}
ORIGIN = Origin("fingerprint", {"max_length": 8})


def evaluation(dataset: str, *, origin: Origin | None = ORIGIN) -> Evaluation:
    return Evaluation(dataset, "test", "baseline", ("q1", "q2"), VALUES, out_of_fold=True, origin=origin)


@pytest.mark.parametrize("origin", [ORIGIN, Origin("fingerprint"), None])
def test_what_is_written_comes_back_to_nine_digits(origin: Origin | None, tmp_path: Path) -> None:
    for name in ("scifact", "../up", "python:stdlib?limit=3"):
        write_evaluation(tmp_path / "one", evaluation(name, origin=origin))
    read = {each.dataset: each for each in read_evaluations(tmp_path / "one", "other", remedy="-")}
    assert sorted(read) == ["../up", "python:stdlib?limit=3", "scifact"]
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "one"] * 3
    first = read["scifact"]
    assert (first.system, first.split, first.query_ids, first.out_of_fold) == ("other", "test", ("q1", "q2"), True)
    assert first.origin == origin
    assert first.values["ndcg_at_10"].tolist() == [0.123456789, 1.0]


def test_a_folder_without_files_has_no_evaluations(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path / "missing", "baseline", remedy="-") == []


@pytest.mark.parametrize("content", ["{}", "[", "null", '{"dataset": "a"}', "[" * 100_000])
def test_a_damaged_file_is_named_with_its_remedy(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: no per-query results of ranksaga .*; do it again$"):
        read_evaluations(tmp_path, "baseline", remedy="do it again")


def test_a_changed_figure_or_checksum_is_found_and_files_without_one_are_read(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation("a"))
    file = tmp_path / "a.json"
    written = file.read_text()
    for old, new in (("0.123456789", "0.923456789"), ('"q1"', '"q3"'), ('"checksum"', '"chacksum"'), ("true", "null")):
        assert old in written
        file.write_text(written.replace(old, new))
        with pytest.raises(DataError, match="its content is not what was written"):
            read_evaluations(tmp_path, "baseline", remedy="-")
    write_json(file, evaluation_json(evaluation("a")))
    assert [one.dataset for one in read_evaluations(tmp_path, "baseline", remedy="-")] == ["a"]


def test_a_dataset_that_stands_in_two_files_is_refused(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation("a"))
    (tmp_path / "b.json").write_text((tmp_path / "a.json").read_text())
    with pytest.raises(DataError, match=r"b\.json: a second file of 'a'"):
        read_evaluations(tmp_path, "baseline", remedy="-")


@pytest.mark.parametrize("change", [{"values": [1]}, {"query_ids": ["q1", "q1"]}, {"values": {"ndcg_at_10": [0.5]}}])
def test_something_else_is_a_value_error(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        evaluation_of({**evaluation_json(evaluation("a")), **change})
