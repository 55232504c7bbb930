"""The same rankings scored by beir's own EvaluateRetrieval."""

from __future__ import annotations

import numpy as np
import pytest

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.evaluate.metrics import CUTOFFS, evaluate
from ranksaga.retrieve.rankings import tie_order
from ranksaga.retrieve.search import search


def test_beir_gives_the_same_means() -> None:
    evaluation = pytest.importorskip("beir.retrieval.evaluation", reason="beir is not installed (extra: bench)")
    rng = np.random.default_rng(0)
    queries, documents, depth = 40, 1500, 1000
    names = tuple(f"d{row}" for row in range(documents))
    triples = {
        (int(q), int(d)): int(g) for q, d, g in zip(*rng.integers(0, [[40], [1500], [4]], (3, 600)), strict=True)
    }
    # Every query needs a judgment: beir divides by the judged queries, too.
    data = Dataset(
        "random",
        Corpus(names, names, names),
        Queries(tuple(f"q{row}" for row in range(queries)), ("text",) * queries),
        {"test": Qrels.of([(*pair, grade) for pair, grade in triples.items()])},
    )
    judged = data.split("test")
    vectors = rng.standard_normal((documents, 16)).astype(np.float32)
    ranked = search(
        rng.standard_normal((len(judged.query_rows), 16)).astype(np.float32),
        [(0, vectors)],
        query_rows=judged.query_rows,
        ties=tie_order(names),
        depth=depth,
        device="cpu",
    )
    ours = evaluate(ranked, data, "test", system="s")

    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade in zip(judged.queries, judged.documents, judged.scores, strict=True):
        qrels.setdefault(f"q{query}", {})[f"d{document}"] = int(grade)
    results = {
        f"q{query}": {f"d{document}": float(score) for document, score in zip(rows, scores, strict=True)}
        for query, rows, scores in zip(ranked.queries, ranked.documents, ranked.scores, strict=True)
    }
    cutoffs = list(CUTOFFS)
    beir = evaluation.EvaluateRetrieval
    ndcg, average, recall, precision = beir.evaluate(qrels, results, cutoffs)
    reciprocal = beir.evaluate_custom(qrels, results, cutoffs, metric="mrr")
    for name, theirs, key in (
        ("ndcg", ndcg, "NDCG"),
        ("map", average, "MAP"),
        ("recall", recall, "Recall"),
        ("precision", precision, "P"),
        ("mrr", reciprocal, "MRR"),
    ):
        for cutoff in cutoffs:
            # beir rounds to five places.
            assert ours.mean(f"{name}_at_{cutoff}") == pytest.approx(theirs[f"{key}@{cutoff}"], abs=6e-6)
