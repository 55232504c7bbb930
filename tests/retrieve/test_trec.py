"""TREC run files, by hand and read back by trec_eval's own parser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranksaga.retrieve.rankings import Rankings
from ranksaga.retrieve.trec import write_run

QUERIES = ["q1", "q2", "q3"]
DOCUMENTS = [f"d{row}" for row in range(200)]


def test_lines_are_as_trec_eval_reads_them(tmp_path: Path) -> None:
    rankings = Rankings(
        np.array([1], dtype=np.int32),
        np.array([[5, 3, -1]], dtype=np.int32),
        np.array([[0.1, -2, -np.inf]], dtype=np.float32),
    )
    write_run(tmp_path / "a" / "run.trec", rankings, QUERIES, DOCUMENTS, tag="base")
    text = (tmp_path / "a" / "run.trec").read_text()
    assert text == "q2\tQ0\td5\t1\t0.100000001\tbase\nq2\tQ0\td3\t2\t-2\tbase\n"


def test_trec_eval_reads_every_score_back_to_the_last_bit(tmp_path: Path) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval is not installed (extra [dev])")
    rng = np.random.default_rng(1)
    documents = np.array([rng.choice(200, 50, replace=False) for _ in range(2)], dtype=np.int32)
    scores = -np.sort(-(rng.standard_normal((2, 50)) * 10.0 ** rng.integers(-20, 20, (2, 50))).astype(np.float32))
    documents[1, 30:], scores[1, 30:] = -1, -np.inf
    rankings = Rankings(np.array([0, 2], dtype=np.int32), documents, scores)
    write_run(tmp_path / "run.trec", rankings, QUERIES, DOCUMENTS, tag="x")
    with (tmp_path / "run.trec").open(encoding="utf-8") as stream:
        read = pytrec_eval.parse_run(stream)
    expected = {
        QUERIES[query]: {DOCUMENTS[document]: score for document, score in zip(*columns, strict=True) if document >= 0}
        for query, *columns in zip(rankings.queries.tolist(), documents.tolist(), scores, strict=True)
    }
    assert {query: {key: np.float32(score) for key, score in each.items()} for query, each in read.items()} == expected


def test_an_empty_run_is_an_empty_file(tmp_path: Path) -> None:
    rows = np.empty((0, 5))
    rankings = Rankings(np.empty(0, dtype=np.int32), rows.astype(np.int32), rows.astype(np.float32))
    write_run(tmp_path / "run.trec", rankings, QUERIES, DOCUMENTS, tag="x")
    assert (tmp_path / "run.trec").read_bytes() == b""
