"""No scored query, and no near-copy of one, trains or selects for the model that scores it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.data.splits import NearCopies, find_near_copies, split_guard, split_trained
from ranksaga.errors import DataError


def dataset(**splits: list[int]) -> Dataset:
    """A dataset whose query rows are judged in the named splits."""
    count = 1 + max(row for rows in splits.values() for row in rows)
    ids = tuple(f"q{row}" for row in range(count))
    corpus = Corpus(("d",), ("",), ("text",))
    return Dataset(
        "set",
        corpus,
        Queries(ids, ids),
        {name: Qrels.of([(row, 0, 1) for row in rows]) for name, rows in splits.items()},
    )


def alone(one: Dataset) -> NearCopies:
    return NearCopies(np.arange(len(one.queries), dtype=np.int32), np.empty((0, 2), dtype=np.int32))


def with_texts(texts: list[str], **splits: list[int]) -> Dataset:
    """The dataset of :func:`dataset` with texts of its own."""
    one = dataset(**splits)
    return replace(one, queries=replace(one.queries, texts=tuple(texts)))


def unlike(number: int) -> str:
    """A text that is no near-copy of another number's."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_train_trains_dev_selects_test_scores() -> None:
    one = dataset(train=[0, 1, 2], dev=[3, 4], test=[5, 6])
    part = split_trained(one, alone(one), folds=3, seed=0).shipped
    assert part.train.query_rows.tolist() == [0, 1, 2]
    assert part.dev.query_rows.tolist() == [3, 4]
    assert part.scored.query_rows.tolist() == [5, 6]


def test_a_training_query_beside_its_copy_in_dev_does_not_train() -> None:
    one = dataset(train=[0, 1, 2], dev=[3, 4], test=[5])
    pairs = np.array([[1, 3]], dtype=np.int32)
    assert split_trained(one, replace(alone(one), pairs=pairs), folds=3, seed=0).shipped.train.query_rows.tolist() == [
        0,
        2,
    ]


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize(("count", "expected"), [(2500, 500), (600, 250), (400, 200), (100, 50)])
def test_of_the_only_other_split_a_fifth_is_held_out_or_250_queries_but_half_at_most(
    split: str, count: int, expected: int
) -> None:
    one = dataset(**{split: list(range(count)), "test": [count, count + 1]})
    part = split_trained(one, alone(one), folds=3, seed=0).shipped
    # Three standard deviations of what a hash gives.
    assert abs(len(part.dev.query_rows) - expected) <= 3 * expected**0.5
    together = np.concatenate([part.train.query_rows, part.dev.query_rows])
    assert sorted(together.tolist()) == list(range(count))


def test_a_guard_never_trains_and_a_third_of_it_watches() -> None:
    one = dataset(test=list(range(300)))
    part = split_guard(one, alone(one), seed=0).shipped
    assert len(part.train) == 0
    assert 75 <= len(part.dev.query_rows) <= 125
    assert sorted([*part.dev.query_rows.tolist(), *part.scored.query_rows.tolist()]) == list(range(300))


@pytest.mark.parametrize("seed", range(20))
def test_near_copies_of_a_guard_are_on_one_side(seed: int) -> None:
    one = with_texts([unlike(row % 15) for row in range(30)], test=list(range(30)))
    copies = find_near_copies(one, np.arange(30, dtype=np.int32), folds=3)
    part = split_guard(one, copies, seed=seed).shipped
    assert not copies.of(part.scored.query_rows, part.dev.query_rows).any()
    assert len(part.scored.query_rows) + len(part.dev.query_rows) == 30


def test_a_query_of_two_splits_is_only_scored() -> None:
    one = dataset(train=[0, 1, 2], dev=[1, 3], test=[1, 2, 4])
    part = split_trained(one, alone(one), folds=3, seed=0).shipped
    assert part.train.query_rows.tolist() == [0]
    assert part.dev.query_rows.tolist() == [3]
    assert part.scored.query_rows.tolist() == [1, 2, 4]


def test_a_train_split_inside_test_trains_nothing_and_is_not_cross_fitted() -> None:
    one = dataset(train=[0, 1], test=[0, 1, 2, 3])
    split = split_trained(one, alone(one), folds=2, seed=0)
    assert split.folds == ()
    assert len(split.shipped.train) == len(split.shipped.dev) == 0
    assert split.scored.query_rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_small_set_both_trains_and_selects(count: int, seed: int) -> None:
    one = dataset(train=list(range(count)), test=[count])
    part = split_trained(one, alone(one), folds=3, seed=seed).shipped
    assert len(part.train)
    assert len(part.dev)
    assert len(part.train) + len(part.dev) == count


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.integers(0, 20), min_size=6, max_size=60),
    folds=st.integers(2, 3),
    seed=st.integers(0, 5),
)
def test_cross_fitting_scores_each_query_once_by_a_model_that_saw_no_copy(
    texts: list[int], folds: int, seed: int
) -> None:
    one = with_texts([unlike(number) for number in texts], test=list(range(len(texts))))
    copies = find_near_copies(one, np.arange(len(texts), dtype=np.int32), folds=folds)
    if len(np.unique(copies.groups)) < folds:
        with pytest.raises(DataError, match="folds"):
            split_trained(one, copies, folds=folds, seed=seed)
        return
    split = split_trained(one, copies, folds=folds, seed=seed)
    scored = np.concatenate([fold.scored.query_rows for fold in split.folds])
    assert sorted(scored.tolist()) == list(range(len(texts)))
    assert split.scored.query_rows.tolist() == list(range(len(texts)))
    numbers = np.array(texts)
    for fold in split.folds:
        for part in (fold.train, fold.dev):
            assert not set(numbers[part.query_rows]) & set(numbers[fold.scored.query_rows])
        assert not set(numbers[fold.dev.query_rows]) & set(numbers[fold.train.query_rows])
    assert split.shipped.train.query_rows.tolist() == list(range(len(texts)))
    assert len(split.shipped.scored) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_chain_of_near_copies_does_not_swallow_the_dataset(seed: int) -> None:
    # Each text is a near-copy of the next one, the first and the last have nothing in common.
    letters = "".join(unlike(number) for number in range(8))
    one = with_texts([letters[3 * row : 3 * row + 40] for row in range(120)], test=list(range(120)))
    copies = find_near_copies(one, np.arange(120, dtype=np.int32), folds=3)
    assert len(copies.pairs) >= 119
    assert np.unique(copies.groups, return_counts=True)[1].max() <= 8  # a fifth of a fold's 40
    split = split_trained(one, copies, folds=3, seed=seed)
    sizes = [len(fold.scored.query_rows) for fold in split.folds]
    assert max(sizes) <= 1.2 * min(sizes)
    for fold in split.folds:
        assert not copies.of(fold.train.query_rows, fold.scored.query_rows).any()
        assert not copies.of(fold.dev.query_rows, fold.scored.query_rows).any()
        assert not copies.of(fold.train.query_rows, fold.dev.query_rows).any()
        assert len(fold.train.query_rows)
        assert len(fold.dev.query_rows)


def test_the_order_of_the_file_changes_nothing() -> None:
    ids = tuple(f"q{row}" for row in range(90))
    corpus = Corpus(("d",), ("",), ("text",))
    judged = Qrels.of([(row, 0, 1) for row in range(90)])
    forward = Dataset("set", corpus, Queries(ids, ids), {"test": judged})
    backward = Dataset("set", corpus, Queries(ids[::-1], ids[::-1]), {"test": judged})
    split = [split_trained(one, alone(one), folds=3, seed=1) for one in (forward, backward)]
    for left, right in zip(split[0].folds, split[1].folds, strict=True):
        assert {forward.queries.ids[row] for row in left.scored.query_rows} == {
            backward.queries.ids[row] for row in right.scored.query_rows
        }


def test_groups_join_through_others_closest_first() -> None:
    texts = ["sort a list of tuples", "boundary layer", "sort a list of tuple", "sort a list of tuples!", "heat"]
    one = with_texts(texts, test=list(range(5)))
    copies = find_near_copies(one, np.arange(5, dtype=np.int32), folds=1)
    assert copies.groups.tolist() == [0, 1, 2, 0, 4]  # a fifth of five queries, but two at least: the equal ones
    assert sorted(map(tuple, copies.pairs.tolist())) == [(0, 2), (0, 3), (2, 3)]
    assert copies.of(np.array([1, 2], dtype=np.int32), np.array([0], dtype=np.int32)).tolist() == [False, True]


def test_without_a_test_split_nothing_can_be_scored() -> None:
    one = dataset(train=[0, 1])
    with pytest.raises(DataError, match=r"qrels/test\.tsv"):
        split_trained(one, alone(one), folds=3, seed=0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(12))
def test_the_smallest_guard_is_scored_and_from_two_groups_on_watched(count: int, seed: int) -> None:
    ids = tuple(f"q{row}" for row in range(count))
    one = Dataset(
        "guard",
        Corpus(("d",), ("",), ("text",)),
        Queries(ids, ids),
        {"test": Qrels.of([(row, 0, 1) for row in range(count)])},
    )
    part = split_guard(one, alone(one), seed=seed).shipped
    assert len(part.scored.query_rows) >= 1
    assert (len(part.dev.query_rows) >= 1) == (count > 1)
    assert sorted([*part.dev.query_rows, *part.scored.query_rows]) == list(range(count))
    same = NearCopies(np.zeros(count, dtype=np.int32), np.empty((0, 2), dtype=np.int32))
    copies = split_guard(one, same, seed=seed).shipped
    assert (len(copies.dev), len(copies.scored)) == (0, count)
