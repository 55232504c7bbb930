"""Runs on Modal: the only module that touches it.

One function, ``execute``, performs a job (see ``job.py``) on a GPU. Datasets and downloads, runs, and shipped models
live in three Volumes, committed after each piece of work, so that a retry on a new machine goes on where the last one
was. A detached run uses the deployed app, which outlives the terminal; any other uses an app that ends with it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import modal

import ranksaga
from ranksaga.backends.job import Away, Job, Places, pack, perform
from ranksaga.config.recipe import Recipe
from ranksaga.errors import BackendError, RankSagaError, UsageError
from ranksaga.files import atomic_open, read_json_if_sound, write_json
from ranksaga.run.console import Terminal
from ranksaga.run.folder import LOCK, MARKER, check_run_folder, mark
from ranksaga.run.gpu_prices import price_on
from ranksaga.run.pipeline import Outcome

__all__ = ["APP", "GPU", "app", "collect", "detached_in_front", "execute", "parse_gpu", "run_on_modal"]

APP = "ranksaga"
GPU = "A10G"
TIMEOUT = 24 * 60 * 60  # Modal's longest; a run that needs more is retried and goes on
CONSTRAINTS = Path(ranksaga.__file__).parents[2] / "constraints.txt"
LEDGER = "modal.json"
# Stages hold vectors and the weights of every epoch; the marker and the lock are those of the folder over there.
NOT_FETCHED = ("stages", "job.json", MARKER, LOCK)
# How a call can have ended, and how Modal says that it knows it no more; all else leaves it open.
ENDED = (
    modal.exception.RemoteError,
    modal.exception.FunctionTimeoutError,
    modal.exception.InternalFailure,
    modal.exception.ExecutionError,
)
FORGOTTEN = (modal.exception.NotFoundError, modal.exception.OutputExpiredError)


def _image() -> Any:
    """The packages at their pinned versions, then this very source."""
    image = modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
    if not modal.is_local():  # in the container it is made already
        return image
    names = _packages()
    if CONSTRAINTS.is_file():
        image = image.add_local_file(CONSTRAINTS, "/constraints.txt", copy=True)
        image = image.pip_install(*names, extra_options="-c /constraints.txt")
    else:  # installed from a wheel: what is installed here
        image = image.pip_install(*(f"{name}=={metadata.version(name).split('+')[0]}" for name in names))
    image = image.env({"HF_HOME": f"{Places().cache}/huggingface", "TOKENIZERS_PARALLELISM": "false"})
    return image.add_local_python_source("ranksaga", ignore=["**/__pycache__/**"])  # its data files too


def _packages() -> list[str]:
    """What ranksaga and the quickstart's model need, without versions; a checkout's own file is never out of date."""
    project = CONSTRAINTS.with_name("pyproject.toml")
    if project.is_file():
        declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        wanted = [*declared["dependencies"], *declared["optional-dependencies"]["quickstart"]]
    else:
        lines = metadata.requires("ranksaga") or []
        wanted = [line for line in lines if "extra ==" not in line or "quickstart" in line]
    return sorted({re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in wanted})


app = modal.App(APP, include_source=False)
volumes = {
    Places().cache: modal.Volume.from_name("ranksaga-cache", create_if_missing=True),
    Places().runs: modal.Volume.from_name("ranksaga-runs", create_if_missing=True),
    Places().models: modal.Volume.from_name("ranksaga-models", create_if_missing=True),
}


@app.function(  # type: ignore[untyped-decorator]
    image=_image(),
    gpu=GPU,
    cpu=4.0,
    memory=16384,
    volumes=volumes,
    timeout=TIMEOUT,
    retries=modal.Retries(max_retries=3, initial_delay=10.0, backoff_coefficient=2.0),
    max_containers=1,  # calls queue: two must not write one run
)
def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Perform a job, on the far side."""
    if not modal.is_local():
        for volume in volumes.values():
            volume.reload()
    return perform(Job.from_json(job), _commit)


def _commit() -> None:
    for volume in () if modal.is_local() else volumes.values():
        try:
            volume.commit()
        except RuntimeError as error:
            # The commit is done then; only the look at what others wrote, which follows it, was refused.
            if "open files" not in str(error):
                raise


def run_on_modal(
    recipe: Recipe,
    folder: Path,
    *,
    gpu: str = GPU,
    detach: bool = False,
    start: str | None = None,
    stop: str | None = None,
    fresh: bool = False,
    model: str | None = None,
) -> Outcome:
    """Execute a recipe on Modal; results and the shipped model are fetched into ``folder`` when it is done.

    ``detach`` returns at once. The same call without it waits for what is under way and fetches it.

    Raises:
        BackendError: Modal cannot be used, or the run failed there.
        RankSagaError: what the run itself raised.
    """
    check_run_folder(folder, recipe.model, (*recipe.datasets, *recipe.guards))
    job, uploads = pack(recipe, places=Places(), model=model, price=price_on(gpu), start=start, stop=stop, fresh=fresh)
    with _plainly():
        if not detach:
            try:
                _wait(folder)
            except RankSagaError as error:
                Terminal().say(f"the call before this one failed ({error}); continuing from what it left")
        _upload(uploads)
        if detach:
            return _detached(job, folder, gpu)
        result = None
        with _running():
            _note(folder, _with(execute, gpu).spawn(job.as_json()).object_id, gpu)
            result = _wait(folder)
        if result is None:  # Modal's context has swallowed the interrupt
            raise KeyboardInterrupt
        _fetch(job.run, folder)
    return Away(
        folder, result["stopped_after"], result["reused"], result["seconds"], result["table"], result["summary"]
    )


def collect(run: str, folder: Path) -> None:
    """Wait for a run's call that is under way, if any, and fetch what the run has so far.

    Raises:
        BackendError: Modal cannot be used, has no such run, or the call failed.
    """
    with _plainly():
        _wait(folder)
        _fetch(run, folder)


def parse_gpu(text: str) -> str:
    """The GPU's name in ``--on modal[:GPU]``.

    Raises:
        UsageError: it is no name, or asks for several.
    """
    if re.fullmatch(r"[A-Za-z0-9-]+!?", text) is None:
        raise UsageError(f"--on modal:{text}: expected the name of one GPU, as in --on modal:A10G or modal:H100")
    return text.upper()


def _fetch(run: str, folder: Path) -> None:
    """Copy results and model from the Volume; a file of the same size may be another, so all are copied."""
    mark(folder, "run")
    volume = volumes[Places().runs]
    for entry in volume.listdir(f"/{run}"):
        if Path(entry.path).name in NOT_FETCHED:
            continue
        for file in [entry] if entry.type.name == "FILE" else volume.listdir(entry.path, recursive=True):
            if file.type.name != "FILE":
                continue
            target = folder / Path(file.path.lstrip("/")).relative_to(run)
            with atomic_open(target, "wb") as stream:
                volume.read_file_into_fileobj(file.path, stream)


def _wait(folder: Path) -> dict[str, Any] | None:
    """Result of the call that a run's folder has noted, if any; the note goes once the call has ended."""
    ledger = folder / LEDGER
    if not ledger.is_file():
        return None
    result = None
    try:
        result = _result(modal.FunctionCall.from_id(_noted(ledger, "call")))
    except FORGOTTEN:
        pass
    except RankSagaError:
        ledger.unlink(missing_ok=True)
        raise
    ledger.unlink(missing_ok=True)
    return result


def _noted(ledger: Path, key: str) -> str:
    stored = read_json_if_sound(ledger)
    if not isinstance(stored, dict) or not isinstance(stored.get(key), str):
        raise BackendError(
            f"{ledger}: damaged, so the call that is under way is not known; see modal app list, then delete that file"
        )
    return str(stored[key])


def _result(call: Any) -> dict[str, Any]:
    """What a call gave back, its failure as one line."""
    try:
        result: dict[str, Any] = call.get()
    except ENDED as error:
        raise _failed(error) from None
    except modal.exception.Error:
        raise
    except Exception as error:  # raised over there by something that is no part of ranksaga
        raise _failed(error) from None
    if "error" in result:
        raise RankSagaError.from_json({**result, "error": f"on Modal: {result['error']}"})
    return result


def _failed(error: Exception) -> BackendError:
    return BackendError(
        f"the run failed on Modal ({type(error).__name__}: {_first(error)}); see: modal app logs {APP}; "
        "the same command continues it"
    )


def detached_in_front() -> bool:
    """Whether ``--detach`` stands before the function's name: ``modal run --detach FILE::FUNCTION``."""
    import click

    context = click.get_current_context(silent=True)
    return bool(context is not None and isinstance(context.obj, dict) and context.obj.get("detach"))


def _detached(job: Job, folder: Path, gpu: str) -> Outcome:
    ledger = folder / LEDGER
    if ledger.is_file() and (other := _noted(ledger, "gpu")) != gpu:
        raise UsageError(f"{job.run} is under way on {other}, and two must not write one run; wait, or use {other}")
    # In a process of its own: inside `modal run` this app is running already, and cannot be deployed from there.
    deploy = [sys.executable, "-m", "modal", "deploy", "-m", __name__]
    if subprocess.run(deploy, stdout=sys.stderr, check=False).returncode:
        raise BackendError("modal deploy failed, see above; after mending it, give the same command again")
    call = _with(modal.Function.from_name(APP, "execute"), gpu).spawn(job.as_json())
    _note(folder, call.object_id, gpu)
    note = (
        f"{job.run} is under way on Modal ({gpu}), call {call.object_id}\n"
        f"log: modal app logs {APP}\nresults: the same command without --detach waits for them and fetches them"
    )
    return Away(folder, "submission", False, 0.0, "", {"call": call.object_id}, note)


def _with(function: Any, gpu: str) -> Any:
    """The function as declared for the default GPU, so that its calls share one queue."""
    return function if gpu == GPU else function.with_options(gpu=gpu, max_containers=1)


def _note(folder: Path, call: str, gpu: str) -> None:
    mark(folder, "run")
    write_json(folder / LEDGER, {"call": call, "gpu": gpu})


def _upload(uploads: dict[str, Path]) -> None:
    if not uploads:
        return
    with volumes[Places().cache].batch_upload(force=True) as batch:
        for place, folder in uploads.items():
            batch.put_directory(str(folder), f"/{place}")


@contextmanager
def _running() -> Iterator[None]:
    """The app runs: it does already inside `modal run`."""
    if app.app_id is not None:
        yield
        return
    with modal.enable_output(), app.run():
        yield


@contextmanager
def _plainly() -> Iterator[None]:
    """Modal's errors as one line."""
    try:
        yield
    except modal.exception.AuthError as error:
        raise BackendError(f"Modal does not know you ({_first(error)}); log in with: modal setup") from None
    except modal.exception.NotFoundError as error:
        raise BackendError(f"not found on Modal ({_first(error)}); run the step that makes it first") from None
    except modal.exception.ConnectionError as error:
        raise BackendError(f"Modal cannot be reached ({_first(error)}); check the network, try again") from None
    except modal.exception.Error as error:
        raise BackendError(f"Modal: {_first(error)}; the same command again continues the run") from None


def _first(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.split(". ")[0].rstrip(".")
