from __future__ import annotations

from collections import Counter
from time import process_time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.config.training import Labelled
from ranksaga.errors import StageError
from ranksaga.train.batches import Batch, Batches
from ranksaga.train.pairs import TrainingPairs


def of_pairs(name: str, rows: list[tuple[int, int]], queries: int = 0, documents: int = 0) -> TrainingPairs:
    """Texts say where they are from: ``name/q3`` and ``name/d7``."""
    pairs = np.array(sorted(rows), dtype=np.int32)
    queries, documents = queries or int(pairs[:, 0].max()) + 1, documents or int(pairs[:, 1].max()) + 1
    return TrainingPairs(
        name,
        tuple(f"{name}/q{row}" for row in range(queries)),
        tuple(f"{name}/d{row}" for row in range(documents)),
        pairs,
        pairs,
    )


def own(name: str, count: int) -> TrainingPairs:
    return of_pairs(name, [(row, row) for row in range(count)])


def tangled(seed: int = 0, queries: int = 60, each: int = 10, documents: int = 150) -> TrainingPairs:
    """Every query has many positives, shared with others."""
    rng = np.random.default_rng(seed)
    return of_pairs("t", [(q, int(d)) for q in range(queries) for d in rng.choice(documents, each, replace=False)])


def epoch_of(batches: Batches, epoch: int = 0) -> list[Batch]:
    return [batches.get(epoch, position) for position in range(batches.per_epoch)]


def seen(epoch: list[Batch]) -> Counter[tuple[str, str]]:
    """(query, document) of every positive."""
    return Counter(
        (batch.queries[row], batch.documents[column])
        for batch in epoch
        for row, column in zip(*np.nonzero(batch.target), strict=True)
    )


def make(sources: list[TrainingPairs], seed: int = 0, **changes: Any) -> Batches:
    return Batches(sources, Labelled(**{"batch_size": 8, **changes}), seed)


@pytest.mark.parametrize("batches", ["per_dataset", "mixed"])
def test_an_epoch_sees_every_pair_once(batches: str) -> None:
    sources: list[TrainingPairs] = [own("a", 21), own("b", 40), tangled()]
    made = make(sources, batches=batches)
    epoch = epoch_of(made)
    assert set(seen(epoch).values()) == {1}
    assert len(seen(epoch)) == 21 + 40 + 600
    assert made.per_epoch == (3 + 5 + 75 if batches == "per_dataset" else 83)
    assert max(len(batch.queries) for batch in epoch) == 8
    kinds = {len(batch.sources) for batch in epoch}
    assert kinds == {1} if batches == "per_dataset" else max(kinds) > 1
    # 21 pairs in three batches are 7 + 7 + 7, not 8 + 8 + 5.
    if batches == "per_dataset":
        assert [len(batch.queries) for batch in epoch if batch.sources == ("a",)] == [7, 7, 7]


def test_the_plan_depends_on_seed_and_epoch_only() -> None:
    sources: list[TrainingPairs] = [own("a", 30), tangled()]
    first = make(sources, positives_per_query=3)
    forward = [[batch.queries for batch in epoch_of(first, epoch)] for epoch in (0, 1)]
    again = make(sources, positives_per_query=3)
    assert again.get(1, 5).queries == forward[1][5]
    assert again.get(0, 2).queries == forward[0][2]
    assert forward[0] != forward[1]
    assert [b.queries for b in epoch_of(make(sources, seed=1, positives_per_query=3))] != forward[0]


def test_datasets_are_interleaved_by_temperature() -> None:
    sources: list[TrainingPairs] = [own("big", 800), own("small", 8)]
    for temperature, expected in ((1.0, {"big": 100, "small": 1}), (0.5, {"big": 92, "small": 9})):
        epoch = epoch_of(make(sources, dataset_temperature=temperature))
        assert Counter(batch.sources[0] for batch in epoch) == expected
    epoch = epoch_of(make(sources, dataset_temperature=0.0))
    counts = Counter(batch.sources[0] for batch in epoch)
    assert counts.total() == 101
    assert abs(counts["big"] - counts["small"]) <= 1
    half = Counter(batch.sources[0] for batch in epoch[:50])
    assert half["big"] > 15
    assert half["small"] > 15
    # The small one goes round: every one of its pairs is seen about as often.
    rounds = [times for (query, _), times in seen(epoch).items() if query.startswith("small")]
    assert len(rounds) == 8
    assert max(rounds) - min(rounds) == 0


def test_mixed_follows_the_temperature_too() -> None:
    epoch = epoch_of(make([own("big", 800), own("small", 8)], batches="mixed", dataset_temperature=0.0))
    counts = Counter(query.split("/")[0] for batch in epoch for query in batch.queries)
    assert counts == {"big": 404, "small": 404}


def test_positives_per_query_are_drawn_anew_each_epoch() -> None:
    made = make([tangled()], positives_per_query=2)
    assert made.per_epoch == 15
    positives = [set(seen(epoch_of(made, epoch))) for epoch in range(5)]
    for epoch in positives:
        assert set(Counter(query for query, _ in epoch).values()) == {2}
    assert positives[0] != positives[1]
    # 600 pairs, 5 draws of 2 from 10: 1 - 0.8^5 = 67% of them come up.
    assert 0.6 < len(set.union(*positives)) / 600 < 0.75


def judged(batch: Batch, source: TrainingPairs) -> NDArray[np.bool_]:
    """Which documents of the batch are relevant to which query, straight from the pairs."""
    relevant = {(source.queries[q], source.documents[d]) for q, d in source.pairs.tolist()}
    return np.array([[(query, document) in relevant for document in batch.documents] for query in batch.queries])


def test_no_document_is_a_negative_of_a_query_it_answers() -> None:
    source = tangled()
    avoided = 0
    for batch in epoch_of(make([source])):
        relevant = judged(batch, source)
        assert len(set(batch.documents)) == len(batch.documents)
        np.testing.assert_array_equal(batch.ignore, relevant & (batch.target == 0))
        avoided += not batch.ignore.any()
    plain = epoch_of(make([source], mask_false_negatives=False))
    by_chance = sum(bool((judged(batch, source) & (batch.target == 0)).any()) for batch in plain)
    assert by_chance > 70  # of 75
    assert avoided > 60
    assert not any(batch.ignore.any() for batch in plain)


def test_what_cannot_be_avoided_is_masked() -> None:
    # One document answers everything: all queries share one column.
    source = of_pairs("one", [(query, 0) for query in range(4)])
    [batch] = epoch_of(make([source]))
    assert batch.documents == ("one/d0",)
    assert batch.target.tolist() == [[1.0]] * 4
    # One query with all documents: its other positives are no negatives.
    [batch] = epoch_of(make([of_pairs("two", [(0, document) for document in range(3)])]))
    assert (batch.ignore == (batch.target == 0)).all()


def test_the_first_studys_batches_keep_copies_as_negatives() -> None:
    source = of_pairs("one", [(query, 0) for query in range(3)])
    [batch] = epoch_of(make([source], mask_false_negatives=False, batches="mixed"))
    assert batch.documents == ("one/d0",) * 3
    assert batch.target.tolist() == np.eye(3).tolist()
    assert not batch.ignore.any()


def test_hard_negatives_stand_in_the_batch_and_are_masked_where_they_answer() -> None:
    source = of_pairs("h", [(0, 0), (1, 1)], documents=4).with_negatives(np.array([[1, 2], [3, 3]])[:, :1])
    [batch] = epoch_of(make([source], hard_negatives=1))
    row = batch.queries.index("h/q0")
    assert set(batch.documents) == {"h/d0", "h/d1", "h/d3"}
    assert batch.target.sum() == 2
    assert not batch.ignore.any()
    # d1 is q0's mined negative and q1's positive: one column, both at once.
    column = batch.documents.index("h/d1")
    assert batch.target[row, column] == 0
    assert batch.target[1 - row, column] == 1
    # A mined document that answers the other query is masked there.
    source = of_pairs("h", [(0, 0), (1, 1), (1, 2)], documents=4).with_negatives(np.array([[2], [3], [3]]))
    epoch = epoch_of(make([source], hard_negatives=1, positives_per_query=1))
    [batch] = epoch
    other = batch.queries.index("h/q1")
    column = batch.documents.index("h/d2")
    assert batch.ignore[other, column] == (batch.target[other, column] == 0)
    assert not batch.ignore[1 - other, column]


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(StageError, match="no source"):
        make([])
    rows = np.empty((0, 2), dtype=np.int32)
    with pytest.raises(StageError, match=r"nothing to train on \(void\)"):
        make([TrainingPairs("void", (), (), rows, rows)])


def test_an_epoch_of_nfcorpus_size_is_planned_quickly() -> None:
    rng = np.random.default_rng(0)
    rows = np.unique(np.stack([rng.integers(0, 2590, 112000), rng.integers(0, 3633, 112000)], axis=1), axis=0)
    source = of_pairs("nf", [(int(q), int(d)) for q, d in rows])
    made = make([source], batch_size=32)
    assert source.known  # not part of the planning
    start = process_time()  # of this process: others may be at work beside it
    made.get(0, 0)
    assert process_time() - start < 5.0  # 0.6 s on a free core
