from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ranksaga.data.beir import write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries


@dataclass
class Site:
    """A web server on this machine; it serves ``files`` with byte ranges and writes down what was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # further headers, by path
    cut_after: list[int] = field(default_factory=list)  # each entry ends one answer after so many bytes
    statuses: list[int] = field(default_factory=list)  # each entry is one answer's error
    ranges: bool = True
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path, wanted = self.path.partition("?")[0], self.headers.get("Range")
            site.asked.append((self.command, path, wanted))
            if site.statuses:
                return self.send_error(site.statuses.pop(0))
            if path not in site.files:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")  # how the Hugging Face hub says so
                self.send_header("Content-Length", "0")
                return self.end_headers()
            content, start = site.files[path], 0
            if wanted and site.ranges:
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            for key, value in site.headers.get(path, {}).items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                rest = content[start:]
                self.wfile.write(rest[: site.cut_after.pop(0)] if site.cut_after else rest)
            return None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    return Handler


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test, and a working folder without datasets."""
    home = tmp_path / "home"
    monkeypatch.setenv("RANKSAGA_HOME", str(home))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return home


@pytest.fixture
def tiny() -> Dataset:
    """Three documents, three queries (one unjudged), test and train."""
    return Dataset(
        "tiny",
        Corpus(("d1", "d2", "d3"), ("Wings", "", "Été"), ("Lift of a wing.", "Boundary layer", "Chaleur à Paris 🌞")),
        Queries(("q1", "q2", "q3"), ("lift", "what is a boundary layer?", "nobody judged this")),
        {"train": Qrels.of([(1, 1, 2), (1, 0, 0)]), "test": Qrels.of([(0, 0, 1), (0, 2, 1)])},
    )


@pytest.fixture
def folder(tiny: Dataset, tmp_path: Path) -> Path:
    """The tiny dataset on disk, sound, for a test to break."""
    write_beir(tiny, tmp_path / "tiny")
    return tmp_path / "tiny"
