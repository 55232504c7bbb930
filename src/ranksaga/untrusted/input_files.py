"""Files that someone else may have made: regular ones only, of a bounded size, in UTF-8."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "BOM",
    "LONGEST_LINE",
    "bounded_lines",
    "decoded",
    "kind_of_file",
    "most_unpacked",
    "open_regular",
    "read_bounded",
]

BOM = codecs.BOM_UTF8
LONGEST_LINE = 64 << 20  # bytes: a file without a line end must not fill the memory
# Text packs about four to one; a hundred to one is no dataset. The floor lets small archives be.
_MAX_RATIO = 100
_RATIO_FLOOR = 10 << 20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_OTHER_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def kind_of_file(mode: int) -> str | None:
    """What a file is that is no regular one, for a message; None for a regular file. ``mode`` is ``st_mode``."""
    return None if stat.S_ISREG(mode) else next((name for test, name in _KINDS if test(mode)), "a special file")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises:
        OSError: there is none, it may not be read, or it is a folder, a FIFO, a socket or a device: reading these may
            wait for ever or never end.
    """
    # Without O_NONBLOCK the opening itself would wait for a FIFO's other end.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        kind = kind_of_file(os.fstat(handle).st_mode)
        if kind is not None:
            raise OSError(errno.EINVAL, f"this is {kind}, expected a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bounded(path: Path, limit: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: see :func:`open_regular`; or it has more than ``limit`` bytes.
    """
    with open_regular(path) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes, too many for such a file", str(path))
    return content


def most_unpacked(packed: int) -> int:
    """Bytes that a file of so many packed bytes may unpack to; beyond, it is made to fill the disk or the memory."""
    return max(_MAX_RATIO * packed, _RATIO_FLOOR)


def decoded(content: bytes) -> str:
    """UTF-8 bytes as text; a byte order mark at the start is left out.

    Raises:
        ValueError: they are not UTF-8.
    """
    for mark, name in _OTHER_ENCODINGS:
        if content.startswith(mark):
            raise ValueError(f"this is {name}; save the file as UTF-8")
    try:
        return content.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as problem:
        byte = f"{problem.object[problem.start]:#04x} at position {problem.start}"
        raise ValueError(f"byte {byte} is not UTF-8; save the file as UTF-8") from None


def bounded_lines(stream: BinaryIO, limit: int = LONGEST_LINE) -> Iterator[bytes]:
    """Lines with their ends, as of any binary file.

    Raises:
        ValueError: a line has more than ``limit`` bytes.
    """
    while line := stream.readline(limit + 1):
        if len(line) > limit:
            raise ValueError(f"a line of more than {limit >> 20} MiB; expected one record a line")
        yield line
