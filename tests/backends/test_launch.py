"""Where a run can be sent, and the one line that says what is missing; needs no back end to be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ranksaga.backends.base import launch
from ranksaga.config.load import load_recipe
from ranksaga.errors import UsageError

STUDY = Path(__file__).parents[2] / "benchmarking"


@pytest.mark.parametrize("package", ["modal", "ray"])
def test_without_its_package_there_is_one_line_that_says_how_to_install_it(package: str, tmp_path: Path) -> None:
    without = f"import sys; sys.modules['{package}'] = None; "
    code = without + f"sys.argv = ['ranksaga', 'run', '--on', '{package}']; import ranksaga.cli; ranksaga.cli.main()"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert shown.returncode == 2
    assert len(shown.stderr.strip().splitlines()) == 1
    assert f'pip install "ranksaga[{package}]"' in shown.stderr


@pytest.mark.parametrize("place", ["nowhere", "torchrun", "torchrun:0", "ray:0"])
def test_a_place_that_is_none_is_a_usage_error(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--on {place}"):
        launch(load_recipe(None), tmp_path, on=place)
    assert not list(tmp_path.iterdir())


def test_the_workflow_script_gives_the_studys_commands_in_order(tmp_path: Path) -> None:
    for name in ("modal", "python"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    shown = subprocess.run(
        ["./run_fresh_workflow.sh", "L4"], capture_output=True, text=True, cwd=STUDY, env=environment
    )
    assert shown.stdout.splitlines() == [
        "modal deploy modal_fine_tune_advanced.py",
        "modal run modal_app.py::run_benchmark --fresh --gpu L4",
        "modal run modal_fine_tune_advanced.py --gpu L4",
        "modal run modal_app.py::run_optimized_benchmark --model-name ranksaga-optimized-e5-v2 --gpu L4",
        "python compare_results.py",
    ]
    (tmp_path / "modal").unlink()
    missing = subprocess.run(["./run_fresh_workflow.sh"], capture_output=True, text=True, cwd=STUDY, env=environment)
    assert missing.returncode == 2
    assert "pip install" in missing.stderr


def test_the_documented_settings_are_those_of_the_recipe() -> None:
    recipe = load_recipe(STUDY / "e5-beir.yaml", environment={})
    text = (STUDY / "ADVANCED_TRAINING.md").read_text(encoding="utf-8")
    for label, key in (("epochs", "epochs"), ("learning rate", "learning_rate"), ("batch size", "batch_size")):
        values = " | ".join(str(getattr(settings, key, "-")) for settings in recipe.systems.values())
        assert f"| {label} | {values} |" in text
