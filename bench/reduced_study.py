"""The offline study, cut down to what two slow cores do in half an hour a model: same sets, same code, less of each.

RANKSAGA_DATASETS=<folder of the collections> python bench/reduced_study.py MODEL [--out runs]

Corpora are cut to 1,000 documents (relevant ones first, then others at random), texts to 160 tokens, `best` to two
epochs of 1,500 pseudo-queries with one seed, and documents stay. Nothing is set by hand for a model. Scores are higher
than those of the whole corpora and compare only with each other; changes say how a model takes to training.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import data_folder

TRAINED = ("scifact", "nfcorpus", "cosqa", "cranfield")
GUARDS = ("cisi", "cystic-fibrosis")
DOCUMENTS = 1000
SETTINGS = {"epochs": 2, "seeds": 1, "documents": None, "distillation": {"pseudo_queries": 1500}}


def cut(name: str, target: Path) -> str:
    """Write a collection with ``DOCUMENTS`` documents at most; queries that none of them answers are left out."""
    from ranksaga.data.beir import read_beir, write_beir
    from ranksaga.data.dataset import Corpus, Dataset, Qrels

    dataset = read_beir(data_folder(name), name)
    corpus, rng = dataset.corpus, np.random.default_rng(0)
    relevant = np.unique(np.concatenate([judged.positives.documents for judged in dataset.qrels.values()]))
    others = np.setdiff1d(np.arange(len(corpus)), relevant)
    first, rest = rng.permutation(relevant), rng.permutation(others)
    rows = np.sort(np.concatenate([first, rest])[:DOCUMENTS])
    kept = Corpus(
        tuple(corpus.ids[row] for row in rows),
        tuple(corpus.titles[row] for row in rows),
        tuple(corpus.texts[row] for row in rows),
    )
    place = {int(row): number for number, row in enumerate(rows)}
    qrels = {}
    for split, judged in dataset.qrels.items():
        positives = judged.positives
        answered = set(positives.queries[np.isin(positives.documents, rows)].tolist())
        triples = zip(judged.queries.tolist(), judged.documents.tolist(), judged.scores.tolist(), strict=True)
        qrels[split] = Qrels.of([(q, place[d], s) for q, d, s in triples if d in place and q in answered])
    write_beir(Dataset(name, kept, dataset.queries, qrels), target / name)
    return str(target / name)


def main() -> None:
    """Cut the collections, run the recipe, print its table."""
    from ranksaga.config.recipe import Recipe
    from ranksaga.run.console import Terminal
    from ranksaga.run.pipeline import run_recipe

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="minilm, or a model's folder")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    name = f"reduced-{Path(arguments.model).name}"
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.model_validate(
            {
                "name": name,
                "model": arguments.model,
                "datasets": [cut(one, Path(folder)) for one in TRAINED],
                "guards": [cut(one, Path(folder)) for one in GUARDS],
                "max_length": 160,
                "systems": {"best": SETTINGS},
            }
        )
        print(run_recipe(recipe, arguments.out / name, Terminal()).text())


if __name__ == "__main__":
    main()
