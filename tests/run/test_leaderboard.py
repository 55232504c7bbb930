"""Several runs as one table: by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ranksaga.cli import app
from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.evaluate.per_query import write_evaluation
from ranksaga.run.leaderboard import leaderboard


def run(folder: Path, values: dict[str, dict[str, float]], fingerprint: str = "f", queries: int = 4) -> Path:
    """A run's values: by system, then by dataset the value of every query."""
    ids = tuple(f"q{row}" for row in range(queries))
    for system, datasets in values.items():
        for name, value in datasets.items():
            column = np.full(queries, value)
            one = Evaluation(name, "test", system, ids, {"ndcg_at_10": column}, origin=Origin(fingerprint, {}))
            write_evaluation(folder / "per_query" / system, one)
    return folder


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    small = run(tmp_path / "small", {"baseline": {"a": 0.2, "b": 0.4}, "best": {"a": 0.5, "b": 0.5}})
    large = {
        "baseline": {"a": 0.4, "b": 0.4, "c": 0.9},
        "best": {"a": 0.3, "b": 0.9, "c": 0.1},
        "hybrid": {"a": 0.9},  # not on every dataset: not ranked
    }
    return [small, run(tmp_path / "large", large)]


def test_systems_are_ranked_by_their_mean_over_what_all_runs_measured(two: list[Path]) -> None:
    board = leaderboard(two)
    assert board.datasets == ("a", "b")
    assert board.left_out == ("c",)
    ranked = [(standing.run, standing.system) for standing in board.standings]
    assert ranked == [("large", "best"), ("small", "best"), ("large", "baseline"), ("small", "baseline")]
    assert [standing.mean for standing in board.standings] == pytest.approx([0.6, 0.5, 0.4, 0.3])


def test_the_command_prints_it(two: list[Path]) -> None:
    shown = CliRunner().invoke(app, ["report", *map(str, two)])
    assert shown.exit_code == 0
    assert re.search(r"\| large +\| best +\| +0\.6000 +\| +0\.3000 +\| +0\.9000 +\|", shown.output)
    assert "not measured by every run: c" in shown.output
    told = json.loads(CliRunner().invoke(app, ["report", *map(str, two), "--json"]).output)
    assert told["systems"][0] == {"run": "large", "system": "best", "mean": pytest.approx(0.6), "a": 0.3, "b": 0.9}


def test_what_cannot_be_ranked_is_one_line(two: list[Path], tmp_path: Path) -> None:
    other = run(tmp_path / "other", {"baseline": {"a": 0.1}}, fingerprint="g")
    fewer = run(tmp_path / "fewer", {"baseline": {"a": 0.1}}, queries=3)
    apart = run(tmp_path / "apart", {"baseline": {"z": 0.1}})
    twin = run(tmp_path / "again" / "small", {"baseline": {"a": 0.1}})
    for second, said in (
        (other, "a: small and other measured other documents, queries or judgments"),
        (fewer, "a: small and fewer measured other"),
        (apart, "share no dataset"),
        (twin, "two runs have one name"),
        (tmp_path, "no per_query/baseline there"),
    ):
        with pytest.raises(DataError, match=said):
            leaderboard([two[0], second])
