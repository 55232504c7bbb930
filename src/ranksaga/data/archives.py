"""Zips that someone else made: unpacked whole, inside their folder and in reasonable size, or not at all."""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ranksaga.errors import DownloadError
from ranksaga.untrusted.escape import cut, one_line, shown
from ranksaga.untrusted.input_files import most_unpacked

__all__ = ["NoSpaceError", "require_space", "unpack"]

# What the readers of zips raise of bytes that are none: bad structure, bad streams, passwords, unknown methods.
_UNSOUND = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, EOFError, ValueError, ArithmeticError, LookupError),
)


class NoSpaceError(DownloadError):
    """The disk is full."""


def require_space(folder: Path, needed: int) -> None:
    """Raise where a folder's disk has fewer free bytes.

    Raises:
        NoSpaceError: it has.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "free some space or set RANKSAGA_HOME to another disk"
        )


def unpack(archive: Path, folder: Path, top: str) -> None:
    """Unpack the dataset files of a zip whose entries all lie under the folder ``top``; that level is left out.

    Raises:
        DownloadError: it is no sound zip, or one that tries to write elsewhere, has links, or
            grows beyond all reason; files unpacked so far are the caller's to remove.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            for entry in source.infolist():
                _refuse_unsafe(archive, entry)
            wanted = [entry for entry in source.infolist() if _is_wanted(entry, top)]
            names = [entry.filename for entry in wanted]
            if len(set(names)) != len(names):
                raise DownloadError(f"{archive.name}: it holds a file twice; take it from another source")
            total = sum(entry.file_size for entry in wanted)
            if total > most_unpacked(archive.stat().st_size):
                raise DownloadError(f"{archive.name}: it unpacks to {total} bytes, too many for its size; not unpacked")
            require_space(folder, total)
            for entry in wanted:
                target = folder / PurePosixPath(entry.filename).relative_to(top)
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile reads no more than the size that the entry declares, so the limit above binds.
                with source.open(entry) as packed, target.open("wb") as stream:
                    shutil.copyfileobj(packed, stream)
    except _UNSOUND as problem:
        reason = one_line(cut(str(problem) or type(problem).__name__))
        raise DownloadError(f"{archive.name}: not a sound zip ({reason}); take it from another source") from problem
    except OSError as problem:
        if problem.errno is None or problem.errno == errno.EINVAL:  # bz2's own, and a seek to nowhere
            raise DownloadError(
                f"{archive.name}: not a sound zip ({problem}); take it from another source"
            ) from problem
        raise


def _refuse_unsafe(archive: Path, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename or is_link:
        raise DownloadError(f"{archive.name}: the entry {shown(entry.filename)} points outside; nothing was unpacked")


def _is_wanted(entry: zipfile.ZipInfo, top: str) -> bool:
    path = PurePosixPath(entry.filename)
    if path.parts[:1] != (top,) or path.name.startswith(".") or entry.is_dir():
        return False  # such as macOS's __MACOSX and ._test.tsv
    return path.name in ("corpus.jsonl", "queries.jsonl") or (path.parent.name == "qrels" and path.suffix == ".tsv")
