"""Pseudo-queries: what is taken from prose and from code."""

from __future__ import annotations

import numpy as np

from ranksaga.data.dataset import Corpus
from ranksaga.train.pseudo import WINDOW, PseudoQuery, pseudo_queries

PROSE = (
    "Aspirin lowers the risk of a second stroke in adults. Yes. "
    "A trial of two thousand patients found fewer events in the treated group."
)
CODE = '''def parseHeader(line):
    """Split a header line into name and value.

    Long story.
    """
    name, value = line.split(":")
    return name, value'''


def corpus(title: str, text: str) -> Corpus:
    return Corpus(("d",), (title,), (text,))


def test_prose_gives_its_title_and_its_sentences() -> None:
    found = pseudo_queries(corpus("Aspirin after stroke", PROSE), 10, np.random.default_rng(0))
    assert PseudoQuery("Aspirin after stroke", 0) in found
    sentences = [one for one in found if one.text != "Aspirin after stroke"]
    assert len(sentences) == 2  # "Yes." is too short to be a query
    for one in sentences:
        assert one.text in PROSE
        assert len(one.text.split()) == WINDOW or one.text.endswith((".", "group"))


def test_code_gives_the_docstrings_first_sentence_and_the_functions_name() -> None:
    found = pseudo_queries(corpus("", CODE), 10, np.random.default_rng(0))
    assert {one.text for one in found} == {"split a header line into name and value", "parse header"}


def test_the_draw_is_seeded_and_bounded() -> None:
    many = Corpus(tuple("abc"), ("", "", ""), (PROSE, PROSE, PROSE))
    draws = [pseudo_queries(many, 4, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert len(draws[0]) == 4
    assert draws[0] == draws[1] != draws[2]


def test_an_empty_document_gives_nothing() -> None:
    assert pseudo_queries(corpus("", ""), 10, np.random.default_rng(0)) == []
