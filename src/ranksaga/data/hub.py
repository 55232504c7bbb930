"""BEIR sets on Hugging Face: found file by file, converted to the BEIR layout.

The copies differ in layout: JSON lines (plain or gzip) or parquet; judgments in the same
repository (``mteb/NAME``) or in another (``BeIR/NAME-qrels``). The repository's own loading
script is never run.
"""

from __future__ import annotations

import csv
import gzip
import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from ranksaga.data.beir import write_judgments, write_records
from ranksaga.errors import DownloadError
from ranksaga.untrusted.escape import breaks_lines, cut, one_line, public_url, shown, without_secrets
from ranksaga.untrusted.input_files import bounded_lines, decoded, most_unpacked, open_regular
from ranksaga.untrusted.json_input import parse_json

__all__ = ["classify", "convert", "fetch_hub", "is_hub_name"]

_NAME = re.compile(r"(BeIR|mteb)/\w[\w.-]*", re.ASCII)
_FORMATS = (".parquet", ".jsonl", ".jsonl.gz", ".tsv")
_SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "test": "test"}

# What the readers of JSON, parquet, gzip and CSV raise of files that are none.
_UNSOUND = (
    *(KeyError, ValueError, TypeError, AttributeError, ArithmeticError, NotImplementedError),
    *(OSError, EOFError, zlib.error, csv.Error),
)

logger = logging.getLogger(__name__)


def is_hub_name(name: str) -> bool:
    """Whether a dataset's name is that of a Hugging Face copy: ``BeIR/NAME`` or ``mteb/NAME``."""
    return _NAME.fullmatch(name) is not None


def fetch_hub(name: str, folder: Path) -> None:
    """Download the data set ``BeIR/NAME`` or ``mteb/NAME`` and write it into a folder.

    Raises:
        DownloadError: the hub cannot be reached, or has no such data set in a known layout.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_hide_secrets)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    server = public_url(api.endpoint)
    try:
        roles = _fetch_files(api, name)
        if roles.keys() <= {"corpus", "queries"}:
            roles |= _fetch_files(api, f"{name}-qrels")
    except RepositoryNotFoundError as problem:
        raise DownloadError(f"{name}: {server} has no such data set; check the name") from problem
    except Exception as problem:  # whatever the hub client's HTTP library raises; it changes between versions
        first = next(iter(str(problem).strip().splitlines()), type(problem).__name__)
        first = one_line(cut(without_secrets(first)))
        raise DownloadError(f"{name}: {server} gave no proper answer ({first}); run again later") from problem
    convert(name, roles, folder)


def _hide_secrets(record: logging.LogRecord) -> bool:
    """For the client's own log, which names addresses as they are."""
    record.msg, record.args = one_line(without_secrets(record.getMessage())), ()
    return True


def _fetch_files(api: Any, repository: str) -> dict[str, list[Path]]:
    """Download the files that make up a dataset; by role: corpus, queries, or a split."""
    info = api.dataset_info(repository)
    names = [sibling.rfilename for sibling in info.siblings or ()]
    roles = classify(names)
    logger.info("%s at %s: %s", repository, info.sha, roles)
    return {
        role: [Path(api.hf_hub_download(repository, name, repo_type="dataset", revision=info.sha)) for name in chosen]
        for role, chosen in roles.items()
    }


def classify(names: Sequence[str]) -> dict[str, list[str]]:
    """Sort a repository's files by role (corpus, queries, or a split), in one format per role."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names):
        suffix = next((suffix for suffix in _FORMATS if name.endswith(suffix)), None)
        role = _role(name)
        if suffix and role:
            found.setdefault(role, {}).setdefault(suffix, []).append(name)
    return {role: formats[min(formats, key=_FORMATS.index)] for role, formats in found.items()}


def _role(name: str) -> str | None:
    # "qrels/test.tsv", "data/test-00000-of-00001.parquet", "corpus/corpus-0000.parquet", "corpus.jsonl.gz"
    path = PurePosixPath(name)
    if path.name.startswith("."):
        return None  # such as macOS's ._test.tsv
    stem = re.split(r"[-.]", path.name)[0]
    words = [*path.parts[:-1], stem]
    for role in ("corpus", "queries"):
        if role in words:
            return role
    if len(path.parts) > 1 and path.parts[0] not in ("qrels", "data", "default"):
        return None  # generated queries, candidate lists, other configurations
    return _SPLITS.get(stem)


def convert(name: str, roles: dict[str, list[Path]], folder: Path) -> None:
    """Write downloaded files, by role, in the BEIR layout.

    Raises:
        DownloadError: a role or a column is missing.
    """
    splits = [role for role in roles if role not in ("corpus", "queries")]
    missing = [role for role in ("corpus", "queries") if role not in roles] + ([] if splits else ["qrels"])
    if missing:
        raise DownloadError(f"{name}: no {' and no '.join(missing)} in its files; is it a retrieval data set?")
    try:
        write_records(
            folder / "corpus.jsonl",
            (
                {"_id": _identifier(row), "title": _text(row.get("title") or ""), "text": _text(row["text"])}
                for row in _rows(roles["corpus"])
            ),
        )
        write_records(
            folder / "queries.jsonl",
            ({"_id": _identifier(row), "text": _text(row["text"])} for row in _rows(roles["queries"])),
        )
        for split in splits:
            judged = (
                (_id(row["query-id"]), _id(row["corpus-id"]), _integer(row["score"])) for row in _rows(roles[split])
            )
            write_judgments(folder / "qrels" / f"{split}.tsv", judged)
    except _UNSOUND as problem:
        reason = one_line(cut(f"{type(problem).__name__}: {problem}"))
        raise DownloadError(
            f"{name}: its files are not as expected ({reason}); take it from another source"
        ) from problem


def _identifier(row: dict[str, Any]) -> str:
    return _id(row["_id"] if "_id" in row else row["id"])


def _id(value: Any) -> str:
    """Text or an integer as an id; one that would forge lines of the files that are written is none."""
    if not isinstance(value, str | int) or breaks_lines(str(value)):
        raise ValueError(f"{shown(value, 40)} is no id")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value, 40)} is no text")
    return value


def _integer(score: Any) -> int:
    """1, "1" and 1.0 are grades; 0.5 is not."""
    number = float(score)
    if number != int(number):
        raise ValueError(f"the score {score!r} is not an integer")
    return int(number)


def _rows(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        if path.name.endswith(".parquet"):
            import pyarrow.parquet  # type: ignore[import-untyped]

            for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        elif path.name.endswith(".tsv"):
            yield from csv.DictReader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            for line in _lines(path):
                row = parse_json(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{shown(row, 40)} is no JSON object")
                yield row


def _lines(path: Path) -> Iterator[str]:
    """Lines of a file, unpacked if need be, which must not grow beyond all reason."""
    most = most_unpacked(path.stat().st_size)
    size = 0
    with open_regular(path) as packed:
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=packed)) if path.name.endswith(".gz") else packed
        for number, line in enumerate(bounded_lines(stream)):
            size += len(line)
            if size > most:
                raise ValueError(f"it unpacks to more than {most} bytes, too many for its size")
            yield decoded(line) if number == 0 else line.decode("utf-8")
