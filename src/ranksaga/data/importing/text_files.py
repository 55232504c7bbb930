"""Text files of any common encoding, plain or gzip."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from pathlib import Path

from ranksaga.errors import DataError, UsageError
from ranksaga.untrusted.input_files import most_unpacked, read_bounded

__all__ = ["binary_kind", "decode", "read_bytes", "read_text", "suffix_of"]

LARGEST = 16 << 30  # bytes of a file, which is read whole
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with BOM"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, whose BOM it begins with
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_MAGIC = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)"),
    (b"PAR1", "a Parquet file (.parquet)"),
    (b"%PDF-", "a PDF (.pdf)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file; save it as .xlsx or .csv"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it"),
    (b"BZh", "compressed with bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed with xz; unpack it"),
    (b"SQLite format 3", "an SQLite database; export a table as CSV"),
)


def suffix_of(path: Path) -> str:
    """The ending that says what a file is, in lower case; that before ``.gz`` where it is compressed."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked where they are gzip's.

    Raises:
        DataError: the file cannot be read, or its compression is broken.
    """
    try:
        raw = read_bounded(path, LARGEST)
        return _unpacked(path, raw) if raw.startswith(b"\x1f\x8b") else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise DataError(f"{path}: broken gzip ({problem}); copy or download the file anew") from problem
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}; check the path and its permissions") from problem


def _unpacked(path: Path, packed: bytes) -> bytes:
    most = most_unpacked(len(packed))
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
        raw = stream.read(most + 1)
    if len(raw) > most:
        raise DataError(f"{path}: it unpacks to more than {most} bytes, too many for its size; unpack it yourself")
    return raw


def binary_kind(raw: bytes) -> str | None:
    """What a file is that begins with these bytes, where that is no text."""
    return next((kind for magic, kind in _MAGIC if raw.startswith(magic)), None)


def read_text(path: Path, encoding: str | None = None) -> tuple[str, str]:
    """A text file, line ends as they are, and its encoding in words.

    Without ``encoding``: that of its byte order mark; else UTF-8; UTF-16 where every other byte is zero; else
    Windows-1252.

    Raises:
        DataError: it is no text, or not in this encoding.
        UsageError: there is no such encoding.
    """
    return decode(read_bytes(path), str(path), encoding)


def decode(raw: bytes, name: str, encoding: str | None = None) -> tuple[str, str]:
    """Bytes as text; see :func:`read_text`. ``name`` is the file's, for messages."""
    if (kind := binary_kind(raw)) is not None:
        raise DataError(f"{name}: expected text, found {kind}")
    if encoding is not None:
        return _decode_as(raw, name, encoding), encoding
    for mark, codec, words in _BOMS:
        if raw.startswith(mark):
            return _decode_as(raw, name, codec), words
    if unmarked := _utf16_of(raw):
        return _decode_as(raw, name, unmarked), "UTF-16 without BOM"
    if b"\0" in raw:
        raise DataError(f"{name}: expected text, found zero bytes; name a text file, or its encoding with --encoding")
    try:
        return raw.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        try:
            return raw.decode("cp1252"), f"Windows-1252 (cp1252), as line {line} is not UTF-8"
        except UnicodeDecodeError:
            byte = f"{raw[problem.start]:#04x}"
            raise DataError(
                f"{name}:{line}: byte {byte} is neither UTF-8 nor Windows-1252 (cp1252); name the encoding with "
                "--encoding, such as --encoding cp1250"
            ) from problem


def _utf16_of(raw: bytes) -> str | None:
    """UTF-16 without a mark shows in text that is mostly Latin: every other byte is zero."""
    head = raw[:4096]
    if len(head) < 4 or len(raw) % 2:
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * half and odd < 0.05 * half else None


def _decode_as(raw: bytes, name: str, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except LookupError as problem:
        raise UsageError(
            f"--encoding {encoding}: Python has no such encoding; expected one such as utf-8, utf-16, cp1252"
        ) from problem
    except UnicodeError as problem:
        at = getattr(problem, "start", 0)
        line = raw.count(b"\n", 0, at) + 1
        raise DataError(
            f"{name}:{line}: byte {at} of the file is not {encoding}; name its encoding with --encoding"
        ) from problem
