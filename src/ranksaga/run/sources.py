"""What a training learns from: labelled pairs with mined negatives, or a teacher, of one dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.training import Distillation, Labelled, Training
from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.encode.encoder import Encoder
from ranksaga.evaluate.benchmark import Vectors
from ranksaga.retrieve import blend
from ranksaga.run.stages.baseline import bm25_constants
from ranksaga.train import pseudo_queries as pseudo
from ranksaga.train import teacher

if TYPE_CHECKING:
    from ranksaga.train.pairs import TrainingPairs
    from ranksaga.train.teacher import Passages, Teacher

__all__ = ["bank_of", "labelled_source", "source_constants", "teacher_source"]

BANK = 50_000  # documents that a teacher ranks at every step
NEGATIVES, NEGATIVES_DEPTH = 16, 256  # mined for a pair at most, and how deep they are looked for
MARGIN = 0.95  # a mined negative scores at most this share of its positive's score
PSEUDO = 11  # stream of random draws


def source_constants(settings: Training) -> dict[str, Any]:
    """The constants that decide what a training with these settings learns from."""
    if isinstance(settings, Labelled):
        mines = {
            "NEGATIVES": NEGATIVES,
            "NEGATIVES_DEPTH": NEGATIVES_DEPTH,
            "MARGIN": MARGIN,
        }
        return mines if settings.hard_negatives else {}
    return {
        "BANK": BANK,
        "PSEUDO_WORDS": pseudo.WORDS,
        "PSEUDO_WINDOW": pseudo.WINDOW,
        "PSEUDO_WINDOWED": pseudo.WINDOWED,
        "PSEUDO_SENTENCES": pseudo.SENTENCES,
        "SHARPNESS": teacher.SHARPNESS,
        "UNCHOSEN": dict(teacher.UNCHOSEN),
        "CHOICES": dict(teacher.CHOICES),
        "LEAST_GAIN": dict(teacher.LEAST_GAIN),
        "CHOOSING_QUERIES": teacher.CHOOSING_QUERIES,
        "FEEDBACK_DOCUMENTS": blend.FEEDBACK_DOCUMENTS,
        "NEIGHBOURS": blend.NEIGHBOURS,
        "SAMPLE": blend.SAMPLE,
        "BM25": bm25_constants(),
    }


def labelled_source(dataset: Dataset, judgments: Qrels, settings: Labelled, vectors: Vectors) -> TrainingPairs:
    """A dataset's labelled pairs, with hard negatives mined by the base model where the settings ask."""
    from ranksaga.train.negatives import mine_negatives, with_given_negatives
    from ranksaga.train.pairs import labelled_pairs

    pairs = labelled_pairs(dataset, judgments, titles=settings.titles)
    if not settings.hard_negatives:
        return pairs
    # By query row: queries that are judged nowhere stay 0 and are in no pair.
    queries = np.zeros((len(dataset.queries), vectors.queries.shape[1]), dtype=np.float32)
    queries[vectors.query_rows] = vectors.queries
    mined = mine_negatives(pairs, queries, vectors.documents, margin=MARGIN, pool=NEGATIVES, depth=NEGATIVES_DEPTH)
    return with_given_negatives(mined, judgments, settings.hard_negatives)


def teacher_source(
    dataset: Dataset, judgments: Qrels, options: Distillation, vectors: Vectors, base: Encoder, seed: int
) -> Teacher:
    """The base model and its corrections over a dataset, how much of each chosen on the queries that train."""
    from ranksaga.retrieve.lexical import LexicalIndex

    rng = np.random.default_rng([seed, PSEUDO, int(dataset.fingerprint[:8], 16)])
    part, documents = bank_of(dataset, judgments, rng)
    train = part.qrels["train"]
    taken = pseudo.pseudo_queries(part.corpus, options.pseudo_queries, rng)
    source = teacher.Teacher(
        part,
        LexicalIndex.of(part),
        teacher.Mix(**teacher.UNCHOSEN),
        np.array(vectors.documents[documents]),  # a copy: torch wants memory that it may write
        tuple(taken),
        base.encode_queries([query.text for query in taken]),
        train,
        vectors.of_queries(train.query_rows),
    )

    def read_passages() -> Passages:
        texts, rows = teacher.passages_of(part.corpus)
        return teacher.Passages(base.encode_documents(texts), rows)

    return teacher.choose_mix(source, read_passages) if len(train) else source


def bank_of(dataset: Dataset, train: Qrels, rng: np.random.Generator) -> tuple[Dataset, NDArray[np.int64]]:
    """A dataset as a teacher sees it, its judgments those that train, and the corpus rows of its documents.

    A step looks at every document of the bank, so of a large corpus only a part is drawn, besides what is judged.
    """
    rows = np.arange(len(dataset.corpus), dtype=np.int64)
    if len(rows) > BANK:
        rows = np.union1d(train.documents, rng.choice(len(rows), BANK, replace=False)).astype(np.int64)
    return dataset.cut("train", train, rows), rows
