"""Pseudo-queries: texts taken from a corpus that can stand for queries, without any label.

Titles, sentences and windows of sentences of plain text; the first sentence of a docstring and the
name of a function, split into words, of code. Each knows the document it came from and that
document without it (the inverse cloze task, Lee et al. 2019), so that a model can be asked for the
document without being given the words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ranksaga.data.dataset import Corpus

__all__ = ["PseudoQuery", "pseudo_queries"]

WORDS = (6, 35)  # of a sentence that can be a query
WINDOW = 8  # words; search queries are shorter than sentences
WINDOWED = 0.4  # share of sentences that are cut to a window
SENTENCES = 2  # per document, so that long documents do not crowd out short ones

_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
_FUNCTION = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class PseudoQuery:
    """A text from a document (row of the corpus), and the document's text without it."""

    text: str
    document: int
    remainder: str


def pseudo_queries(corpus: Corpus, count: int, rng: np.random.Generator) -> list[PseudoQuery]:
    """At most ``count`` pseudo-queries, drawn over the whole corpus."""
    found: list[PseudoQuery] = []
    for row, (title, text) in enumerate(zip(corpus.titles, corpus.texts, strict=True)):
        found += _from_code(text, row) if _FUNCTION.search(text) else _from_prose(title, text, row, rng)
    order = rng.permutation(len(found))[:count]
    return [found[index] for index in order]


def _from_prose(title: str, text: str, row: int, rng: np.random.Generator) -> list[PseudoQuery]:
    found = [PseudoQuery(title, row, text)] if len(title.split()) >= 3 and text else []
    sentences = [one for one in re.split(r"(?<=[.!?])\s+|\s\.\s", text) if WORDS[0] <= len(one.split()) <= WORDS[1]]
    for index in rng.permutation(len(sentences))[:SENTENCES]:
        sentence = sentences[index]
        query = sentence
        if rng.random() < WINDOWED:
            words = sentence.split()
            start = int(rng.integers(0, max(1, len(words) - WINDOW + 1)))
            query = " ".join(words[start : start + WINDOW])
        found.append(PseudoQuery(query, row, f"{title} {text.replace(sentence, ' ', 1)}".strip()))
    return found


def _from_code(text: str, row: int) -> list[PseudoQuery]:
    found = []
    documented = _DOCSTRING.search(text)
    bare = text.replace(documented.group(0), "", 1) if documented else text
    if documented:
        first = re.split(r"\n\s*\n|\.\s|:param|@", documented.group(2).strip(), maxsplit=1)[0]
        words = first.split()[:16]
        if len(words) >= 3:
            found.append(PseudoQuery(" ".join(words).lower().rstrip("."), row, bare))
    named = _FUNCTION.search(text)
    if named:
        spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", named.group(1)).replace("_", " ").lower().split()
        if len(spaced) >= 2:
            found.append(PseudoQuery(" ".join(spaced), row, bare))
    return found
