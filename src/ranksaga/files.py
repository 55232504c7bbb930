"""Atomic writes, hashes and cache folders: the one place that touches the disk carefully.

Every file is written to a temporary name in the same folder, flushed to the device and
then renamed, so a reader sees the old content or the new, never a torn one, whatever is killed or cut off.
What a later run believes carries a checksum: a JSON file its own, other files in the JSON file that vouches for them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = [
    "STALE_SECONDS",
    "atomic_dir",
    "atomic_open",
    "cache_home",
    "clear_parts",
    "file_name",
    "file_record",
    "file_state",
    "file_states",
    "files_below",
    "first_changed",
    "hash_file",
    "hash_json",
    "read_checked_json",
    "read_json",
    "read_json_if_sound",
    "remove",
    "sync",
    "write_checked_json",
    "write_json",
    "write_text",
]

PART = ".ranksaga-part"  # how names of unfinished files and folders end, so that no other file is taken for one
STALE_SECONDS = 3600.0
CHECKSUM = "checksum"  # key of a JSON object that tells whether it is as it was written


def cache_home() -> Path:
    """Folder for downloads and embeddings: ``RANKSAGA_HOME``, else the user's cache folder."""
    configured = os.environ.get("RANKSAGA_HOME")
    if configured:
        return Path(configured).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("ranksaga"))


@contextmanager
def atomic_open(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes ``path`` on success and vanishes on error.

    ``mode`` is ``"w"`` (UTF-8 text, newlines as written) or ``"wb"``. Parents are created.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        temporary = Path(name)
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with os.fdopen(handle, mode, **text) as stream:  # type: ignore[call-overload]
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes 0600; a result is as readable as any other file of the user.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        # A user knows this name; of a full disk there would be none at all.
        if isinstance(error, OSError) and (error.filename is None or str(error.filename).endswith(PART)):
            error.filename = str(path)
        raise


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes ``path`` on success.

    An existing ``path`` is replaced. On error the temporary folder is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        for parent, _, files in os.walk(temporary):
            for file in (*files, "."):
                if not (inner := Path(parent, file)).is_symlink():
                    sync(inner)
        if path.exists():
            # Two renames: a folder cannot be replaced in one step on POSIX unless it is empty.
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", suffix=PART, dir=path.parent))
            os.replace(path, old / "content")
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the device; where a file system has no such thing, nothing is done."""
    with suppress(PermissionError):  # a file that its writer made unreadable, a folder that Windows cannot open
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_open(path) as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_if_sound(path: Path) -> Any | None:
    """Read a JSON file; ``None`` where there is none, or it is torn or damaged."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None


def write_checked_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object as JSON, atomically, with a checksum of its content as one more key."""
    content = json.loads(json.dumps(dict(values), allow_nan=False))
    write_json(path, {**content, CHECKSUM: hash_json(content)})


def read_checked_json(path: Path) -> dict[str, Any] | None:
    """What :func:`write_checked_json` wrote, without the checksum.

    ``None`` where there is no such file, or its content is not what was written: torn, changed, or without a checksum.
    """
    content = read_json_if_sound(path)
    if not isinstance(content, dict):
        return None
    checksum = content.pop(CHECKSUM, None)
    try:
        return content if checksum == hash_json(content) else None
    except (ValueError, RecursionError):  # texts that are no UTF-8, lists without end
        return None


def file_record(path: Path) -> list[Any]:
    """Size in bytes and SHA-256 of a file: by these it is known again."""
    return [path.stat().st_size, hash_file(path)]


def first_changed(folder: Path, records: Any) -> str | None:
    """The first file that is missing or not as :func:`file_record` found it; ``None``: all are as they were.

    Args:
        folder: that holds the files.
        records: of each file by its path in the folder, as read from a file; of another type it matches nothing.
    """
    if not isinstance(records, dict):
        return "(no list of files)"
    for name, record in records.items():
        path = folder / name
        try:
            # The size first: it takes no reading.
            if not path.is_file() or path.stat().st_size != record[0] or hash_file(path) != record[1]:
                return str(name)
        except (OSError, LookupError, TypeError, ValueError):
            return str(name)
    return None


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, if there is one; of a link the link alone.

    Raises:
        OSError: something in it cannot be removed.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def clear_parts(folder: Path, seconds: float = STALE_SECONDS) -> None:
    """Remove what killed processes were writing in a folder and below, so many seconds ago or earlier; no links.

    0 is for a folder whose lock is held: nobody else writes there.
    """
    oldest = time.time() - seconds if seconds else float("inf")
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if name.startswith(".") and name.endswith(PART) and path.lstat().st_mtime < oldest:
                remove(path)


def files_below(folder: Path) -> list[tuple[str, Path]]:
    """The files of a folder by their path inside it (``/`` between parts), in order; git's own are left out.

    Links are followed, to files and to folders, each folder once on a way down: a loop ends. What cannot be opened,
    such as a link to nothing, is among them.
    """
    found = []

    def walk(place: Path, inside: str, above: tuple[str, ...]) -> None:
        above = (*above, os.path.realpath(place))
        for entry in os.scandir(place):
            if os.path.isdir(entry.path) and os.access(entry.path, os.R_OK | os.X_OK):
                if entry.name != ".git" and os.path.realpath(entry.path) not in above:
                    walk(Path(entry.path), f"{inside}{entry.name}/", above)
            else:
                found.append((f"{inside}{entry.name}", Path(entry.path)))

    walk(folder, "", ())
    return sorted(found)


def file_state(path: Path) -> list[int]:
    """Size, times of change (content, then inode) in nanoseconds, and inode; empty where there is no such file.

    Another file in its place, older and of equal size, has another inode or time of the inode's change.
    """
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def file_states(folder: Path) -> list[list[Any]]:
    """Path inside the folder and :func:`file_state` of each of :func:`files_below`."""
    return [[inside, *file_state(path)] for inside, path in files_below(folder)]


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Short identity (16 hex digits of SHA-256) of a JSON-like value; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]  # names of files may be no UTF-8


def file_name(name: str) -> str:
    """A name as one of a file, without an ending: readable, and no two names give one file.

    What is no letter, digit, dot, hyphen or underscore becomes an underscore; a hash of the name follows where anything
    was replaced or cut.
    """
    plain = (re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "_")[:100]
    plain = plain.encode()[:200].decode(errors="ignore")  # file systems take 255 bytes, with hash and endings
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
