"""Which documents are left out of a query's ranking, against BEIR's evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ranksaga.data.beir import read_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.data.self_hits import count_self_hits, self_hits
from ranksaga.evaluate.metrics import evaluate
from ranksaga.retrieve.lexical import LexicalIndex, bm25_rankings
from ranksaga.train.pairs import labelled_pairs


def dataset(
    documents: dict[str, str], queries: dict[str, str], relevant: list[tuple[str, str]], split: str = "test"
) -> Dataset:
    corpus = Corpus(tuple(documents), ("",) * len(documents), tuple(documents.values()))
    asked = Queries(tuple(queries), tuple(queries.values()))
    triples = [(asked.rows[query], corpus.rows[document], 1) for query, document in relevant]
    return Dataset("tiny", corpus, asked, {split: Qrels.of(triples)})


ARGUMENTS = {
    "a1": "taxes on sugar help the poor most of all",
    "a2": "taxes on sugar hurt the poor most",
    "a3": "sugar is a food",
    "a4": "the poor pay taxes on food",
}


def beirs_ndcg(data: Dataset) -> float:
    """BEIR's way: rank all documents, drop equal ids, let pytrec_eval score."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rows = data.split("test").query_rows
    every = np.tile(np.arange(len(data.corpus), dtype=np.int32), (len(rows), 1))
    scores = LexicalIndex.of(data).scores(rows, every)
    names = data.corpus.ids
    found = {
        data.queries.ids[row]: {name: float(score) for name, score in zip(names, line, strict=True) if score > 0}
        for row, line in zip(rows, scores, strict=True)
    }
    for query, line in found.items():  # ignore_identical_ids of beir's EvaluateRetrieval.evaluate
        line.pop(query, None)
    qrels: dict[str, dict[str, int]] = {}
    for query, document in zip(data.split("test").queries, data.split("test").documents, strict=True):
        qrels.setdefault(data.queries.ids[query], {})[names[document]] = 1
    values = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(found)
    return float(np.mean([one["ndcg_cut_10"] for one in values.values()]))


def test_queries_that_are_documents_are_scored_as_beir_scores_them() -> None:
    """As in ArguAna, where a query is an argument and its answer the counterargument."""
    queries = {"a1": ARGUMENTS["a1"], "a3": ARGUMENTS["a3"]}
    data = dataset(ARGUMENTS, queries, [("a1", "a2"), ("a3", "a4")])
    assert self_hits(data).tolist() == [0, 2]
    assert count_self_hits(data) == 2
    measured = evaluate(bm25_rankings(data, np.arange(2, dtype=np.int32)), data, "test", system="bm25")
    assert measured.mean("ndcg_at_10") == pytest.approx(beirs_ndcg(data), abs=1e-9)
    # As in Quora, where texts of one question may differ by a comma: ids decide, as long as no judgment objects.
    assert self_hits(dataset(ARGUMENTS, {"a1": "sugar taxes?"}, [("a1", "a2")])).tolist() == [0]


def test_row_numbers_on_both_sides_hide_no_answer() -> None:
    words = ["wing", "lift", "drag", "heat", "flow"]
    documents = {str(row): f"about {word}" for row, word in enumerate(words)}
    queries = {str(row): word for row, word in enumerate(words)}
    data = dataset(documents, queries, [(row, row) for row in queries])
    assert self_hits(data).tolist() == [-1] * 5
    rankings = bm25_rankings(data, np.arange(5, dtype=np.int32))
    assert evaluate(rankings, data, "test", system="bm25").mean("ndcg_at_10") == 1.0


def test_one_judgment_shows_that_ids_are_equal_by_chance() -> None:
    documents = {"1": "about wings", "2": "about drag", "3": "what is heat", "4": "about flow"}
    queries = {"1": "wing", "2": "flow", "3": "What is heat?", "9": "lift"}
    chance = [("1", "1"), ("2", "4"), ("3", "2")]
    # Document 2 is another text than query 2; document 3 is query 3.
    assert self_hits(dataset(documents, queries, chance)).tolist() == [-1, -1, 2, -1]
    assert self_hits(dataset(documents, queries, chance[1:])).tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_judgment_of_any_split_counts_and_a_grade_of_zero_does_not(split: str) -> None:
    documents, queries = {"1": "wings", "2": "drag"}, {"1": "lift", "2": "air"}
    assert self_hits(dataset(documents, queries, [("1", "1")], split)).tolist() == [-1, -1]
    graded = dataset(documents, queries, [("1", "2")], split)
    zero = Qrels.of([(0, 0, 0), (0, 1, 1)])
    assert self_hits(replace(graded, qrels={split: zero})).tolist() == [0, 1]


def test_what_is_left_out_is_no_negative_either() -> None:
    queries = {"a1": ARGUMENTS["a1"], "a3": ARGUMENTS["a3"]}
    data = dataset(ARGUMENTS, queries, [("a1", "a2"), ("a3", "a4")], "train")
    pairs = labelled_pairs(data, data.qrels["train"], titles=True)
    assert pairs.not_negative.tolist() == [[0, 0], [0, 1], [1, 2], [1, 3]]
    chance = dataset({"1": "wings", "2": "drag"}, {"1": "lift", "2": "air"}, [("1", "1"), ("2", "1")], "train")
    assert labelled_pairs(chance, chance.qrels["train"], titles=True).not_negative.tolist() == [[0, 0], [1, 0]]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["cisi", "cranfield", "cystic-fibrosis", "scifact", "nfcorpus", "cosqa"])
def test_every_judged_document_of_the_real_collections_can_be_found(name: str, shared_datasets: Path) -> None:
    if not (shared_datasets / name).is_dir():
        pytest.skip(f"{shared_datasets / name} is missing")
    data = read_beir(shared_datasets / name)
    left_out = self_hits(data)
    for qrels in data.qrels.values():
        assert not (left_out[qrels.positives.queries] == qrels.positives.documents).any()
