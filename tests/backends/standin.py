"""Folders in place of Modal's Volumes, and calls that run here: all but Modal's servers is the real thing."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import modal

from ranksaga.backends.job import Places

modal_cloud: Any = importlib.import_module("ranksaga.backends.modal_cloud")  # Any: its parts are replaced


class FolderVolume:
    """A Volume's methods that the back end uses, over a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def listdir(self, path: str, *, recursive: bool = False) -> list[Any]:
        folder = self.root / path.lstrip("/")
        if not folder.is_dir():
            raise modal.exception.NotFoundError(f"No such file or directory: {path}")
        found = folder.rglob("*") if recursive else folder.iterdir()
        return [
            SimpleNamespace(
                path=str(one.relative_to(self.root)),
                type=SimpleNamespace(name="FILE" if one.is_file() else "DIRECTORY"),
            )
            for one in sorted(found)
        ]

    def read_file_into_fileobj(self, path: str, fileobj: IO[bytes]) -> int:
        return fileobj.write((self.root / path.lstrip("/")).read_bytes())

    @contextlib.contextmanager
    def batch_upload(self, force: bool = False) -> Iterator[FolderVolume]:
        assert force, "a second upload must be allowed to overwrite"
        yield self

    def put_directory(self, local: str, remote: str) -> None:
        shutil.copytree(local, self.root / remote.lstrip("/"), dirs_exist_ok=True)


class LocalCalls:
    """``spawn`` writes the job down, ``get`` performs it with ``execute.local``: killed in between, it starts again."""

    def __init__(self, root: Path, gpu: str) -> None:
        self.root, self.gpu = root, gpu

    def spawn(self, job: dict[str, Any]) -> LocalCall:
        call = LocalCall(self.root, f"fc-{len(list(self.root.glob('fc-*')))}")
        call.path.write_text(json.dumps({"job": job, "gpu": self.gpu}))
        return call


class LocalCall:
    def __init__(self, root: Path, object_id: str) -> None:
        self.path, self.object_id = root / object_id, object_id

    def get(self) -> Any:
        if not self.path.is_file():
            raise modal.exception.NotFoundError(self.object_id)
        return modal_cloud.execute.local(json.loads(self.path.read_text())["job"])


def places_below(root: Path) -> Places:
    return Places(*(str(root / name) for name in ("cache", "runs", "models", "scratch")))


def install(root: Path) -> Places:
    """Put folders below ``root`` in the place of Modal's servers; the places of a job."""
    places = places_below(root)
    calls = root / "calls"
    calls.mkdir(parents=True, exist_ok=True)
    modal_cloud.Places = lambda: places
    modal_cloud.volumes = {folder: FolderVolume(Path(folder)) for folder in (places.cache, places.runs, places.models)}
    modal_cloud._running = contextlib.nullcontext
    modal_cloud._with = lambda _, gpu: LocalCalls(calls, gpu)
    modal.FunctionCall = SimpleNamespace(from_id=lambda name: LocalCall(calls, name))
    modal_cloud.subprocess = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=0))
    modal.Function = SimpleNamespace(from_name=lambda *_: None)
    return places


def die_at(moment: str) -> None:
    """The machine is taken away, without a word, when a piece of a stage begins; ``train:2``: the second training."""
    stage, _, piece = moment.partition(":")
    saving = importlib.import_module("ranksaga.backends.job").Saving
    speak, seen = saving.stage, []

    def last_words(self: Any, name: str, label: str, reused: bool) -> None:
        seen.append(name)
        speak(self, name, label, reused)
        if seen.count(stage) == int(piece):
            os.kill(os.getpid(), signal.SIGKILL)

    saving.stage = last_words


def main() -> None:
    """`python standin.py ARGUMENTS`: the modal command line itself, its servers replaced by RANKSAGA_STANDIN.

    Where the first argument ends in compare_results.py or is `ranksaga`, that program instead.
    """
    install(Path(os.environ["RANKSAGA_STANDIN"]))
    if moment := os.environ.get("RANKSAGA_DIE_AT"):
        die_at(moment)
    del sys.argv[0]
    if sys.argv[0] == "ranksaga":
        importlib.import_module("ranksaga.cli").main()
    elif sys.argv[0].endswith(".py"):
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        _modal_command_line()


def _modal_command_line() -> None:
    command_line: Any = importlib.import_module("modal.cli.run")

    @contextlib.contextmanager
    def run_app(app: Any, **_: Any) -> Iterator[Any]:
        yield app

    command_line.run_app = run_app
    command_line.deploy_app = lambda app, **_: print("deployed", app.name)
    sys.argv.insert(0, "modal")
    importlib.import_module("modal.__main__").main()


if __name__ == "__main__":
    main()
