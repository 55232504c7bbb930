"""From a dataset's name to the dataset: the one place that knows where datasets may lie."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ranksaga.data.beir import read_beir
from ranksaga.data.build import PREFIX, build, source_state
from ranksaga.data.catalog import catalog
from ranksaga.data.dataset import Dataset
from ranksaga.data.download import dataset_cache, download
from ranksaga.data.hub import is_hub_name
from ranksaga.errors import DataError
from ranksaga.untrusted.escape import cut, is_name, shown

__all__ = ["Available", "available", "check_name", "load_dataset", "locate", "refuse_twins"]


_LONGEST = 4000  # characters of a name: file systems take paths of 4,096 bytes


@dataclass(frozen=True)
class Available:
    """A dataset on this machine; ``where`` is what its place is called (RANKSAGA_DATASETS, ./datasets, cache)."""

    name: str
    where: str
    path: Path


def load_dataset(name: str) -> Dataset:
    """Load a dataset by name, downloading it if need be.

    The first of these that holds it: a folder of this path; a folder of this name under one
    that ``RANKSAGA_DATASETS`` lists (``:`` between them), under ``./datasets`` or in the
    cache; a download (a name of the catalogue, ``BeIR/NAME``, ``mteb/NAME``). A name that
    begins with ``python:`` is built from Python source instead.

    Raises:
        DataError: nothing has this name, or what has it is broken.
        DownloadError: it had to be downloaded and could not be.
    """
    _refuse_unwritable(name)
    if name.startswith(PREFIX):
        return build(name)
    path = locate(name)
    if path is None:
        path = download(name) if _is_downloadable(name) else _refuse(name)
    return read_beir(path, path.resolve().name if path == Path(name).expanduser() else name)


def check_name(name: str) -> None:
    """Refuse a name that :func:`load` would find nothing for; no text is read and nothing is downloaded.

    Raises:
        DataError: nothing has this name.
    """
    _refuse_unwritable(name)
    if name.startswith(PREFIX):
        source_state(name)
        return
    path = locate(name)
    if path is None:
        if not _is_downloadable(name):
            _refuse(name)
    elif not _is_dataset(path):
        raise DataError(f"{path}: a dataset has corpus.jsonl, queries.jsonl and qrels, and none of them is there")


def refuse_twins(datasets: Sequence[tuple[str, Dataset]]) -> None:
    """Refuse two datasets of one name, which every table and file would mix up, and one that is given twice.

    Args:
        datasets: each with what the user calls it.

    Raises:
        DataError: as said.
    """
    for place, (name, dataset) in enumerate(datasets):
        for other, earlier in datasets[:place]:
            if dataset.fingerprint == earlier.fingerprint:
                raise DataError(f"{other} and {name} are one dataset: the same texts and judgments; name it once")
            if dataset.name == earlier.name:
                raise DataError(f"{other} and {name} are both called {dataset.name!r}; give one folder another name")


def locate(name: str) -> Path | None:
    """Folder of a dataset on this machine, or None; a path that is written as one is taken as it is."""
    path = Path(name).expanduser()
    if _is_path(name) or _is_dataset(path):
        return path
    return next((folder / name for _, folder in _places() if _is_dataset(folder / name)), None)


def available() -> list[Available]:
    """Datasets on this machine by name, each name once, from the place that ``load`` would take."""
    found: dict[str, Available] = {}
    for where, folder in _places():
        for path in _datasets_in(folder):
            name = path.relative_to(folder).as_posix()
            found.setdefault(name, Available(name, where, path))
    return sorted(found.values(), key=lambda dataset: dataset.name)


def _places() -> Iterator[tuple[str, Path]]:
    for folder in os.environ.get("RANKSAGA_DATASETS", "").split(os.pathsep):
        if folder:
            yield "RANKSAGA_DATASETS", Path(folder).expanduser()
    yield "./datasets", Path("datasets")
    yield "cache", dataset_cache()


def _datasets_in(folder: Path) -> Iterator[Path]:
    """Datasets one or two levels deep (cqadupstack/android, mteb/scifact)."""
    for pattern in ("*/corpus.jsonl", "*/*/corpus.jsonl"):
        for file in folder.glob(pattern):
            if not any(part.startswith(".") for part in file.relative_to(folder).parts):
                yield file.parent


def _is_dataset(path: Path) -> bool:
    return any(os.path.exists(path / part) for part in ("corpus.jsonl", "queries.jsonl", "qrels"))


def _refuse_unwritable(name: str) -> None:
    if not is_name(name):
        raise DataError(f"{shown(name)}: a dataset's name is UTF-8 text without control characters; rename its folder")
    if len(name) > _LONGEST:
        raise DataError(f"{shown(name)}: a name of {len(name)} characters; no path is so long")


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith("/")


def _is_downloadable(name: str) -> bool:
    is_group = any(known.startswith(f"{name}/") for known in catalog())
    return name in catalog() or is_group or is_hub_name(name)


def _refuse(name: str) -> Path:
    known = [*(dataset.name for dataset in available()), *catalog()]
    near = difflib.get_close_matches(name.lower(), dict.fromkeys(known), n=3)
    hint = f"did you mean {' or '.join(near)}? Or" if near else "Names are listed by: ranksaga datasets list;"
    looked = [cut(str(Path(name).absolute())), *(f"{where} ({folder})" for where, folder in _places())]
    raise DataError(
        f"there is no dataset {shown(name)}: looked at {', '.join(looked)}, and in the catalogue of downloads; "
        f"{hint} give a folder's path, BeIR/NAME, mteb/NAME or python:PACKAGE"
    )
