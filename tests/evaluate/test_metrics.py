from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import DataError
from ranksaga.evaluate.metrics import CUTOFFS, evaluate
from ranksaga.retrieve.rankings import Rankings, tie_order
from ranksaga.retrieve.sort_keys import decode_keys, encode_keys, take_best


def dataset(queries: int, documents: int, triples: list[tuple[int, int, int]]) -> Dataset:
    names = tuple(f"d{row}" for row in range(documents))
    texts = ("text",) * documents
    query_names = tuple(f"q{row}" for row in range(queries))
    return Dataset(
        "tiny", Corpus(names, texts, texts), Queries(query_names, ("text",) * queries), {"test": Qrels.of(triples)}
    )


def rankings(rows: dict[int, list[int]], depth: int) -> Rankings:
    documents = np.full((len(rows), depth), -1, dtype=np.int32)
    scores = np.full((len(rows), depth), -np.inf, dtype=np.float32)
    for line, row in enumerate(rows.values()):
        documents[line, : len(row)] = row
        scores[line, : len(row)] = np.arange(len(row), 0, -1)
    return Rankings(np.array(list(rows), dtype=np.int32), documents, scores)


def test_by_hand() -> None:
    data = dataset(3, 6, [(0, 1, 2), (0, 2, 1), (0, 3, 0), (2, 0, 1)])
    # Query 0 finds grade 1 at rank 2 and grade 2 at rank 4; query 1 is not judged; query 2 found nothing.
    found = evaluate(rankings({1: [0], 0: [3, 2, 5, 1]}, 4), data, "test", system="s", out_of_fold=True)
    assert found.query_ids == ("q0", "q2")
    assert (found.dataset, found.split, found.system, found.out_of_fold) == ("tiny", "test", "s", True)
    ideal = 2 + 1 / math.log2(3)
    expected = {
        "ndcg_at_10": (1 / math.log2(3) + 2 / math.log2(5)) / ideal,
        "ndcg_at_1": 0.0,
        "ndcg_at_3": (1 / math.log2(3)) / ideal,
        "map_at_3": 0.25,
        "map_at_10": (1 / 2 + 2 / 4) / 2,
        "recall_at_3": 0.5,
        "recall_at_5": 1.0,
        "precision_at_5": 2 / 5,
        "precision_at_1000": 2 / 1000,
        "mrr_at_1": 0.0,
        "mrr_at_3": 0.5,
    }
    for key, value in expected.items():
        assert found.values[key].tolist() == pytest.approx([value, 0.0], abs=1e-12), key
    assert found.mean("recall_at_5") == 0.5
    assert len(found.values) == 5 * len(CUTOFFS)


def test_results_behind_the_last_cutoff_do_not_count() -> None:
    data = dataset(1, 1002, [(0, 1000, 1), (0, 999, 1)])
    found = evaluate(rankings({0: list(range(1002))}, 1002), data, "test", system="s")
    assert found.values["recall_at_1000"].tolist() == [0.5]


def test_other_judgments_can_be_given() -> None:
    data = dataset(2, 3, [(0, 0, 1), (1, 1, 1)])
    part = data.split("test").only_queries(np.array([1], dtype=np.int32))
    found = evaluate(rankings({0: [0], 1: [1]}, 1), data, "test", system="s", qrels=part)
    assert found.query_ids == ("q1",)
    assert found.values["ndcg_at_1"].tolist() == [1.0]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="no split 'dev'"):
        evaluate(rankings({}, 1), dataset(1, 1, [(0, 0, 1)]), "dev", system="s")


def pytrec(data: Dataset, scores: dict[int, dict[int, float]]) -> dict[str, list[float]]:
    """Every metric by pytrec_eval, and MRR as beir computes it, with 0 for a query without results."""
    import pytrec_eval

    judged = data.split("test")
    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade in zip(judged.queries, judged.documents, judged.scores, strict=True):
        qrels.setdefault(f"q{query}", {})[f"d{document}"] = int(grade)
    run = {f"q{query}": {f"d{row}": score for row, score in found.items()} for query, found in scores.items()}
    cuts = ",".join(map(str, CUTOFFS))
    wanted = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"{name}.{cuts}" for name in wanted.values()})
    result: dict[str, dict[str, Any]] = evaluator.evaluate(run)
    values: dict[str, list[float]] = {}
    for cutoff in CUTOFFS:
        for ours, theirs in wanted.items():
            key = f"{theirs}_{cutoff}"
            values[f"{ours}_at_{cutoff}"] = [result.get(query, {}).get(key, 0.0) for query in qrels]
        values[f"mrr_at_{cutoff}"] = []
        for query in qrels:
            found = run.get(query, {})
            best = sorted(found, key=lambda document: (found[document], document.encode()), reverse=True)[:cutoff]
            ranks = [rank for rank, document in enumerate(best, 1) if qrels[query].get(document, 0) > 0]
            values[f"mrr_at_{cutoff}"].append(1 / ranks[0] if ranks else 0.0)
    return values


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_pytrec_eval(draw: st.DataObject) -> None:
    queries, documents = draw.draw(st.integers(1, 6)), draw.draw(st.integers(1, 25))
    pairs = st.tuples(st.integers(0, queries - 1), st.integers(0, documents - 1))
    # At least one judgment; graded, zero among them; unjudged documents and queries occur.
    judged = draw.draw(st.dictionaries(pairs, st.integers(0, 4), min_size=1))
    # Few distinct scores: ties are the rule.
    run = draw.draw(st.dictionaries(pairs, st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5, 2.0])))
    data = dataset(queries, documents, [(query, row, grade) for (query, row), grade in judged.items()])
    scores: dict[int, dict[int, float]] = {}
    for (query, row), score in run.items():
        scores.setdefault(query, {})[row] = score
    matrix = np.full((len(scores), documents), -np.inf, dtype=np.float32)
    for line, found in enumerate(scores.values()):
        matrix[line, list(found)] = list(found.values())
    ties = tie_order(data.corpus.ids)
    keys = take_best(encode_keys(matrix, np.broadcast_to(ties, matrix.shape)), documents)
    ranked = Rankings(np.array(list(scores), dtype=np.int32), *decode_keys(keys, ties))
    ours = evaluate(ranked, data, "test", system="s")
    for key, expected in pytrec(data, scores).items():
        assert ours.values[key].tolist() == pytest.approx(expected, abs=1e-9), key
