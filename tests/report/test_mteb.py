"""The MTEB layout, by hand and read back by mteb itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.report.mteb import result_folder, write_model_meta, write_task_result

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
EVALUATION = Evaluation(
    "SciFact",
    "test",
    "baseline",
    ("a", "b", "c"),
    {"ndcg_at_10": np.array([1.0, 0.0, 1.0]), "recall_at_100": np.array([1.0, 0.5, 0.0])},
)


def _write(folder: Path, evaluation: Evaluation = EVALUATION) -> Path:
    return write_task_result(evaluation, folder, model=MODEL, revision="abc123", dataset_revision="0cf7")


def test_the_file_is_as_mteb_writes_it(tmp_path: Path) -> None:
    path = _write(tmp_path)
    assert path == tmp_path / "results/sentence-transformers__all-MiniLM-L6-v2/abc123/SciFact.json"
    assert json.loads(path.read_text()) == {
        "dataset_revision": "0cf7",
        "task_name": "SciFact",
        "mteb_version": None,
        "scores": {
            "test": [
                {
                    "ndcg_at_10": 0.666667,
                    "recall_at_100": 0.5,
                    "main_score": 0.666667,
                    "hf_subset": "default",
                    "languages": ["eng-Latn"],
                }
            ]
        },
        "evaluation_time": None,
        "kg_co2_emissions": None,
    }


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    outside = Evaluation("../../python:stdlib", "test", "best", EVALUATION.query_ids, EVALUATION.values)
    path = _write(tmp_path, outside)
    assert path.name == "_.._python_stdlib-5a0a2d27.json"
    assert path.parent == result_folder(tmp_path, MODEL, "abc123")
    assert result_folder(tmp_path, "../x", "../y").resolve().is_relative_to(tmp_path)


@pytest.mark.slow
def test_mteb_reads_it(tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb", reason="mteb is not installed (extra [bench])")
    path = _write(tmp_path)
    write_model_meta(tmp_path, model=MODEL, revision="abc123", max_tokens=256)
    result = mteb.TaskResult.from_disk(path)
    assert (result.task_name, result.get_score()) == ("SciFact", 0.666667)
    loaded = mteb.ResultCache(tmp_path).load_results(require_model_meta=True, include_remote=False)
    assert [(each.model_name, each.model_revision) for each in loaded.model_results] == [(MODEL, "abc123")]
    meta = mteb.models.ModelMeta(**json.loads((path.parent / "model_meta.json").read_text()))
    assert (meta.name, meta.max_tokens) == (MODEL, 256)
