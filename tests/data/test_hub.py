from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ranksaga.data import hub
from ranksaga.data.beir import read_beir
from ranksaga.data.dataset import Dataset
from ranksaga.data.download import download
from ranksaga.errors import DownloadError

SHA = "0123456789abcdef0123456789abcdef01234567"
CORPUS = [
    {"_id": "d1", "title": "Wings", "text": "Lift of a wing."},
    {"_id": "d2", "title": "", "text": "Boundary layer"},
    {"_id": "d3", "title": "Été", "text": "Chaleur à Paris 🌞"},
]
QUERIES = [
    {"_id": "q1", "text": "lift"},
    {"_id": "q2", "text": "what is a boundary layer?"},
    {"_id": "q3", "text": "nobody judged this"},
]
TEST = [("q1", "d1", 1), ("q1", "d3", 1)]
TRAIN = [("q2", "d1", 0), ("q2", "d2", 2)]


def lines(records: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def tsv(rows: list[tuple[str, str, int]]) -> bytes:
    return ("query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{s}\n" for q, d, s in rows)).encode()


def parquet(records: list[dict[str, Any]], tmp_path: Path) -> bytes:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    pq.write_table(pa.Table.from_pylist(records), tmp_path / "x.parquet")
    return (tmp_path / "x.parquet").read_bytes()


def publish(site: Any, repository: str, files: dict[str, bytes]) -> None:
    """Answer as the hub does: the repository's description, and each file with its commit and hash."""
    info = {"id": repository, "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
    for path in (f"/api/datasets/{repository}", f"/api/datasets/{repository}/revision/main"):
        site.files[path] = json.dumps(info).encode()
        site.headers[path] = {"Content-Type": "application/json"}
    for name, content in files.items():
        path = f"/datasets/{repository}/resolve/{SHA}/{name}"
        site.files[path] = content
        site.headers[path] = {"X-Repo-Commit": SHA, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}


@pytest.fixture(autouse=True)
def _at_home(site: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


def test_mteb_layout_with_json_lines(site: Any, home: Path, tiny: Dataset) -> None:
    publish(
        site,
        "mteb/tiny",
        {
            "README.md": b"",
            "corpus.jsonl": lines(CORPUS),
            "queries.jsonl": lines(QUERIES),
            "qrels/test.tsv": tsv(TEST),
            "qrels/train.jsonl": lines([{"query-id": q, "corpus-id": d, "score": str(s)} for q, d, s in TRAIN]),
        },
    )
    path = download("mteb/tiny")
    assert path == home / "datasets" / "mteb" / "tiny"
    assert read_beir(path).fingerprint == tiny.fingerprint


def test_mteb_layout_with_parquet(site: Any, tiny: Dataset, tmp_path: Path) -> None:
    qrels = [{"query-id": q, "corpus-id": d, "score": float(s)} for q, d, s in TEST]
    train = [{"query-id": q, "corpus-id": d, "score": s} for q, d, s in TRAIN]
    renamed = [{"id": row["_id"], "title": row["title"], "text": row["text"]} for row in CORPUS]
    publish(
        site,
        "mteb/tiny",
        {
            "corpus/corpus-00000-of-00002.parquet": parquet(renamed[:2], tmp_path),
            "corpus/corpus-00001-of-00002.parquet": parquet(renamed[2:], tmp_path),
            "queries/queries-00000-of-00001.parquet": parquet(QUERIES, tmp_path),
            "data/test-00000-of-00001.parquet": parquet(qrels, tmp_path),
            "data/train-00000-of-00001.parquet": parquet(train, tmp_path),
            "top_ranked/test-00000-of-00001.parquet": b"not ours",
        },
    )
    assert read_beir(download("mteb/tiny")).fingerprint == tiny.fingerprint


def test_beir_layout_with_a_second_repository(site: Any, tiny: Dataset) -> None:
    publish(
        site,
        "BeIR/tiny",
        {
            "corpus.jsonl.gz": gzip.compress(lines(CORPUS)),
            "queries.jsonl.gz": gzip.compress(lines(QUERIES)),
            "tiny.py": b"raise SystemExit('never run')",
        },
    )
    publish(site, "BeIR/tiny-qrels", {"test.tsv": tsv(TEST), "validation.tsv": tsv(TRAIN)})
    dataset = read_beir(download("BeIR/tiny"))
    assert sorted(dataset.qrels) == ["dev", "test"]
    assert replace(dataset, qrels={"train": dataset.split("dev"), "test": dataset.split("test")}).fingerprint == (
        tiny.fingerprint
    )


def test_unknown_repository(site: Any, home: Path) -> None:
    with pytest.raises(DownloadError, match=r"mteb/none: http://127.0.0.1:\d+ has no such data set; check the name"):
        download("mteb/none")
    assert not list((home / "datasets" / "mteb").iterdir())


def test_no_server(site: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"mteb/tiny: http://127.0.0.1:9 gave no proper answer .*; run again later"):
        download("mteb/tiny")


def test_not_a_retrieval_set(site: Any) -> None:
    publish(site, "mteb/banking", {"train.jsonl": b"", "test.jsonl": b""})
    with pytest.raises(DownloadError, match="no corpus and no queries in its files; is it a retrieval data set"):
        download("mteb/banking")


def test_counts_are_compared_with_the_catalogue(site: Any, home: Path) -> None:
    files = {"corpus.jsonl": lines(CORPUS), "queries.jsonl": lines(QUERIES), "qrels/test.tsv": tsv(TEST)}
    publish(site, "mteb/scifact", files)
    with pytest.raises(DownloadError, match=r"mteb/scifact is not scifact as published: found 3 documents"):
        download("mteb/scifact")
    assert not list((home / "datasets" / "mteb").iterdir())


def test_fractional_grades_are_refused(site: Any) -> None:
    bad = lines([{"query-id": "q1", "corpus-id": "d1", "score": "0.5"}])
    files = {"corpus.jsonl": lines(CORPUS), "queries.jsonl": lines(QUERIES), "qrels/test.jsonl": bad}
    publish(site, "mteb/tiny", files)
    with pytest.raises(DownloadError, match=r"the score '0\.5' is not an integer"):
        download("mteb/tiny")


def test_roles() -> None:
    names = [
        "corpus.jsonl",
        "corpus/corpus-00000-of-00001.parquet",
        "queries.jsonl.gz",
        "qrels/validation.tsv",
        "default/test/0000.parquet",
        "test.tsv",
        "README.md",
        "generated/train.jsonl",
    ]
    assert hub.classify(names) == {
        "corpus": ["corpus/corpus-00000-of-00001.parquet"],
        "queries": ["queries.jsonl.gz"],
        "dev": ["qrels/validation.tsv"],
        "test": ["test.tsv"],
    }


@pytest.mark.parametrize(
    ("name", "known"),
    [("BeIR/nq", True), ("mteb/CQADupstackAndroidRetrieval", True), ("mteb/", False), ("x/nq", False)],
)
def test_hub_names(name: str, known: bool) -> None:
    assert hub.is_hub_name(name) is known
