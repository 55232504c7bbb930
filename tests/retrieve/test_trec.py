from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranksaga.errors import DataError
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.retrieve.trec import read_run, write_run

QUERIES = {"q 1": 0, "q2": 1, "q3": 2}
DOCUMENTS = {f"d{row}": row for row in range(200)}
TIES = tie_order(tuple(DOCUMENTS))


def test_lines_are_as_trec_eval_reads_them(tmp_path: Path) -> None:
    rankings = Rankings(
        np.array([1], dtype=np.int32),
        np.array([[5, 3, -1]], dtype=np.int32),
        np.array([[0.1, -2, -np.inf]], dtype=np.float32),
    )
    write_run(tmp_path / "a" / "run.trec", rankings, list(QUERIES), list(DOCUMENTS), tag="base")
    text = (tmp_path / "a" / "run.trec").read_text()
    assert text == "q2\tQ0\td5\t1\t0.100000001\tbase\nq2\tQ0\td3\t2\t-2\tbase\n"


def test_rankings_come_back_to_the_last_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    documents = np.array([rng.choice(200, 50, replace=False) for _ in range(2)], dtype=np.int32)
    scores = -np.sort(-(rng.standard_normal((2, 50)) * 10.0 ** rng.integers(-20, 20, (2, 50))).astype(np.float32))
    documents[1, 30:], scores[1, 30:] = -1, -np.inf
    rankings = Rankings(np.array([0, 2], dtype=np.int32), documents, scores)
    write_run(tmp_path / "run.trec", rankings, list(QUERIES), list(DOCUMENTS), tag="x")
    back = read_run(tmp_path / "run.trec", QUERIES, DOCUMENTS, TIES)
    assert np.array_equal(back.queries, rankings.queries)
    assert np.array_equal(back.documents, documents)
    assert np.array_equal(back.scores, scores)


def test_order_is_made_from_scores_not_from_ranks(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q2 Q0 d1 1 1.0 x\nq2 Q0 d2 2 3.0 x\n\nq2 Q0 d9 3 1.0 x\n")
    assert read_run(path, QUERIES, DOCUMENTS, TIES).documents.tolist() == [[2, 9, 1]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q2 Q0 d1 1 1.0", "5 columns"),
        ("q9 Q0 d1 1 1.0 x", "query 'q9'"),
        ("q2 Q0 x1 1 1.0 x", "document 'x1'"),
        ("q2 Q0 d1 1 high x", "score 'high'"),
        ("q2 Q0 d1 1 nan x", "score 'nan'"),
        ("q2 Q0 d0 1 1.0 x", "twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text(f"q2 Q0 d0 1 2.0 x\n{line}\n")
    with pytest.raises(DataError, match=f"run.trec:2: .*{message}"):
        read_run(path, QUERIES, DOCUMENTS, TIES)


def test_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("")
    assert len(read_run(tmp_path / "run.trec", QUERIES, DOCUMENTS, TIES)) == 0
