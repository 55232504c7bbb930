"""Generated queries, against a stand-in endpoint on this machine."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga import cli
from ranksaga.data.beir import read_beir
from ranksaga.data.dataset import Corpus, Dataset, Queries
from ranksaga.data.importing import chat as chat_module
from ranksaga.data.importing.chat import Chat
from ranksaga.errors import DownloadError, UsageError
from ranksaga.run.generated_queries import _queries_of, choose_documents, estimate_cost, read_corpus, round_trip

KEY = "sk-secret-1234567890"
DOCUMENTS = {
    "d1": "The heron stands in shallow water and waits for fish.",
    "d2": "A lathe turns the workpiece while the tool stands still.",
    "d3": "Sourdough needs flour, water, salt and a day of patience.",
    "d4": "The glacier carves a valley in the shape of the letter U.",
}


@dataclass
class Endpoint:
    """Answers with two queries of the document's own words, and one that fits no document."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # each entry is one answer's error
    bodies: list[bytes] = field(default_factory=list)  # each entry is one answer
    location: str = ""


def answer_to(prompt: str) -> str:
    words = re.findall(r"\w+", prompt.partition("Document:\n")[2])
    return f'1. what of {words[1]} {words[2]}?\n- "{words[-1]} and {words[-2]}"\nzebra quantum'


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Endpoint]:
    standin = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            standin.keys.append(self.headers.get("Authorization", ""))
            if standin.statuses:
                self.send_response(standin.statuses.pop(0), KEY)  # an endpoint that repeats what it was sent
                if standin.location:
                    self.send_header("Location", standin.location)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            prompt = body["messages"][0]["content"]
            standin.asked.append(prompt)
            content = json.dumps({"choices": [{"message": {"content": answer_to(prompt)}}]}).encode()
            content = standin.bodies.pop(0) if standin.bodies else content
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RANKSAGA_API_KEY", KEY)
    monkeypatch.setattr(chat_module, "PAUSE", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    standin.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield standin
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    chunks = [json.dumps({"id": name, "file": "a.md", "headings": [], "start": 0, "end": 9}) for name in DOCUMENTS]
    (folder / "chunks.jsonl").write_text("\n".join(chunks))
    return folder


def command(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ranksaga", "datasets", "generate-queries", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_corpus_becomes_a_dataset(
    endpoint: Endpoint,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["--endpoint", endpoint.url, "--model", "writer", "--per-document", 3, "--price", "1000,2000"]
    assert command(corpus, "--to", tmp_path / "out", *common, "--dry-run", monkeypatch=monkeypatch) == 0
    assert endpoint.asked == []
    said = capsys.readouterr().out
    assert command(corpus, "--to", tmp_path / "out", *common, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr()
    tokens = sum(-(-len(prompt) // 4) for prompt in endpoint.asked)
    dollars = (tokens * 1000 + 4 * 3 * 20 * 2000) / 1e6
    estimate = f"4 requests, about {tokens} tokens to the model and 240 from it, about ${dollars:.2f}\n"
    assert said.startswith(estimate)
    assert shown.out.startswith(estimate)
    assert "12 queries written, 3 double, 1 whose document did not come back" in shown.out
    dataset = read_beir(tmp_path / "out")
    assert dataset.corpus.ids == tuple(DOCUMENTS)
    judged = {
        (dataset.queries.texts[query], dataset.corpus.ids[document])
        for qrels in dataset.qrels.values()
        for query, document in zip(qrels.queries, qrels.documents, strict=True)
    }
    assert judged == {
        *{
            ("what of heron stands?", "d1"),
            ("fish and for", "d1"),
            ("what of lathe turns?", "d2"),
            ("still and stands", "d2"),
        },
        *{
            ("what of needs flour?", "d3"),
            ("patience and of", "d3"),
            ("what of glacier carves?", "d4"),
            ("U and letter", "d4"),
        },
    }
    assert (tmp_path / "out" / "chunks.jsonl").is_file()
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY in text for text in [*written, said, shown.out, shown.err])
    # Everything is kept: the same again asks nothing.
    assert command(corpus, "--to", tmp_path / "again", *common, monkeypatch=monkeypatch) == 0
    assert len(endpoint.asked) == 4
    assert "0 requests (4 are answered already)" in capsys.readouterr().out
    assert read_beir(tmp_path / "again").fingerprint == dataset.fingerprint


def test_what_was_answered_before_a_failure_is_kept(
    endpoint: Endpoint,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(corpus, "--to", tmp_path / "x", *options(endpoint), "--documents", 2, monkeypatch=monkeypatch)
    assert len(endpoint.asked) == 2
    endpoint.statuses = [500] * 100
    assert command(corpus, "--to", tmp_path / "y", *options(endpoint), monkeypatch=monkeypatch) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("no answer after 5 attempts (status 500); the same command goes on from here")
    assert not (tmp_path / "y").exists()
    endpoint.statuses = []
    assert command(corpus, "--to", tmp_path / "y", *options(endpoint), monkeypatch=monkeypatch) == 0
    assert len(endpoint.asked) == 4


def options(endpoint: Endpoint) -> list[str]:
    return ["--endpoint", endpoint.url, "--model", "writer", "--filter", "none"]


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint) -> None:
    endpoint.statuses = [429, 503]
    endpoint.bodies = [b"not JSON", b'{"choices": []}']
    assert Chat(endpoint.url, "m").ask("Document:\na b c d e").startswith("1. what of b c?")
    assert len(endpoint.keys) == 5


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "set a key"), (404, "check the address"), (302, "it leads elsewhere"), (400, "the model")],
)
def test_a_refusal_is_one_line_at_once_and_the_key_goes_nowhere_else(
    endpoint: Endpoint, status: int, said: str
) -> None:
    endpoint.statuses = [status]
    endpoint.location = f"{endpoint.url}/elsewhere"
    with pytest.raises(UsageError) as raised:
        Chat(endpoint.url, "m").ask("x")
    assert said in str(raised.value)
    assert KEY not in str(raised.value)
    assert len(endpoint.keys) == 1


def test_no_endpoint_is_one_line_without_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANKSAGA_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(chat_module, "PAUSE", 0.0)
    chat = Chat("http://127.0.0.1:9/v1", "m", folder=tmp_path)
    with pytest.raises(DownloadError, match="no answer after 5 attempts") as raised:
        chat.ask("x")
    assert KEY not in str(raised.value) + repr(chat)
    for wrong in ("127.0.0.1:9", "ftp://a/v1", "http://user:word@a/v1", "http://a/v1?key=word"):
        with pytest.raises(UsageError, match="--endpoint") as refused:
            Chat(wrong, "m", folder=tmp_path)
        assert "word" not in str(refused.value).replace("password", "")
    monkeypatch.setenv("RANKSAGA_API_KEY", "two\nlines")
    with pytest.raises(UsageError, match="characters that no key has"):
        Chat("http://a/v1", "m", folder=tmp_path)


def test_what_models_put_around_queries_is_taken_off() -> None:
    answer = '<think>hm\nwell</think>Here are two queries:\n1. "what is it?"\n2) - so?\n\n* “why”\n---\n' + "x" * 301
    assert _queries_of(answer) == ["what is it?", "so?", "why"]


class FirstLetters:
    """Vectors of how often each letter begins a word."""

    on_gpu = False

    def encode_queries(self, texts: Sequence[str], progress: object = None) -> NDArray[np.float32]:
        counts = [[sum(word[0] == letter for word in text.split()) for letter in "abcdefgh"] for text in texts]
        return np.array(counts, dtype=np.float32)

    encode_documents = encode_queries


def test_a_query_passes_where_its_document_or_a_copy_comes_back() -> None:
    corpus = Corpus(("1", "2", "3", "4"), ("",) * 4, ("ash alp bee", "cat cow dog", "cat cow dog", "elk fox"))
    queries = Queries(("q1", "q2", "q3", "q4"), ("alp", "ash", "cat", "gnu"))
    dataset = Dataset("x", corpus, queries, {})
    assert list(round_trip(1, FirstLetters())(dataset, [0, 1, 1, 0])) == [True, False, True, False]
    assert list(round_trip(1)(dataset, [0, 1, 1, 0])) == [True, False, True, False]


def test_documents_are_chosen_by_their_text(corpus: Path, tmp_path: Path) -> None:
    texts = read_corpus(corpus)
    chosen = {texts.ids[row] for row in choose_documents(texts, 2, seed=0)}
    (corpus / "corpus.jsonl").write_text("\n".join(reversed((corpus / "corpus.jsonl").read_text().split("\n"))))
    again = read_corpus(corpus)
    assert {again.ids[row] for row in choose_documents(again, 2, seed=0)} == chosen
    assert estimate_cost(texts, [], Chat("http://a/v1", "m", folder=tmp_path), 2, None).dollars is None


def test_an_answer_without_end_is_no_answer(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "LONGEST_ANSWER", 1000)
    endless = json.dumps({"choices": [{"message": {"content": "word " * 500}}]}).encode()
    endpoint.bodies += [endless] * chat_module.ATTEMPTS
    with pytest.raises(DownloadError, match="no answer after 5 attempts"):
        Chat(endpoint.url, "m").ask("Document:\na b c d")
