"""Servers and archives that lie, drip, never end or point elsewhere; and passwords that stay where they belong."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import logging
import os
import random
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ranksaga.data import download as module
from ranksaga.data.archives import unpack
from ranksaga.data.download import _below, download, fetch
from ranksaga.data.hub import convert
from ranksaga.errors import DownloadError

SECRET = "s3cr3t-pass"
OK = b"HTTP/1.1 200 OK\r\n"


class Raw:
    """A server that answers each connection with what a function writes; it keeps the requests."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.asked: list[bytes] = []
        self.answer: Callable[[socket.socket], None] = lambda peer: None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer:
                try:
                    self.asked.append(peer.recv(65536))
                    self.answer(peer)
                except OSError:
                    pass

    def says(self, content: bytes) -> None:
        self.answer = lambda peer: peer.sendall(content)


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Iterator[Raw]:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    monkeypatch.setattr(module, "_TIMEOUT", 0.3)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    server = Raw()
    yield server
    server.socket.close()


def endless(peer: socket.socket) -> None:
    peer.sendall(OK + b"\r\n")
    for _ in range(10_000):
        peer.sendall(b"x" * 65536)


def dripping(peer: socket.socket) -> None:
    peer.sendall(OK + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(1000):
        peer.sendall(b"x")
        time.sleep(0.05)


def get(raw: Raw, folder: Path, **options: Any) -> str:
    """The message of a download that fails."""
    with pytest.raises(DownloadError) as caught:
        fetch(f"http://me:{SECRET}@127.0.0.1:{raw.port}/a.zip?sig={SECRET}", folder / "a.zip", **options)
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    assert "\x1b" not in message
    return message


@pytest.mark.parametrize("length", [b"abc", b"-5", b"", b"5, 5", b"\xff", b"9" * 400])
def test_a_length_that_is_none(length: bytes, raw: Raw, tmp_path: Path) -> None:
    raw.says(OK + b"Content-Length: " + length + b"\r\n\r\nhello")
    try:
        fetch(f"http://127.0.0.1:{raw.port}/a", tmp_path / "a")
    except DownloadError:
        assert length == b"9" * 400
    else:
        assert (tmp_path / "a").read_bytes() == b"hello"


def test_an_answer_without_end_stops_at_the_size_that_is_known(raw: Raw, tmp_path: Path) -> None:
    raw.answer = endless
    assert "more and more, expected at most 100000" in get(raw, tmp_path, size=100_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000


def test_an_answer_without_end_of_unknown_size_stops_before_the_disk_is_full(
    raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.answer = endless
    monkeypatch.setattr(module, "_RESERVE", 1 << 60)
    assert "are free" in get(raw, tmp_path)
    monkeypatch.setattr(module, "_LARGEST", 1 << 20)
    monkeypatch.setattr(module, "_RESERVE", 0)
    assert "more and more" in get(raw, tmp_path)


def test_more_than_the_catalogue_says_is_not_even_begun(raw: Raw, tmp_path: Path) -> None:
    raw.says(OK + b"Content-Length: 99999999\r\n\r\n")
    assert "offers 99999999 bytes, expected at most 10" in get(raw, tmp_path, size=10)


def test_a_server_that_drips_ends_in_time(raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.answer = dripping
    monkeypatch.setattr(module, "_LONGEST", 0.3)
    start = time.monotonic()
    assert "not done after" in get(raw, tmp_path)
    assert time.monotonic() - start < 5


def test_a_server_that_says_nothing(raw: Raw, tmp_path: Path) -> None:
    raw.answer = lambda peer: time.sleep(0.5)
    assert "timed out" in get(raw, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 416 X\r\n\r\n",
        b"HTTP/1.1 500 \x1b[31mX\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 10\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x00\x01\x02",
        b"",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 7-9/10\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_what_no_try_gets_whole(answer: bytes, raw: Raw, tmp_path: Path) -> None:
    if b" 206 " in answer:
        (tmp_path / "a.zip.part").write_bytes(b"12345")
    raw.says(answer)
    assert "5 attempts failed" in get(raw, tmp_path)


def test_a_refusal_is_one_line(raw: Raw, tmp_path: Path) -> None:
    raw.says(b"HTTP/1.1 403 \x1b[31mNo " + SECRET.encode() + b"\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(DownloadError) as caught:
        fetch(f"http://127.0.0.1:{raw.port}/a.zip", tmp_path / "a.zip")
    assert r"answered 403 \x1b[31mNo" in str(caught.value)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "http://u:p@127.0.0.1/"])
def test_redirections_lead_to_servers_only(location: str, raw: Raw, tmp_path: Path) -> None:
    raw.says(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    get(raw, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(raw.asked) == 1


def test_a_password_goes_to_its_own_server_only(raw: Raw, tmp_path: Path) -> None:
    other = Raw()
    other.says(OK + b"Content-Length: 5\r\n\r\nhello")
    raw.says(f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other.port}/b\r\nContent-Length: 0\r\n\r\n".encode())
    fetch(f"http://me:{SECRET}@127.0.0.1:{raw.port}/a", tmp_path / "a")
    assert b"Authorization: Basic bWU6czNjcjN0LXBhc3M=" in raw.asked[0]
    assert b"Authorization" not in other.asked[0]
    assert (tmp_path / "a").read_bytes() == b"hello"
    other.socket.close()


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc",
        "ftp://x/y",
        "x",
        "",
        "http://",
        "http://h:abc/",
        "http://h:99999/",
        "http://a\nb/",
        "http://[::1",
        "http://a b/",
    ],
)
def test_an_address_that_is_none_is_one_line_at_once(address: str) -> None:
    with pytest.raises(DownloadError, match="no address of a server") as caught:
        _below(address, "x.zip")
    assert "\n" not in str(caught.value)


def test_a_query_stays_at_the_end_of_an_address() -> None:
    assert _below("https://u:p@h/a/?sig=1", "x.zip") == "https://u:p@h/a/x.zip?sig=1"


@pytest.mark.parametrize("variable", ["RANKSAGA_BEIR_URL", "HF_ENDPOINT"])
def test_passwords_are_in_no_message_log_or_file(
    variable: str,
    raw: Raw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, f"http://me:{SECRET}@127.0.0.1:{raw.port}")
    caplog.set_level(logging.INFO, "ranksaga")
    raw.says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(DownloadError) as caught:
        download("scifact" if variable == "RANKSAGA_BEIR_URL" else "mteb/scifact")
    assert raw.asked
    printed = "".join(capfd.readouterr())
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("ranksaga"))
    for secret in (SECRET, "hf_abcdefghijkl"):
        assert secret not in f"{caught.value}{printed}{ours}"
        assert secret.encode() not in written


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


FILES = {"top/corpus.jsonl": b'{"_id": "a"}\n' * 50, "top/queries.jsonl": b"{}\n" * 50, "top/qrels/test.tsv": b"q\t"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_archives_are_one_line_or_as_they_were(method: int, tmp_path: Path) -> None:
    """200 archives with one to three bytes changed, cut or put in: refused, or every file is right."""
    rng = random.Random(method)
    sound = zipped(FILES, method)
    for number in range(50):
        content = bytearray(sound)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(content))
            change = rng.choice(["flip", "cut", "insert"])
            if change == "flip":
                content[place] ^= 1 << rng.randrange(8)
            elif change == "cut":
                del content[place : place + rng.randint(1, 40)]
            else:
                content[place:place] = rng.randbytes(4)
        (tmp_path / "a.zip").write_bytes(content)
        target = tmp_path / f"{method}-{number}"
        target.mkdir()
        try:
            unpack(tmp_path / "a.zip", target, "top")
        except DownloadError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        for path in (path for path in target.rglob("*") if path.is_file()):
            assert path.read_bytes() == FILES[f"top/{path.relative_to(target).as_posix()}"]


def test_archives_of_macos_and_with_a_file_twice(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({**FILES, "top/qrels/._test.tsv": b"\x00\x05", "top/corpus.jsonl/": b""}))
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.zip", tmp_path / "out", "top")
    assert [path.name for path in (tmp_path / "out" / "qrels").iterdir()] == ["test.tsv"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("top/corpus.jsonl", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("top/corpus.jsonl", b"2")
    (tmp_path / "b.zip").write_bytes(buffer.getvalue())
    with pytest.raises(DownloadError, match="twice"):
        unpack(tmp_path / "b.zip", tmp_path / "out", "top")


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


CORPUS = lines({"_id": "d", "title": "", "text": "x"})
QUERIES = lines({"_id": "q", "text": "x"})
JUDGED = lines({"query-id": "q", "corpus-id": "d", "score": 1})
HUB = {
    "truncated gzip": ("corpus.jsonl.gz", gzip.compress(CORPUS * 999)[:-20]),
    "no gzip": ("corpus.jsonl.gz", b"\x1f\x8b\x08\x00garbage-garbage"),
    "bzip2 as gzip": ("corpus.jsonl.gz", bz2.compress(CORPUS)),
    "gzip bomb": ("corpus.jsonl.gz", gzip.compress(b"\n" * (30 << 20))),
    "no parquet": ("corpus.parquet", b"PAR1" + b"\x00" * 40 + b"PAR1"),
    "UTF-16": ("corpus.jsonl", CORPUS.decode().encode("utf-16")),
    "a list": ("corpus.jsonl", b"[1]\n"),
    "depth": ("corpus.jsonl", b"[" * 100_000),
    "a number as text": ("corpus.jsonl", lines({"_id": "d", "text": 5})),
    "no text": ("corpus.jsonl", lines({"_id": "d", "text": None})),
    "a tab in an id": ("corpus.jsonl", lines({"_id": "d\t1", "text": "x"})),
    "a list as an id": ("corpus.jsonl", lines({"_id": ["d"], "text": "x"})),
    "a short row": ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\n"),
    "a huge cell": ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\td\t" + b"1" * 200_000),
    "an infinite score": ("qrels/test.jsonl", b'{"query-id": "q", "corpus-id": "d", "score": 1e999}\n'),
    "a text as a score": ("qrels/test.jsonl", lines({"query-id": "q", "corpus-id": "d", "score": "inf"})),
    "a list as a score": ("qrels/test.jsonl", lines({"query-id": "q", "corpus-id": "d", "score": [1]})),
}


@pytest.mark.parametrize("case", HUB)
def test_hostile_files_of_the_hub_are_one_line(case: str, tmp_path: Path) -> None:
    name, content = HUB[case]
    role = "corpus" if name.startswith("corpus") else "test"
    (tmp_path / "out").mkdir()
    roles = {}
    for each, plain in (("corpus", CORPUS), ("queries", QUERIES), ("test", JUDGED)):
        path = tmp_path / (name.replace("/", "-") if each == role else f"{each}.jsonl")
        path.write_bytes(content if each == role else plain)
        roles[each] = [path]
    with pytest.raises(DownloadError, match="not as expected") as caught:
        convert("mteb/x", roles, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_environment_is_not_changed_by_these_tests() -> None:
    assert SECRET not in "".join(os.environ.values())
