"""Every reader of untrusted input under a fuzzer that is guided by coverage.

    pip install -r tests/fuzz/requirements.txt
    python tests/fuzz/fuzz_readers.py READER [CORPUS_FOLDER] [-max_total_time=600 -timeout=10 -rss_limit_mb=2048]

A reader ends with a value or with an error of ours; anything else is a finding, and so is a value that a second
implementation reads otherwise. The readers' names are the keys of ``READERS``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # of this program alone: no tool that checks the rest knows it

with atheris.instrument_imports(include=["ranksaga", "yaml", "json", "zipfile", "csv"]):
    import yaml

    from ranksaga.config.load import load_recipe
    from ranksaga.data.archives import unpack
    from ranksaga.data.beir import read_beir
    from ranksaga.data.hub import convert
    from ranksaga.errors import DataError, DownloadError, RecipeError
    from ranksaga.evaluate.per_query import evaluation_of
    from ranksaga.untrusted.escape import csv_cell, markdown, one_line, printable, public_url, trec_id, without_secrets
    from ranksaga.untrusted.json_input import parse_json
    from ranksaga.untrusted.yaml_input import YamlError, dump_yaml, read_yaml

FOLDER = Path(tempfile.mkdtemp())
(FOLDER / "d" / "qrels").mkdir(parents=True)
CORPUS = b'{"_id": "d1", "title": "t", "text": "x"}\n{"_id": "d2", "text": "y"}\n'
QUERIES = b'{"_id": "q1", "text": "x"}\n'
JUDGED = b"query-id\tcorpus-id\tscore\nq1\td1\t1\n"


def fuzz_yaml(data: bytes) -> None:
    """A value that is read is read the same when written again."""
    with contextlib.suppress(YamlError):
        value = read_yaml(data).value
        if isinstance(value, dict) and value == value:  # NaN is not
            assert read_yaml(dump_yaml(value)).value == value
            with contextlib.suppress(yaml.YAMLError):
                yaml.safe_load(dump_yaml(value))


def fuzz_recipe(data: bytes) -> None:
    """A recipe or one line."""
    (FOLDER / "r.yaml").write_bytes(data)
    with contextlib.suppress(RecipeError):
        load_recipe(FOLDER / "r.yaml", environment={})


def fuzz_json(data: bytes) -> None:
    """What is accepted is what Python's own parser gives."""
    try:
        text = data.decode()
        value = parse_json(text)
    except ValueError:
        return
    assert value == json.loads(text)


def fuzz_results(data: bytes) -> None:
    """Results for ``compare``."""
    with contextlib.suppress(ValueError):
        evaluation_of(parse_json(data.decode()))


def _dataset(corpus: bytes, queries: bytes, judged: bytes) -> None:
    for name, content in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", judged)):
        (FOLDER / "d" / name).write_bytes(content)
    with contextlib.suppress(DataError):
        read_beir(FOLDER / "d")


def fuzz_corpus(data: bytes) -> None:
    """corpus.jsonl: records are those of Python's parser."""
    for name, content in (("corpus.jsonl", data), ("queries.jsonl", QUERIES), ("qrels/test.tsv", JUDGED)):
        (FOLDER / "d" / name).write_bytes(content)
    try:
        dataset = read_beir(FOLDER / "d")
    except DataError:
        return
    records = [json.loads(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]
    assert list(dataset.corpus.ids) == [record["_id"] for record in records]
    assert list(dataset.corpus.texts) == [record["text"] for record in records]


def fuzz_queries(data: bytes) -> None:
    """queries.jsonl."""
    _dataset(CORPUS, data, JUDGED)


def fuzz_qrels(data: bytes) -> None:
    """qrels/test.tsv."""
    _dataset(CORPUS, QUERIES, data)


def fuzz_zip(data: bytes) -> None:
    """An archive: nothing outside of its folder."""
    (FOLDER / "a.zip").write_bytes(data)
    with tempfile.TemporaryDirectory(dir=FOLDER) as target, contextlib.suppress(DownloadError):
        unpack(FOLDER / "a.zip", Path(target), "top")


def fuzz_hub(data: bytes) -> None:
    """Files of the hub, the first byte saying which and in what format."""
    name = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.parquet", "test.tsv")[data[0] % 4 if data else 0]
    source = FOLDER / "hub"
    source.mkdir(exist_ok=True)
    files = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "test": "test.tsv"}
    files[name.partition(".")[0]] = name
    for role, content in (("corpus", CORPUS), ("queries", QUERIES), ("test", JUDGED)):
        (source / files[role]).write_bytes(data[1:] if files[role] == name else content)
    with tempfile.TemporaryDirectory(dir=FOLDER) as target, contextlib.suppress(DownloadError):
        convert("x", {role: [source / file] for role, file in files.items()}, Path(target))


def fuzz_escape(data: bytes) -> None:
    """Every function of the way out, on any text."""
    text = data.decode("utf-8", "surrogatepass" if data[:1] == b"\xed" else "surrogateescape")
    for escape in (printable, one_line, markdown, csv_cell, trec_id, public_url, without_secrets):
        assert isinstance(escape(text), str)
    assert len(one_line(text).splitlines()) <= 1
    assert len(trec_id(text).split()) <= 1


READERS: dict[str, Callable[[bytes], None]] = {
    name.removeprefix("fuzz_"): function for name, function in list(globals().items()) if name.startswith("fuzz_")
}

if __name__ == "__main__":
    reader = READERS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, reader)
    atheris.Fuzz()
