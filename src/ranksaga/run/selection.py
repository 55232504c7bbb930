"""The rule of selection: which epoch and which weight against the base model, by dev queries only.

Weights are interpolated between the base and the fine-tuned model (WiSE-FT, Wortsman et al. 2022;
LM-Cocktail, Xiao et al. 2023). The candidate that gains most on average over the trained datasets
is taken among those that lose nowhere, guards included, more than a tolerance. A loss counts where it
is larger than what chance gives: a few dozen dev queries would otherwise refuse candidates by the toss
of a coin. Where candidates change documents, dev queries are ranked against those that can matter: what
the base model and BM25 rank high, and what is judged. No query that scores a model plays a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.training import Training
from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.encode.encoder import Encoder
from ranksaga.evaluate.benchmark import Vectors, rank
from ranksaga.evaluate.metrics import evaluate
from ranksaga.retrieve.rankings import Rankings

__all__ = [
    "Candidate",
    "DevScorer",
    "DevSet",
    "choose",
    "dev_set",
    "dev_size",
    "qualifies",
    "relative",
    "with_scores",
]

METRIC = "ndcg_at_10"
# Selection looks at this many dev queries a dataset, and this deep into the rankings of the base model and of BM25:
# where every candidate reads documents anew, where a few do, and where documents stay.
DEV_CUT: Mapping[str, tuple[int | None, int | None]] = {"all": (100, 20), "some": (500, 100), "none": (None, None)}


def dev_size(settings: Training) -> tuple[int | None, int | None]:
    """Most dev queries of a dataset, and how deep into their rankings; none: all."""
    return DEV_CUT["all" if settings.trains != "query" else "none" if settings.then_documents is None else "some"]


@dataclass(frozen=True)
class DevSet:
    """A dataset cut down to its dev queries and the documents that can matter for them."""

    name: str
    role: str
    dataset: Dataset


@dataclass(frozen=True)
class Candidate:
    """An epoch and the weights of the fine-tuned model, with what dev queries say of it.

    Attributes:
        epoch: 1, 2, ...
        weight: of the fine-tuned model against the base.
        document_weight: of the documents' tower; none where it has no weight of its own.
        scores: nDCG@10 by dataset.
        errors: standard error of the mean difference to the base model, paired by query, by dataset.
    """

    epoch: int
    weight: float
    document_weight: float | None
    scores: Mapping[str, float]
    errors: Mapping[str, float]


def dev_set(
    name: str,
    role: str,
    dataset: Dataset,
    dev: Qrels,
    rankings: Sequence[Rankings],
    *,
    queries: int | None,
    depth: int | None,
) -> DevSet | None:
    """Cut a dataset down for selection; ``None`` where it has no dev queries.

    Args:
        name: of the dataset in the recipe.
        role: trained or guard.
        dataset: the whole dataset.
        dev: judgments that select.
        rankings: of the dev queries at least, by the base model and by BM25.
        queries: most dev queries used, spread over them; none: all.
        depth: top documents taken of each ranking; none: the whole corpus.
    """
    rows = dev.query_rows
    if len(rows) == 0:
        return None
    if queries is not None and len(rows) > queries:
        rows = rows[np.linspace(0, len(rows) - 1, queries).round().astype(np.int64)]
    dev = dev.only_queries(rows)
    if depth is None:
        return DevSet(name, role, Dataset(dataset.name, dataset.corpus, dataset.queries, {"dev": dev}))
    taken = [dev.documents]
    for ranking in rankings:
        places = np.searchsorted(ranking.queries, rows)
        taken.append(ranking.documents[places, :depth].ravel())
    documents = np.unique(np.concatenate(taken))
    documents = documents[documents >= 0]
    return DevSet(name, role, dataset.cut("dev", dev, documents))


class DevScorer:
    """Scores encoders on dev sets; documents that a candidate leaves as they were are encoded once."""

    def __init__(self, sets: Sequence[DevSet]) -> None:
        self._sets = sets
        self._documents: dict[str, dict[str, NDArray[np.float32]]] = {}

    def __call__(self, encoder: Encoder) -> dict[str, NDArray[np.float64]]:
        """nDCG@10 of each dev query, by dataset."""
        if encoder.document_identity not in self._documents:
            # One candidate's documents at a time, and the base model's, which most candidates share.
            for other in list(self._documents)[1:]:
                del self._documents[other]
            self._documents[encoder.document_identity] = {
                dev.name: encoder.encode_documents(dev.dataset.corpus.documents) for dev in self._sets
            }
        documents = self._documents[encoder.document_identity]
        return {dev.name: _score(encoder, dev, documents[dev.name]) for dev in self._sets}


def _score(encoder: Encoder, dev: DevSet, documents: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = dev.dataset.qrels["dev"].query_rows
    queries = encoder.encode_queries([dev.dataset.queries.texts[row] for row in rows])
    rankings = rank(dev.dataset, Vectors(documents, queries, rows), rows, 10)
    return evaluate(rankings, dev.dataset, "dev", system="candidate").values[METRIC]


def with_scores(
    candidate: Candidate, base: Mapping[str, NDArray[np.float64]], scores: Mapping[str, NDArray[np.float64]]
) -> Candidate:
    """A candidate with its scores and their errors, from the values of each dev query."""
    errors = {}
    for name, values in scores.items():
        differences = values - base[name]
        errors[name] = float(differences.std(ddof=1) / len(differences) ** 0.5) if len(differences) > 1 else 0.0
    return replace(candidate, scores={name: float(values.mean()) for name, values in scores.items()}, errors=errors)


def qualifies(base: Mapping[str, float], candidate: Candidate, tolerance: float, standard_errors: float) -> bool:
    """Whether a candidate loses nowhere: no loss exceeds the tolerance by more than so many standard errors."""
    return all(
        relative(base[name], score + standard_errors * candidate.errors[name]) >= -tolerance
        for name, score in candidate.scores.items()
    )


def choose(
    base: Mapping[str, float],
    candidates: Sequence[Candidate],
    roles: Mapping[str, str],
    tolerance: float,
    standard_errors: float,
) -> Candidate | None:
    """The candidate with the largest mean relative gain that loses nowhere.

    ``None``: no candidate gains on average under that constraint, so the base model stays.

    Args:
        base: nDCG@10 of the base model on dev, by dataset.
        candidates: to choose from.
        roles: trained or guard, by dataset.
        tolerance: relative loss that counts as none.
        standard_errors: a loss counts where it exceeds the tolerance by more than so many of its standard errors.
    """
    best, most = None, 0.0
    for candidate in candidates:
        gains = [relative(base[name], score) for name, score in candidate.scores.items() if roles[name] == "trained"]
        gain = float(np.mean(gains)) if gains else 0.0
        if gain > most and qualifies(base, candidate, tolerance, standard_errors):
            best, most = candidate, gain
    return best


def relative(base: float, score: float) -> float:
    """Relative change; a base of 0 counts any score as no loss."""
    return (score - base) / base if base > 0 else float(score > 0)
