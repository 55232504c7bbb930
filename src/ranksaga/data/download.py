"""Getting a public dataset into the cache: BEIR's zips and Hugging Face's copies.

Nothing half done is ever visible: bytes collect in a ``.part`` file that a later call resumes,
the archive is unpacked into a temporary folder, its counts are compared with the catalogue,
and only then the folder is moved into place.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ranksaga.data.archives import NoSpaceError, require_space, unpack
from ranksaga.data.beir import Counts, count_beir
from ranksaga.data.catalog import CatalogEntry, catalog, catalog_entry
from ranksaga.data.hub import fetch_hub, is_hub_name
from ranksaga.errors import DownloadError, RankSagaError
from ranksaga.files import atomic_dir, cache_home
from ranksaga.untrusted.escape import cut, one_line, public_url, without_secrets

__all__ = ["BEIR_URL", "dataset_cache", "download", "fetch", "refuse_if_offline"]

BEIR_URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
_ATTEMPTS = 5  # without a byte of progress
_PAUSE = 0.5  # seconds, doubled with each attempt
_TIMEOUT = 60.0  # seconds without a byte
_BLOCK = 1 << 20
_LONGEST = 12 * 3600.0  # seconds of one download, however it drips
_LARGEST = 64 << 30  # bytes of a file of unknown size
_RESERVE = 256 << 20  # bytes that such a file leaves free

logger = logging.getLogger(__name__)


def dataset_cache() -> Path:
    """Folder that holds the downloaded datasets."""
    return cache_home() / "datasets"


def refuse_if_offline(what: str) -> None:
    """Raise if ``HF_HUB_OFFLINE`` forbids downloads.

    Raises:
        DownloadError: it does.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise DownloadError(
            f"{what} is not on this machine and HF_HUB_OFFLINE forbids downloads; unset it, "
            "or put the dataset into a folder named by RANKSAGA_DATASETS"
        )


def download(name: str) -> Path:
    """Download a dataset into the cache, unless it is there, and return its folder.

    Args:
        name: a name of the catalogue (from BEIR's zip, or the mirror that ``RANKSAGA_BEIR_URL`` names), or
            ``BeIR/NAME`` or ``mteb/NAME`` (from Hugging Face, or the mirror that ``HF_ENDPOINT`` names).

    Raises:
        DataError: the name is unknown.
        DownloadError: downloads are forbidden, the server failed, or the content is not what
            the catalogue promises. The cache is then as it was.
    """
    archive = None if is_hub_name(name) else _archive_of(catalog_entry(name))
    target = dataset_cache() / name
    if target.is_dir():
        return target
    refuse_if_offline(name)
    # Ranks of one run may ask for the same set at once: the first works, the others find it done.
    with _locked(archive or name):
        if target.is_dir():
            return target
        if archive is None:
            _download_hub(name, target)
        else:
            _download_archive(archive, os.environ.get("RANKSAGA_BEIR_URL") or BEIR_URL)
    return target


@contextmanager
def _locked(name: str) -> Iterator[None]:
    from filelock import FileLock

    folder = cache_home() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name.replace('/', '--')}.lock"):
        yield


def _archive_of(entry: CatalogEntry) -> str:
    if entry.archive is None:
        raise DownloadError(
            f"{entry.name} ({entry.title}) is not public; obtain it from its owner, convert it to the BEIR layout "
            "and put it into a folder named by RANKSAGA_DATASETS"
        )
    return entry.archive


def _download_archive(archive: str, base_url: str) -> None:
    """Fetch one of BEIR's zips and move all its datasets into the cache."""
    members = [entry for entry in catalog().values() if entry.archive == archive]
    if (there := dataset_cache() / archive).exists():  # unpacked whole or not at all: this is not what we made
        raise DownloadError(f"{there}: exists and lacks datasets of {archive}; move it away, so that none is lost")
    url = _below(base_url, f"{archive}.zip")
    file = cache_home() / "downloads" / f"{archive}.zip"
    md5 = members[0].archive_md5
    fetch(url, file, md5=md5, size=members[0].archive_bytes if md5 is not None else None)
    try:
        with atomic_dir(dataset_cache() / archive) as folder:
            unpack(file, folder, archive)
            for entry in members:
                counts = count_beir(folder / PurePosixPath(entry.name).relative_to(archive))
                if counts != entry.counts:
                    raise _wrong_counts(entry, public_url(url), counts)
    except NoSpaceError:
        raise  # the zip is sound: it is kept, and the next call starts from it
    except RankSagaError:
        file.unlink()
        raise
    file.unlink()


def _download_hub(name: str, target: Path) -> None:
    """Fetch one of Hugging Face's copies; MTEB drops splits and zero grades, so less is compared."""
    known = next((entry for entry in catalog().values() if name in entry.hub), None)
    with atomic_dir(target) as folder:
        fetch_hub(name, folder)
        counts = count_beir(folder)
        if known is None or known.counts is None:
            logger.info("%s is not in the catalogue: its counts cannot be compared", name)
            return
        promised = known.counts
        shared = counts.splits.keys() & promised.splits.keys()
        same = all(counts.splits[split][0] == promised.splits[split][0] for split in shared)
        if not shared or not same or counts.documents != promised.documents:
            raise _wrong_counts(known, name, counts)


def _wrong_counts(entry: CatalogEntry, source: str, found: Counts) -> DownloadError:
    return DownloadError(
        f"{source} is not {entry.name} as published: found {_describe(found)}; "
        f"expected {_describe(entry.counts)}; nothing was kept, take it from another source"
    )


def _describe(counts: Counts | None) -> str:
    if counts is None:
        return "nothing"
    splits = (f"{split} {queries} queries and {n} judgments" for split, (queries, n) in sorted(counts.splits.items()))
    return ", ".join((f"{counts.documents} documents", f"{counts.queries} queries", *splits))


def _below(base_url: str, name: str) -> str:
    """The address of a file below another address, whose query stays at the end.

    Raises:
        DownloadError: the address is none of http or https.
    """
    try:
        parts = urllib.parse.urlsplit(base_url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not re.fullmatch(r"[!-~]+", base_url):
        raise DownloadError(
            f"{one_line(cut(public_url(base_url)))}: no address of a server; set RANKSAGA_BEIR_URL to one such as "
            f"{BEIR_URL}"
        )
    return urllib.parse.urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def fetch(
    url: str, target: Path, md5: str | None = None, sha256: str | None = None, *, size: int | None = None
) -> None:
    """Download a file; a download that was cut goes on where it ended, within this call or in a later one.

    Args:
        url: what to get, over http or https; a user and a password in it are sent to its own server only.
        target: the file to make; bytes collect in ``<target>.part``.
        md5: expected MD5 in hex; None: not compared.
        sha256: expected SHA-256 in hex; None: not compared.
        size: expected bytes, beyond which nothing is read; None: what the server says.

    Raises:
        DownloadError: the server refused, went silent, sent more than it should or took too long, there is no space, or
            a checksum differs. No message holds a password or a query of the address.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if target.exists():
        os.replace(target, part)
    if size is not None and part.exists() and part.stat().st_size > size:
        part.unlink()
    address = public_url(url)
    deadline = time.monotonic() + _LONGEST
    failures, got = 0, -1
    while (failure := _try_to_finish(url, part, size, deadline)) is not None:
        grown = part.stat().st_size if part.exists() else 0
        failures = 1 if grown > got else failures + 1  # only attempts without progress count
        got = grown
        reason = one_line(cut(without_secrets(str(failure)) or type(failure).__name__))
        logger.info("%s: cut at byte %d (%s)", address, got, reason)
        if failures == _ATTEMPTS:
            raise DownloadError(
                f"{address}: {_ATTEMPTS} attempts failed, the last one with: {reason}; check the network and run "
                "again, what has arrived is kept"
            ) from failure
        time.sleep(_PAUSE * 2**failures)
    for algorithm, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None and (found := _digest(part, algorithm)) != expected:
            part.unlink()
            raise DownloadError(
                f"{address}: the {algorithm} checksum is {found}, expected {expected}; the file was deleted, "
                "run again or take another source"
            )
    os.replace(part, target)


def _try_to_finish(url: str, part: Path, size: int | None, deadline: float) -> Exception | None:
    """Fetch what is missing; None if the part is whole, else the failure, after which another try makes sense."""
    try:
        _fetch_rest(url, part, size, deadline)
    except urllib.error.HTTPError as problem:
        if problem.code == 416:  # nothing behind our last byte: the part is whole, or it is of another file
            have = part.stat().st_size if part.exists() else 0
            if have and problem.headers.get("Content-Range") == f"bytes */{have}":
                return None
            part.unlink(missing_ok=True)
        elif problem.code < 500 and problem.code not in (408, 429):
            answer = one_line(cut(without_secrets(f"{problem.code} {problem.reason}")))
            raise DownloadError(f"{public_url(url)}: the server answered {answer}; check the address") from problem
        return problem
    except (OSError, http.client.HTTPException) as problem:
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpaceError(
                f"{part.parent}: {problem.strerror}; free some space or set RANKSAGA_HOME to another disk"
            ) from problem
        return problem
    return None


def _fetch_rest(url: str, part: Path, size: int | None, deadline: float) -> None:
    """Append what is missing to the part; raises OSError if the connection ends before the file does."""
    have = part.stat().st_size if part.exists() else 0
    address = public_url(url)
    with urllib.request.build_opener(_Redirects).open(_request(url, have), timeout=_TIMEOUT) as response:
        if response.status != 206:  # the whole file, whatever was asked
            have = 0
        elif not (response.headers.get("Content-Range") or f"bytes {have}-").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError("the server sent another part than was asked for")
        total = None if response.length is None else have + response.length  # None, too, where its length is no number
        most = _LARGEST if size is None else size
        if total is not None:
            if total > most:
                raise _too_much(address, f"the server offers {total} bytes", most)
            require_space(part.parent, total - have)
        logger.info("%s: %s bytes, from byte %d on", address, "unknown" if total is None else total, have)
        with part.open("ab" if have else "wb") as stream:
            # read1 gives what has arrived, so that a server that drips cannot hold the check of the time.
            while block := response.read1(_BLOCK):
                if stream.tell() + len(block) > most:
                    raise _too_much(address, "the server sends more and more", most)
                stream.write(block)
                if total is None:
                    require_space(part.parent, _RESERVE)
                if time.monotonic() > deadline:
                    raise DownloadError(
                        f"{address}: not done after {_LONGEST / 3600:g} hours; run again, what has arrived is kept"
                    )
            got = stream.tell()
    if total is not None and got != total:
        raise ConnectionError(f"the connection ended at byte {got} of {total}")


def _too_much(address: str, what: str, most: int) -> DownloadError:
    return DownloadError(f"{address}: {what}, expected at most {most}; take another source")


def _request(url: str, start: int) -> urllib.request.Request:
    """A request for a file from a byte on; user and password go into a header that no redirection carries along."""
    parts = urllib.parse.urlsplit(url)
    user, separator, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))
    if start:
        request.add_header("Range", f"bytes={start}-")
    if separator:
        credentials = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {credentials}")
    return request


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only; credentials stay with the server that they are for."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The next request."""
        there, here = urllib.parse.urlsplit(newurl), urllib.parse.urlsplit(req.full_url)
        if there.scheme not in ("http", "https") or "@" in there.netloc:
            raise DownloadError(f"{public_url(req.full_url)}: redirected to {one_line(public_url(newurl))}; refused")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (there.scheme, there.netloc) == (here.scheme, here.netloc):
            request.unredirected_hdrs.update(req.unredirected_hdrs)
            request.unredirected_hdrs.pop("Host", None)
        return request


def _digest(path: Path, algorithm: str) -> str:
    # md5 guards against a broken download only; no one relies on it against an attacker.
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
