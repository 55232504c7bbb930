"""What the teacher's constants do to its ranking of dev queries, on the cut-down collections of the reduced study.

RANKSAGA_DATASETS=<folder of the collections> python bench/teacher_study.py MODEL

Corrections are chosen on training queries, as a run does; the ranking is scored on dev queries. Test queries are not
read. Prints one row a setting: the mix of each dataset and nDCG@10 on dev.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reduced_study import TRAINED, cut

# What a correction must lift nDCG@10 of the training queries by: BM25, and the other three.
GAINS = ((1.0, 1.0), (1.01, 1.0), (1.02, 1.0), (1.05, 1.0), (1.02, 1.01), (1.02, 1.02))
# BM25's share where no training query is there to choose it, in spreads.
SHARES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)


@contextmanager
def least_gain(bm25: float, others: float) -> Iterator[None]:
    from ranksaga.train import teacher

    before = teacher.LEAST_GAIN
    teacher.LEAST_GAIN = {name: bm25 if name == "bm25" else others for name in before}
    try:
        yield
    finally:
        teacher.LEAST_GAIN = before


def dev_score(teacher: Any, dev: Any, vectors: Any) -> float:
    """nDCG@10 of the teacher's own ranking of the dev queries."""
    from ranksaga.evaluate.metrics import evaluate
    from ranksaga.retrieve.rankings import tie_order
    from ranksaga.retrieve.search import search

    rows = dev.query_rows
    texts = [teacher.dataset.queries.texts[row] for row in rows]
    scores = np.ascontiguousarray(teacher.scores(texts, vectors).T)
    ties = tie_order(teacher.dataset.corpus.ids)
    unit = np.eye(len(rows), dtype=np.float32)
    rankings = search(unit, [(0, scores)], query_rows=rows, ties=ties, depth=10)
    return float(evaluate(rankings, teacher.dataset, "dev", system="teacher", qrels=dev).mean("ndcg_at_10"))


def main() -> None:
    """Choose and score, setting by setting."""
    from ranksaga.config.recipe import Recipe
    from ranksaga.data.dataset import Qrels
    from ranksaga.retrieve.lexical import LexicalIndex
    from ranksaga.run.console import Silent
    from ranksaga.run.context import Context
    from ranksaga.run.measure import vectors_of
    from ranksaga.run.plan import SHIPPED, draw_plan
    from ranksaga.run.stages.baseline import rank_with_base
    from ranksaga.run.store import Store
    from ranksaga.train.teacher import Mix, Passages, Teacher, choose_mix, passages_of

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="minilm, or a model's folder")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        names = {cut(name, Path(folder)): name for name in TRAINED}
        recipe = Recipe.model_validate({"model": model, "datasets": list(names), "max_length": 160})
        context = Context(recipe, Store(Path(folder) / "run"), Silent())
        plan, _ = draw_plan(context)
        settings = recipe.systems["best"]
        view = plan.view(SHIPPED)
        training, selecting = plan.training(view, settings), plan.selecting(view, settings)
        teachers: dict[str, Any] = {}
        passages: dict[str, Any] = {}
        devs: dict[str, tuple[Any, Any]] = {}
        for member in context.datasets:
            name = names[member.name]
            vectors = vectors_of(rank_with_base(context, member))
            train, dev = training.get(member.name, Qrels.of([])), selecting[member.name]
            asked = vectors.of_queries(train.query_rows)
            none = np.empty((0, vectors.documents.shape[1]), dtype=np.float32)
            index, documents = LexicalIndex.of(member.dataset), np.array(vectors.documents)
            # The spread needs queries: those of dev stand for the pseudo-queries.
            known = vectors.of_queries(dev.query_rows)
            teachers[name] = Teacher(
                member.dataset, index, Mix(), documents, (), known, train, asked if len(train) else none
            )
            texts, rows = passages_of(member.dataset.corpus)
            passages[name] = lambda texts=texts, rows=rows: Passages(context.encoder.encode_documents(texts), rows)
            devs[name] = dev, known
        print_table(teachers, passages, devs, choose_mix)


def print_table(teachers: Mapping[str, Any], passages: Mapping[str, Any], devs: Mapping[str, Any], choose: Any) -> None:
    for name, teacher in teachers.items():
        dev, known = devs[name]
        sizes = f"{len(teacher.train.query_rows)} training queries, {len(dev.query_rows)} dev queries"
        print(f"{name}: {sizes}, spread {teacher.spread:.4f}")
        print(f"  base alone: {dev_score(teacher, dev, known):.4f}")
        if len(teacher.train):
            for bm25, others in GAINS:
                with least_gain(bm25, others):
                    mixed = choose(teacher, passages[name])
                print(f"  least gains {bm25:g} and {others:g}: {dev_score(mixed, dev, known):.4f}  {mixed.mix}")
        for share in SHARES:
            mixed = replace(teacher, mix=replace(teacher.mix, bm25=share, feedback=0.4, hubness=0.1))
            print(f"  set by hand, BM25 {share:g}: {dev_score(mixed, dev, known):.4f}")


if __name__ == "__main__":
    main()
