"""The leakage audit: exact and near copies by their texts alone, and what is known of SciFact."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksaga.data.beir import read_beir
from ranksaga.data.leakage import JACCARD, find_leaks, near_copies, normalised


def test_normalised_folds_case_width_punctuation_and_space() -> None:
    assert normalised("  \uff21spirin,  CURES\nheadache? ") == "aspirin cures headache"


@pytest.mark.parametrize(
    "text",
    ["café crème", "Straße", "हिन्दी में खोज", "การค้นหา", "Tiếng Việt", "한국어 검색"],
)
def test_letters_keep_their_marks_and_any_form_of_a_text_is_the_same(text: str) -> None:
    composed, decomposed = (normalised(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    assert composed == decomposed == normalised(text.upper().lower())
    marks = [char for char in unicodedata.normalize("NFD", text.casefold()) if unicodedata.category(char)[0] == "M"]
    assert [char for char in unicodedata.normalize("NFD", composed) if unicodedata.category(char)[0] == "M"] == marks


def test_each_pair_is_found_once_under_its_strictest_kind() -> None:
    training = ["Aspirin cures!", "low methylation of the gene", "unrelated words here"]
    scored = ["aspirin cures", "high methylation of the gene"]
    leaks = find_leaks(training, scored)
    assert [(leak.kind, leak.training, leak.scored) for leak in leaks] == [("exact", 0, 0), ("near-copy", 1, 1)]
    # " low methylation of the gene " has 27 trigrams, 4 of its own; " high ..." has 28, 5 of its own.
    assert leaks[1].similarity == pytest.approx(23 / 32)


def test_near_copies_are_pairs_of_one_table() -> None:
    texts = ["sort a list of tuples", "boundary layer flow", "sort a list of tuple", "Sort a list of tuples?"]
    assert [(leak.kind, leak.training, leak.scored) for leak in near_copies(texts)] == [
        ("near-copy", 0, 2),
        ("exact", 0, 3),
        ("near-copy", 2, 3),
    ]


def test_texts_without_a_letter_are_copies_of_each_other_only() -> None:
    assert [(leak.kind, leak.training) for leak in find_leaks(["", "!", "a"], ["..."])] == [("exact", 0), ("exact", 1)]


WORDS = st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map("".join), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(left=WORDS, right=WORDS)
def test_the_filter_loses_no_pair_that_comparing_all_would_find(left: list[str], right: list[str]) -> None:
    def trigrams(text: str) -> set[str]:
        return set(map("".join, zip(f" {text} ", f"{text} ", f"{text} "[1:], strict=False))) if text else set()

    expected = set()
    for row, text in enumerate(left):
        for column, other in enumerate(right):
            a, b = trigrams(text), trigrams(other)
            if text == other or (a | b and len(a & b) / len(a | b) >= JACCARD):
                expected.add((row, column))
    assert {(leak.training, leak.scored) for leak in find_leaks(left, right)} == expected


@pytest.mark.shared
def test_scifact_has_the_known_near_copies(shared_datasets: Path) -> None:
    """122 of 300 test claims, whatever model is trained; 117 have a training claim above cosine 0.9 under MiniLM."""
    dataset = read_beir(shared_datasets / "scifact")
    train, test = dataset.qrels["train"], dataset.qrels["test"]
    texts = dataset.queries.texts
    leaks = find_leaks(*([texts[row] for row in part.query_rows] for part in (train, test)))
    assert len({leak.scored for leak in leaks}) == 122

    def gold(leak_row: int, part: str) -> set[int]:
        judged = dataset.qrels[part]
        return set(judged.positives.documents_of(int(judged.query_rows[leak_row])).tolist())

    same = [bool(gold(leak.training, "train") & gold(leak.scored, "test")) for leak in leaks]
    assert (sum(same), len(same)) == (142, 144)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "touched"), [("nfcorpus", 36), ("cosqa", 11), ("cranfield", 0), ("cisi", 0), ("cystic-fibrosis", 0)]
)
def test_other_collections_have_few(shared_datasets: Path, name: str, touched: int) -> None:
    dataset = read_beir(shared_datasets / name)
    others = [row for split in ("train", "dev") if split in dataset.qrels for row in dataset.qrels[split].query_rows]
    texts = dataset.queries.texts
    leaks = find_leaks([texts[row] for row in others], [texts[row] for row in dataset.qrels["test"].query_rows])
    assert len({leak.scored for leak in leaks}) == touched


@pytest.mark.shared
@pytest.mark.slow
def test_most_pairs_that_minilm_finds_in_scifact_are_found_without_it(shared_datasets: Path) -> None:
    from ranksaga.encode.encoder import load_encoder

    dataset = read_beir(shared_datasets / "scifact")
    texts = [[dataset.queries.texts[row] for row in dataset.qrels[part].query_rows] for part in ("train", "test")]
    encoder = load_encoder("minilm", precision="fp32")
    cosines = encoder.encode_queries(texts[0]) @ encoder.encode_queries(texts[1]).T
    close = set((cosines.max(axis=0) > 0.9).nonzero()[0].tolist())
    touched = {leak.scored for leak in find_leaks(*texts)}
    assert len(close) == 117
    assert len(close & touched) == 102
