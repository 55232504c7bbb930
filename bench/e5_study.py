"""`ranksaga estimate` for studies/first-study.yaml on rented cards, on a machine that has neither its data nor its
model: sets of the catalogue's sizes and a random model of E5-base's shape stand in for them.

RANKSAGA_DATASETS=<folder of the collections> python bench/e5_study.py [--gpu A10G]

SciFact and NFCorpus are real where RANKSAGA_DATASETS has them. Of the others, documents, queries and judgments are as
many as the catalogue says, and texts are cut out of SciFact's to the mean numbers of words that BEIR published. The
tokenizer is MiniLM's, which has E5's vocabulary. A training learns nothing here: only what it would compute is counted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, model_folder

RECIPE = Path(__file__).parents[1] / "studies" / "first-study.yaml"
REAL = ("scifact", "nfcorpus")
# Mean words of a query and of a document (Thakur et al. 2021, table 1).
WORDS = {"scidocs": (9.38, 176.19), "quora": (9.53, 11.44), "fiqa": (10.77, 132.32), "arguana": (192.98, 166.80)}
# Of SCIDOCS's 29,928 judgments (catalogue) 4.9 a query are relevant (the same table); the rest say 0.
RELEVANT = {"scidocs": 4.9}
SPREAD = 0.37  # standard deviation of the logarithm of a text's words, as in SciFact


def words_of(name: str) -> list[str]:
    """A collection's words in order."""
    from ranksaga.data.beir import read_beir

    return " ".join(read_beir(data_folder(name), name).corpus.documents).split()


def texts(words: list[str], count: int, mean: float, rng: np.random.Generator) -> tuple[str, ...]:
    """Stretches of running text, log-normally long."""
    sizes = np.maximum(1, rng.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, count).round()).astype(int)
    starts = rng.integers(0, len(words) - 4000, count)
    pairs = zip(starts.tolist(), sizes.tolist(), strict=True)
    return tuple(" ".join(words[start : start + min(size, 4000)]) for start, size in pairs)


def stand_in(name: str, words: list[str], folder: Path) -> None:
    """A set of this name and of the catalogue's size."""
    from ranksaga.data.beir import write_beir
    from ranksaga.data.catalog import catalog_entry
    from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries

    counts = catalog_entry(name).counts
    assert counts is not None
    rng = np.random.default_rng(len(name))
    of_query, of_document = WORDS[name]
    corpus = Corpus(
        tuple(f"d{row}" for row in range(counts.documents)),
        ("",) * counts.documents,
        texts(words, counts.documents, of_document, rng),
    )
    queries = Queries(tuple(f"q{row}" for row in range(counts.queries)), texts(words, counts.queries, of_query, rng))
    judged, first = {}, 0
    for split, (asking, judgments) in counts.splits.items():
        rows = np.arange(first, first + asking)
        positives = round(RELEVANT[name] * asking) if name in RELEVANT else judgments
        documents = rng.choice(counts.documents, positives, replace=positives > counts.documents)
        asked = np.resize(rows, positives)
        judged[split] = Qrels.of(
            [(int(q), int(d), 1) for q, d in dict.fromkeys(zip(asked.tolist(), documents.tolist(), strict=True))]
        )
        first += asking
    write_beir(Dataset(name, corpus, queries, judged), folder / name)


def model_like_e5(folder: Path) -> str:
    """Random weights in E5-base's shape with the vocabulary that both share."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    BertModel(BertConfig()).save_pretrained(folder / "bert")  # BertConfig's defaults are E5-base's sizes
    tokenizer = AutoTokenizer.from_pretrained(model_folder(), model_max_length=512)
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=512)
    model = SentenceTransformer(modules=[transformer, Pooling(768), Normalize()], device="cpu")
    model.save(str(folder / "e5-base-v2"), create_model_card=False)
    return str(folder / "e5-base-v2")


def main() -> None:
    """Print the estimate for each card."""
    from ranksaga.config.load import load_recipe
    from ranksaga.config.recipe import Recipe
    from ranksaga.estimate.estimate import estimate
    from ranksaga.run.console import Terminal

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="append", help="a card, repeatable; none: A10G")
    options = parser.parse_args()
    recipe = load_recipe(RECIPE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = words_of("scifact")
        for one in WORDS:
            stand_in(one, words, folder)

        def place(one: str) -> str:
            return str(data_folder(one) if one in REAL else folder / one)

        changes: dict[str, Any] = {
            "model": model_like_e5(folder),
            "datasets": [place(one) for one in recipe.datasets],
            "guards": [place(one) for one in recipe.guards],
            "precision": "bf16",
            "query_prompt": "query: ",
            "document_prompt": "passage: ",
        }
        whole = Recipe.model_validate({**recipe.model_dump(), **changes})
        print("STAND-INS: only scifact and nfcorpus are real; the model has random weights.\n")
        for gpu in options.gpu or ["A10G"]:
            found = estimate(whole, Terminal(), gpu=gpu)
            print(found.text())
            first = [line for line in found.lines if not line.work.startswith("best")]
            hours = [sum(getattr(line.seconds, end) for line in first) / 3600 for end in ("low", "high")]
            usd = [hour * (found.price or 0.0) for hour in hours]
            print(f"without best: {hours[0]:.1f} - {hours[1]:.1f} h, ${usd[0]:.2f} - {usd[1]:.2f}\n")


if __name__ == "__main__":
    main()
