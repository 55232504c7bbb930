"""Equal texts are one, and the split of a query follows from its text and the seed."""

from __future__ import annotations

import random

import pytest

from ranksaga.data.importing.assemble import SHARES, assemble, parse_shares
from ranksaga.data.importing.rows import Document, Judgment, Query, Source
from ranksaga.data.leakage import near_copies
from ranksaga.errors import DataError, UsageError

TOPICS = [
    *("harbour", "ladder", "violin", "meadow", "copper", "lantern", "walnut"),
    *("thunder", "pillow", "saddle", "anchor", "basket", "candle", "dragon"),
]
QUESTIONS = [f"{kind} {topic}?" for topic in TOPICS for kind in ("what is the weight of a", "who repairs an old")]


def source(questions: list[str]) -> Source:
    judgments = [Judgment(Query(question), Document(f"about {question}")) for question in questions]
    return Source("x", "x", judgments=judgments)


def splits(questions: list[str], seed: int = 0) -> dict[str, str]:
    dataset = assemble(source(questions), "x", seed=seed).dataset
    return {dataset.queries.texts[row]: name for name, judged in dataset.qrels.items() for row in judged.query_rows}


def test_the_order_changes_nothing_and_the_seed_does() -> None:
    shuffled = QUESTIONS[:]
    random.Random(1).shuffle(shuffled)
    assert splits(QUESTIONS) == splits(shuffled)
    assert splits(QUESTIONS) != splits(QUESTIONS, seed=1)
    assert set(splits(QUESTIONS).values()) == {"train", "dev", "test"}
    ids = {text: name for name, text in zip(*ids_and_texts(QUESTIONS), strict=True)}
    assert ids == {text: name for name, text in zip(*ids_and_texts(shuffled), strict=True)}


def ids_and_texts(questions: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    queries = assemble(source(questions), "x").dataset.queries
    return queries.ids, queries.texts


def test_near_copies_of_a_query_share_its_split() -> None:
    questions = QUESTIONS + [question.upper() for question in QUESTIONS] + [f"{question} now" for question in QUESTIONS]
    split = splits(questions)
    pairs = near_copies(questions)
    assert len(pairs) >= 2 * len(QUESTIONS)
    assert all(split[questions[leak.training]] == split[questions[leak.scored]] for leak in pairs)


def test_shares_hold_on_many_queries() -> None:
    rng = random.Random(0)
    questions = [" ".join("".join(rng.choices("abcdefghij", k=6)) for _ in range(5)) for _ in range(600)]
    names = list(splits(questions).values())
    for name, share in SHARES.items():
        assert names.count(name) / len(names) == pytest.approx(share, abs=0.07)  # four standard errors


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_few_queries_one_is_scored_and_one_trains(count: int) -> None:
    for seed in range(8):
        assert {"train", "test"} <= set(splits(TOPICS[:count], seed=seed).values())


def test_a_split_whose_queries_have_negatives_only_is_none() -> None:
    judgments = [Judgment(Query(topic), Document(topic), int(topic == "harbour")) for topic in TOPICS]
    dataset = assemble(Source("x", "x", judgments=judgments), "x").dataset
    assert list(dataset.qrels) == ["test"]
    assert len(dataset.qrels["test"]) == len(TOPICS)


def test_one_question_with_two_answers_is_one_query() -> None:
    rows = [("Why?", "Because."), (" Why? ", "So."), ("Why?", "Because.  "), ("How?", "So.")]
    judgments = [Judgment(Query(question), Document(answer)) for question, answer in rows]
    dataset = assemble(Source("x", "x", judgments=judgments), "x").dataset
    assert dataset.queries.texts == ("Why?", "How?")
    assert dataset.corpus.texts == ("Because.", "So.")
    assert sum(map(len, dataset.qrels.values())) == 3


def test_ids_of_a_collection_decide() -> None:
    documents = [Document("same", id="a"), Document("same", id="b")]
    judgments = [Judgment(Query("why", "1"), documents[1]), Judgment(Query("why", "2"), documents[0])]
    kept = assemble(Source("x", "x", documents=documents, judgments=judgments, ids_decide=True), "x").dataset
    assert (kept.corpus.ids, kept.queries.ids) == (("a", "b"), ("1", "2"))
    merged = assemble(Source("x", "x", documents=documents, judgments=judgments), "x")
    assert (merged.dataset.corpus.ids, merged.dataset.queries.ids) == (("a",), ("1",))
    assert merged.notes[0] == "document ids whose text an earlier id has: 1; equal texts are one document"


def test_declared_splits_stay_and_without_test_are_made_anew() -> None:
    judgments = [
        Judgment(Query(topic), Document(topic), 1, split)
        for topic, split in zip(TOPICS, ["train", "test"] * 7, strict=True)
    ]
    dataset = assemble(Source("x", "x", judgments=judgments), "x").dataset
    assert {name: len(judged) for name, judged in dataset.qrels.items()} == {"train": 7, "test": 7}
    judgments = [Judgment(Query(topic), Document(topic), 1, "train") for topic in TOPICS]
    made = assemble(Source("x", "x", judgments=judgments), "x")
    assert "test" in made.dataset.qrels
    assert made.notes == ("the source has no test split (only train), so all its queries are split anew",)


def test_nothing_relevant_is_refused() -> None:
    with pytest.raises(DataError, match="no document is relevant"):
        assemble(Source("x", "x", judgments=[Judgment(Query("a"), Document("b"), 0)]), "x")


def test_shares_are_read() -> None:
    assert parse_shares("test=1") == {"train": 0.0, "dev": 0.0, "test": 1.0}
    assert parse_shares("train=3, test=1") == {"train": 0.75, "dev": 0.0, "test": 0.25}
    for wrong in ("", "train=1", "test", "test=-1", "tset=1", "test=nan", "test=inf"):
        with pytest.raises(UsageError, match=r"write train=0\.6"):
            parse_shares(wrong)


def test_all_queries_may_be_test() -> None:
    dataset = assemble(source(TOPICS), "x", shares=parse_shares("test=1")).dataset
    assert {name: len(judged) for name, judged in dataset.qrels.items()} == {"test": len(TOPICS)}
