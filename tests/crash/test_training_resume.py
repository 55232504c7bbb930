"""A training run that is killed ends as if nothing had happened."""

from __future__ import annotations

import json
import runpy
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ranksaga.encode.weight_files import load_weights
from ranksaga.errors import StageError

PROGRAM = Path(__file__).parents[1] / "train" / "tiny_training.py"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the other process: sums in another order end in other bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(PROGRAM)))


@pytest.fixture(scope="module")
def model(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = small.build_tiny_bert(tmp_path_factory.mktemp("tiny"))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(small: SimpleNamespace, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    small.run_small(model, folder)
    return folder


def steps_logged(folder: Path) -> int:
    log = folder / "loss.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def start_and_kill(forked: SimpleNamespace, model: Path, folder: Path, after: int) -> None:
    """Run in another process and kill it (signal 9) once ``after`` steps are logged."""
    process = forked.Program([PROGRAM, model, folder, 0.05])
    deadline = time.monotonic() + 120
    while steps_logged(folder) < after:
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)
    process.kill()
    process.wait()


def assert_same(folder: Path, expected: Path) -> None:
    """Bit-identical weights after every epoch, and the same loss curve."""
    for epoch in (1, 2, 3):
        ours, theirs = (load_weights(run / f"epoch-{epoch}.safetensors") for run in (folder, expected))
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in ours)

    def curve(run: Path) -> list[tuple[Any, ...]]:
        lines = [json.loads(line) for line in (run / "loss.jsonl").read_text().splitlines()]
        return [(line["step"], line["epoch"], line["loss"], line["learning_rate"]) for line in lines]

    assert curve(folder) == curve(expected)
    assert len(curve(folder)) == 15


@pytest.mark.slow
def test_killed_and_resumed(
    forked: SimpleNamespace, small: SimpleNamespace, model: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    start_and_kill(forked, model, folder, after=7)
    assert list(folder.glob("checkpoint-*.safetensors"))
    assert not (folder / "training.json").exists()
    result = small.run_small(model, folder)
    assert_same(folder, uninterrupted)
    expected = json.loads((uninterrupted / "training.json").read_text())
    assert list(result.losses) == expected["losses"]
    assert (result.steps, result.pairs) == (15, 120)
    assert not list(folder.glob("checkpoint-*"))


class KilledError(Exception):
    """Stands for the death of the process."""


def stop_after(small: SimpleNamespace, model: Path, folder: Path, steps: int) -> None:
    """Leave the folder as a run that died after so many steps, a checkpoint after each."""
    from sentence_transformers import SentenceTransformer

    def progress(*, step: int, **_: Any) -> None:
        if step > steps:
            raise KilledError

    with pytest.raises(KilledError):
        small.train(
            SentenceTransformer(str(model), device="cpu"),
            [small.word_pairs()],
            small.settings(),
            query_prompt="query: ",
            document_prompt="",
            max_length=32,
            precision="fp32",
            seed=7,
            folder=folder,
            progress=progress,
            checkpoint_seconds=0.0,
        )


def test_a_cut_checkpoint_and_a_torn_log_are_passed_over(
    small: SimpleNamespace, model: Path, uninterrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    stop_after(small, model, folder, 7)
    names = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert names == ["checkpoint-00000006.safetensors", "checkpoint-00000007.safetensors"]
    newest = folder / names[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with (folder / "loss.jsonl").open("a") as log:
        log.write('{"step": 9, "epo')
    small.run_small(model, folder)
    assert "checkpoint-00000007.safetensors cannot be read" in caplog.text
    assert_same(folder, uninterrupted)


def test_without_a_readable_checkpoint_it_starts_again(
    small: SimpleNamespace, model: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    stop_after(small, model, folder, 2)
    for path in folder.glob("checkpoint-*"):
        path.write_bytes(b"")
    small.run_small(model, folder)
    assert_same(folder, uninterrupted)


def test_a_checkpoint_of_another_run_is_refused(small: SimpleNamespace, model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "run"
    stop_after(small, model, folder, 1)
    with pytest.raises(StageError, match="this checkpoint is of other settings, data or weights"):
        small.train(
            SentenceTransformer(str(model), device="cpu"),
            [small.word_pairs(seed=1)],
            small.settings(),
            query_prompt="query: ",
            document_prompt="",
            max_length=32,
            precision="fp32",
            seed=7,
            folder=folder,
        )


def flipped(path: Path, place: int) -> None:
    """Change one bit of a file in place."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_changed_bit_of_a_checkpoint_is_found_and_the_one_before_goes_on(
    small: SimpleNamespace, model: Path, uninterrupted: Path, tmp_path: Path, share: float
) -> None:
    folder = tmp_path / "run"
    stop_after(small, model, folder, 7)
    newest = max(folder.glob("checkpoint-*"))
    flipped(newest, int(share * newest.stat().st_size))
    small.run_small(model, folder)
    assert_same(folder, uninterrupted)


def test_an_epoch_that_is_damaged_before_the_run_goes_on_is_trained_again(
    small: SimpleNamespace, model: Path, uninterrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    stop_after(small, model, folder, 7)
    flipped(folder / "epoch-1.safetensors", -9)
    stop_after(small, model, folder, 2)  # from the start, and killed again: what is written now counts as the newest
    assert "epoch-1.safetensors, which it follows, is missing or damaged" in caplog.text
    names = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert names == ["checkpoint-00000001.safetensors", "checkpoint-00000002.safetensors"]
    small.run_small(model, folder)
    assert_same(folder, uninterrupted)


@pytest.mark.parametrize("name", ["epoch-2.safetensors", "training.json"])
def test_a_finished_training_that_is_damaged_is_done_again(
    small: SimpleNamespace, model: Path, uninterrupted: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    place = (folder / name).read_bytes().find(b"losses") + 12 if name.endswith("json") else -5
    flipped(folder / name, place)
    small.run_small(model, folder)
    assert_same(folder, uninterrupted)
    assert json.loads((folder / name).read_text())["steps"] == 15 if name.endswith("json") else True


def test_a_loss_log_that_is_damaged_begins_anew(
    small: SimpleNamespace, model: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    stop_after(small, model, folder, 7)
    flipped(folder / "loss.jsonl", (folder / "loss.jsonl").read_bytes().find(b'"loss": ') + 10)
    small.run_small(model, folder)
    steps = [json.loads(line)["step"] for line in (folder / "loss.jsonl").read_text().splitlines()]
    assert steps == list(range(8, 16))
    ours, theirs = (load_weights(run / "epoch-3.safetensors") for run in (folder, uninterrupted))
    assert all((ours[name] == theirs[name]).all() for name in ours)
