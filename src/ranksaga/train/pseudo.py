"""Pseudo-queries: texts taken from a corpus that can stand for queries, without any label.

Titles, sentences and windows of sentences of plain text; the first sentence of a docstring and the
name of a function, split into words, of code. Each knows the document it came from, which can then
be left out of what is learned: it holds the very words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ranksaga.data.dataset import Corpus

__all__ = ["PseudoQuery", "code_parts", "pseudo_queries"]

WORDS = (6, 35)  # of a sentence that can be a query
WINDOW = 8  # words; search queries are shorter than sentences
WINDOWED = 0.4  # share of sentences that are cut to a window
SENTENCES = 2  # per document, so that long documents do not crowd out short ones

_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
_FUNCTION = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class PseudoQuery:
    """A text and the document (row of the corpus) that it is from."""

    text: str
    document: int


def pseudo_queries(corpus: Corpus, count: int, rng: np.random.Generator) -> list[PseudoQuery]:
    """At most ``count`` pseudo-queries, drawn over the whole corpus."""
    found: list[PseudoQuery] = []
    for row, (title, text) in enumerate(zip(corpus.titles, corpus.texts, strict=True)):
        found += _from_code(text, row) if _FUNCTION.search(text) else _from_prose(title, text, row, rng)
    order = rng.permutation(len(found))[:count]
    return [found[index] for index in order]


def _from_prose(title: str, text: str, row: int, rng: np.random.Generator) -> list[PseudoQuery]:
    found = [PseudoQuery(title, row)] if len(title.split()) >= 3 and text else []
    sentences = [one for one in re.split(r"(?<=[.!?])\s+|\s\.\s", text) if WORDS[0] <= len(one.split()) <= WORDS[1]]
    for index in rng.permutation(len(sentences))[:SENTENCES]:
        sentence = sentences[index]
        query = sentence
        if rng.random() < WINDOWED:
            words = sentence.split()
            start = int(rng.integers(0, max(1, len(words) - WINDOW + 1)))
            query = " ".join(words[start : start + WINDOW])
        found.append(PseudoQuery(query, row))
    return found


def _from_code(text: str, row: int) -> list[PseudoQuery]:
    said, named = _first_sentence(text), _spaced_name(text)
    return [PseudoQuery(one, row) for one, least in ((said, 3), (named, 2)) if len(one.split()) >= least]


def code_parts(text: str) -> list[str] | None:
    """A function's name with the first sentence of its docstring, and its code without docstring; none: no code."""
    if not _FUNCTION.search(text):
        return None
    return [f"{_spaced_name(text)} {_first_sentence(text)}".strip(), _DOCSTRING.sub("", text, count=1)]


def _first_sentence(text: str) -> str:
    documented = _DOCSTRING.search(text)
    if not documented:
        return ""
    first = re.split(r"\n\s*\n|\.\s|:param|@", documented.group(2).strip(), maxsplit=1)[0]
    return " ".join(first.split()[:16]).lower().rstrip(".")


def _spaced_name(text: str) -> str:
    named = _FUNCTION.search(text)
    return re.sub(r"([a-z])([A-Z])", r"\1 \2", named.group(1)).replace("_", " ").lower().strip() if named else ""
