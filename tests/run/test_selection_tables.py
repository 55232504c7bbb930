"""What selection chooses among candidates, and what it says of it, with every figure by hand.

An encoder of the tests has one number for weights. It places a query between a wrong document (0) and the right one
(1), so that nDCG@10 is 1 / log2(3) = 0.631 up to a half and 1 above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.config.training import Distilled, Documents, Labelled, Training
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.encode.hashed import HashEncoder
from ranksaga.errors import StageError
from ranksaga.retrieve.rankings import Rankings
from ranksaga.run.console import Silent
from ranksaga.run.selection import Candidate, DevScorer, DevSet, choose, dev_set, qualifies, relative
from ranksaga.run.stages import select as stage
from ranksaga.run.stages.select import Choice, chosen_encoder, read_choice, select
from ranksaga.run.store import Entry, Store

SECOND = 1 / np.log2(3)  # nDCG of a query whose one relevant document comes second


def candidate(epoch: int, scores: Mapping[str, float], error: float = 0.0) -> Candidate:
    return Candidate(epoch, 1.0, None, scores, dict.fromkeys(scores, error))


# Scores of the candidates with epochs 1, 2, ... on trained datasets a and b and a guard, against 0.5, 0.25 and 0.5.
@pytest.mark.parametrize(
    ("scores", "error", "tolerance", "errors", "expected"),
    [
        ([(0.6, 0.25, 0.5)], 0.0, 0.0, 0.0, 1),
        ([(0.5, 0.25, 0.5)], 0.0, 0.0, 0.0, None),  # no gain
        ([(0.5, 0.25, 0.9)], 0.0, 0.0, 0.0, None),  # what a guard gains is none
        ([(0.6, 0.25, 0.5), (0.6, 0.25, 0.5)], 0.0, 0.0, 0.0, 1),  # of equals the first
        ([(0.6, 0.25, 0.5), (0.5, 0.3, 0.5)], 0.0, 0.0, 0.0, 1),  # +20% of either: equals
        ([(0.6, 0.25, 0.5), (0.5, 0.375, 0.5)], 0.0, 0.0, 0.0, 2),  # relative: +50% of the smaller one
        ([(0.75, 0.25, 0.46875)], 0.0, 0.0, 0.0, None),  # the guard loses 6.25%
        ([(0.75, 0.25, 0.46875)], 0.0, 0.0625, 0.0, 1),  # which the tolerance just covers
        ([(0.75, 0.25, 0.46875)], 0.0, 0.06, 0.0, None),
        ([(0.75, 0.25, 0.46875)], 0.03125, 0.0, 1.0, 1),  # which one standard error just covers
        ([(0.75, 0.25, 0.46875)], 0.031, 0.0, 1.0, None),
        ([(0.75, 0.25, 0.46875)], 0.015625, 0.0, 2.0, 1),  # or two of half the size
        ([(0.75, 0.1875, 0.5)], 0.0, 0.2, 0.0, None),  # a trained dataset must not lose 25% either
        ([(0.9, 0.25, 0.4), (0.55, 0.25, 0.5)], 0.0, 0.0, 0.0, 2),  # the best of those that lose nowhere
        ([(0.4, 0.3, 0.5)], 1.0, 0.0, 1.0, None),  # no loss counts here, and yet nothing is gained: -20% and +20%
        ([], 0.0, 0.0, 0.0, None),
    ],
)
def test_the_choice_among_candidates(
    scores: Sequence[tuple[float, float, float]],
    error: float,
    tolerance: float,
    errors: float,
    expected: int | None,
) -> None:
    base = {"a": 0.5, "b": 0.25, "guard": 0.5}
    roles = {"a": "trained", "b": "trained", "guard": "guard"}
    candidates = [
        candidate(place + 1, dict(zip(base, values, strict=True)), error) for place, values in enumerate(scores)
    ]
    best = choose(base, candidates, roles, tolerance, errors)
    assert (None if best is None else best.epoch) == expected


@pytest.mark.parametrize(
    ("base", "score", "expected"), [(0.5, 0.6, 0.2), (0.5, 0.25, -0.5), (0.0, 0.3, 1.0), (0.0, 0.0, 0.0)]
)
def test_changes_are_relative_and_of_a_base_of_nothing_any_score_is_a_gain(
    base: float, score: float, expected: float
) -> None:
    assert relative(base, score) == pytest.approx(expected)


def test_each_dataset_has_a_standard_error_of_its_own() -> None:
    base = {"a": 0.5, "b": 0.5}
    one = replace(candidate(1, {"a": 0.4, "b": 0.4}), errors={"a": 0.1, "b": 0.05})
    assert not qualifies(base, one, 0.0, 1.0)
    assert qualifies(base, one, 0.1, 1.0)
    assert qualifies(base, one, 0.0, 2.0)


def ranked(documents: Sequence[Sequence[int]]) -> Rankings:
    found = np.array(documents, dtype=np.int32)
    return Rankings(np.arange(len(found), dtype=np.int32), found, np.zeros(found.shape, dtype=np.float32))


def many(documents: int = 10, queries: int = 5) -> Dataset:
    names = [tuple(f"{kind}{row}" for row in range(count)) for kind, count in (("d", documents), ("q", queries))]
    return Dataset("many", Corpus(names[0], names[0], names[0]), Queries(names[1], names[1]), {})


def test_dev_queries_are_ranked_against_what_two_rankings_have_on_top_and_what_is_judged() -> None:
    dev = Qrels.of([(1, 9, 2), (3, 0, 1)])
    rankings = [ranked([[5] * 3, [2, 3, 4], [5] * 3, [3, 6, 7], [5] * 3]), ranked([[5], [8], [5], [-1], [5]])]
    made = dev_set("many", "guard", many(), dev, rankings, queries=None, depth=2)
    assert made is not None
    assert (made.name, made.role) == ("many", "guard")
    # q1's 2, 3 and 8, q3's 3 and 6 (and nothing of BM25), and the judged 0 and 9.
    assert made.dataset.corpus.ids == ("d0", "d2", "d3", "d6", "d8", "d9")
    kept = made.dataset.qrels["dev"]
    assert [*zip(kept.queries.tolist(), kept.documents.tolist(), kept.scores.tolist(), strict=True)] == [
        (1, 5, 2), (3, 0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("most", "expected"), [(None, [0, 1, 2, 3, 4]), (5, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (2, [0, 4]), (1, [0])]
)
def test_of_many_dev_queries_some_are_taken_spread_over_them(most: int | None, expected: list[int]) -> None:
    dev = Qrels.of([(row, row, 1) for row in range(5)])
    made = dev_set("many", "trained", many(), dev, [], queries=most, depth=None)
    assert made is not None
    assert made.dataset.qrels["dev"].query_rows.tolist() == expected
    assert len(made.dataset.corpus) == 10
    assert dev_set("many", "trained", many(), Qrels.of([]), [], queries=most, depth=None) is None


def test_documents_that_stay_are_encoded_once() -> None:
    class Counting(HashEncoder):
        encoded = 0

        def encode_documents(
            self, texts: Sequence[str], progress: Callable[[int], None] | None = None
        ) -> NDArray[np.float32]:
            type(self).encoded += len(texts)
            return super().encode_documents(texts, progress)

        def encode_queries(
            self, texts: Sequence[str], progress: Callable[[int], None] | None = None
        ) -> NDArray[np.float32]:
            return HashEncoder(64).encode_documents(texts, progress)

    texts = ("boundary layers", "heat", "heat of lists")
    judged = Qrels.of([(0, 0, 1), (1, 2, 1)])
    one = Dataset("one", Corpus(("a", "b", "c"), ("",) * 3, texts), Queries(("q", "r"), texts[:2]), {"dev": judged})
    score = DevScorer([DevSet("one", "trained", one)])
    base: Any = Counting(64)
    for _ in range(3):
        # "heat" finds itself first and then the relevant one.
        assert score(base)["one"].tolist() == [1.0, pytest.approx(SECOND)]
    assert Counting.encoded == 3
    other: Any = Counting(64, trigrams=False)
    score(other)
    score(base)
    assert Counting.encoded == 6  # the base model's stay known


class Between:
    """An encoder whose one weight says how near queries are to the right document, by what the query is named."""

    spec = SimpleNamespace(identity="between")

    def __init__(self, queries: float, documents: float | None = None) -> None:
        self.queries, self.documents = queries, documents
        self.document_identity = f"documents {documents}"

    def with_model(self, model: Any) -> Between:
        return Between(*(float(tensor) for tensor in model.state.values()))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The query "gains" comes nearer with the weight; "loses" goes away from 0.9 on."""
        right = {"gains": self.queries, "loses": 1.0 if self.queries < 0.9 else 0.0, "stays": 1.0}
        shares = np.array([right[text] for text in texts], dtype=np.float32)
        return np.stack([shares, 1 - shares], axis=1)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The right one and the wrong one; with a weight of their own above 0.8 they change places."""
        vectors = np.eye(2, dtype=np.float32)
        return vectors[::-1].copy() if self.documents is not None and self.documents > 0.8 else vectors


def set_of(name: str, role: str, *queries: str) -> DevSet:
    corpus = Corpus(("right", "wrong"), ("", ""), ("right", "wrong"))
    ids = tuple(f"{name}-{place}" for place in range(len(queries)))
    judged = Qrels.of([(row, 0, 1) for row in range(len(queries))])
    return DevSet(name, role, Dataset(name, corpus, Queries(ids, queries), {"dev": judged}))


class Model:
    """Holds what it was given."""

    device = "cpu"

    def __init__(self) -> None:
        self.state: Mapping[str, Any] = {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state)


def names_of(settings: Training) -> list[str]:
    return ["w"] if settings.then_documents is None else ["0.sub_modules.query.0.w", "0.sub_modules.document.0.w"]


@pytest.fixture(autouse=True)
def _models_of_one_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(stage, "copy_of_base", lambda *_: Model())
    monkeypatch.setattr(stage, "base_state", lambda _, settings: {name: torch.zeros(1) for name in names_of(settings)})


def selected(
    folder: Path, settings: Training, sets: Sequence[DevSet], epochs: Sequence[float] = (1.0,)
) -> tuple[Any, Entry]:
    """The selection stage among trainings that end with these weights, from a base model of weight 0."""
    import torch

    names = names_of(settings)
    context: Any = SimpleNamespace(
        encoder=Between(0.0),
        store=Store(folder),
        console=Silent(),
        recipe=SimpleNamespace(systems={"system": settings}),
    )
    trained: Any = SimpleNamespace(
        epochs=len(epochs),
        weights=lambda epoch: {name: torch.tensor([epochs[epoch - 1]]) for name in names},
        entries=lambda _: {},
    )
    job: Any = SimpleNamespace(settings=settings, system="system", view="shipped")
    return context, select(context, job, trained, sets)


WEIGHTS = Labelled(merge_weights=(0.25, 0.75, 1.0))
GAINS, GUARD = set_of("gains", "trained", "gains", "stays"), set_of("guard", "guard", "loses", "stays")


def test_the_weight_that_gains_and_loses_nowhere_is_chosen_and_kept(tmp_path: Path) -> None:
    context, entry = selected(tmp_path, WEIGHTS, [GAINS, GUARD])
    choice = read_choice(entry)
    assert (choice.epoch, choice.weight, choice.document_weight) == (1, 0.75, None)
    assert choice.reason == "largest mean gain on dev that loses nowhere by more than its standard error × 1"
    assert choice.base == {"gains": pytest.approx((SECOND + 1) / 2), "guard": 1.0}
    scores = [(one.weight, one.scores["gains"], one.scores["guard"]) for one in choice.candidates]
    low = pytest.approx((SECOND + 1) / 2)
    assert scores == [(0.25, low, 1.0), (0.75, 1.0, 1.0), (1.0, 1.0, low)]
    shipped: Any = chosen_encoder(context, "system", entry)
    assert shipped.queries == 0.75
    assert entry.summary["weight"] == 0.75


def test_a_loss_within_its_standard_error_is_chance_where_more_is_gained(tmp_path: Path) -> None:
    # Of two guard queries one loses 1 - SECOND: the mean loss is its own standard error, so weight 1 qualifies; of
    # equal gains the first is taken all the same.
    guard = set_of("guard", "guard", "loses", "stays")
    settings = Labelled(merge_weights=(0.25, 1.0))
    assert read_choice(selected(tmp_path / "one", settings, [GAINS, guard])[1]).weight == 1.0
    strict = settings.model_copy(update={"standard_errors": 0.0})
    choice = read_choice(selected(tmp_path / "strict", strict, [GAINS, guard])[1])
    assert choice.weight == 0.0
    tolerant = strict.model_copy(update={"tolerance": 0.19})
    assert read_choice(selected(tmp_path / "tolerant", tolerant, [GAINS, guard])[1]).weight == 1.0


def test_where_none_qualifies_the_base_model_stays_and_the_gentlest_loss_is_named(tmp_path: Path) -> None:
    sets = [GAINS, set_of("guard", "guard", "loses", "loses")]
    context, entry = selected(tmp_path, Labelled(merge_weights=(0.95, 1.0)), sets)
    choice = read_choice(entry)
    assert (choice.epoch, choice.weight) == (0, 0.0)
    assert choice.reason == (
        "no candidate gains without losing somewhere (the gentlest changes guard by -36.9%): base kept"
    )
    assert len(choice.candidates) == 2
    assert chosen_encoder(context, "system", entry) is context.encoder
    assert not list(entry.folder.glob("*.safetensors"))


def test_the_best_epoch_is_taken_and_of_equal_ones_the_first(tmp_path: Path) -> None:
    choice = read_choice(selected(tmp_path, Labelled(merge_weights=(0.8,)), [GAINS], (0.5, 0.7, 0.9))[1])
    assert [(one.epoch, one.scores["gains"]) for one in choice.candidates] == [
        (1, pytest.approx((SECOND + 1) / 2)), (2, 1.0), (3, 1.0)
    ]  # fmt: skip
    assert choice.epoch == 2


def test_documents_have_a_weight_of_their_own(tmp_path: Path) -> None:
    settings = Distilled(towers="query", merge_weights=(0.25, 0.75), documents=Documents(weights=(0.0, 0.75, 1.0)))
    choice = read_choice(selected(tmp_path, settings, [set_of("gains", "trained", "gains")])[1])
    found = {(one.weight, one.document_weight): round(one.scores["gains"], 3) for one in choice.candidates}
    assert found == {
        (0.25, 0.0): 0.631, (0.75, 0.0): 1.0,
        (0.25, 0.75): 0.631, (0.75, 0.75): 1.0,
        (0.25, 1.0): 1.0, (0.75, 1.0): 0.631,  # documents that changed places turn a ranking round
    }  # fmt: skip
    assert (choice.weight, choice.document_weight) == (0.75, 0.0)


@pytest.mark.parametrize(
    ("settings", "sets", "expected"),
    [
        (WEIGHTS, [], (0, 0.0, "no dataset has dev queries to choose by (add a dev split): base kept")),
        (WEIGHTS, [GUARD], (0, 0.0, "no dataset has dev queries to choose by (add a dev split): base kept")),
        # With the whole step as the only weight no dev score is asked, so nothing is refused.
        (Labelled(merge_weights=(1.0,)), [GUARD], (2, 1.0, "last epoch, as the settings say")),
    ],
    ids=["no dev", "guards alone", "one weight"],
)
def test_where_there_is_nothing_to_choose_by(
    settings: Training, sets: Sequence[DevSet], expected: tuple[int, float, str], tmp_path: Path
) -> None:
    choice = read_choice(selected(tmp_path, settings, sets, (0.5, 1.0))[1])
    assert (choice.epoch, choice.weight, choice.reason) == expected
    assert choice == Choice(expected[0], expected[1], None, expected[2], {}, ())


def test_a_damaged_choice_is_one_line(tmp_path: Path) -> None:
    _, entry = selected(tmp_path, WEIGHTS, [GAINS])
    (entry.folder / "choice.json").write_text('{"epoch": 1}', encoding="utf-8")
    with pytest.raises(StageError, match=r"choice\.json: cannot be read .* do that stage again with --from select"):
        read_choice(entry)
