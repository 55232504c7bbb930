"""Pseudo-queries: texts taken from a corpus that can stand for queries, without any label.

Titles, sentences and windows of sentences of plain text; the first sentence of a docstring and the
name of a function, split into words, of code. Each knows the document it came from, which can then
be left out of what is learned: it holds the very words. Sizes are in words, and in the characters that
make about as many words where a script puts no blanks between them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ranksaga.data.dataset import Corpus
from ranksaga.data.words import atoms, is_unspaced, tokens, word_count

__all__ = ["PseudoQuery", "code_parts", "pseudo_queries", "sentences"]

WORDS = (6, 35)  # of a sentence that can be a query
WINDOW = 8  # words; search queries are shorter than sentences
WINDOWED = 0.4  # share of sentences that are cut to a window
SENTENCES = 2  # per document, so that long documents do not crowd out short ones

# Full stops of scripts other than Latin end a sentence with or without a blank after them; a closing quotation mark
# or bracket still belongs to it.
_STOPS = "。！？｡．।॥؟۔։።፧။៕។།༎᠃᠉"
_CLOSING = "」』”’）】》〉"
_SENTENCE_END = re.compile(
    rf"(?<=[.!?])\s+|\s\.\s|(?:(?<=[{_STOPS}])|(?<=[{_STOPS}][{_CLOSING}]))(?![{_STOPS}{_CLOSING}])\s*"
)
_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
_FUNCTION = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class PseudoQuery:
    """A text and the document (row of the corpus) that it is from."""

    text: str
    document: int


def pseudo_queries(corpus: Corpus, count: int, rng: np.random.Generator) -> list[PseudoQuery]:
    """At most ``count`` pseudo-queries, drawn over the whole corpus.

    Where no document has a sentence of a query's size (names of products, say), documents stand for themselves, as far
    as a query may be long. Only a corpus without words gives none.
    """
    found: list[PseudoQuery] = []
    for row, (title, text) in enumerate(zip(corpus.titles, corpus.texts, strict=True)):
        found += _from_code(text, row) if _FUNCTION.search(text) else _from_prose(title, text, row, rng)
    if not found:
        openings = ((_opening(document, WORDS[1]), row) for row, document in enumerate(corpus.documents))
        found = [PseudoQuery(opening, row) for opening, row in openings if tokens(opening)]
    order = rng.permutation(len(found))[:count]
    return [found[index] for index in order]


def _from_prose(title: str, text: str, row: int, rng: np.random.Generator) -> list[PseudoQuery]:
    found = [PseudoQuery(title, row)] if word_count(title) >= 3 and text else []
    usable = [one for one in sentences(text) if WORDS[0] <= word_count(one) <= WORDS[1]]
    for index in rng.permutation(len(usable))[:SENTENCES]:
        query = usable[index]
        if rng.random() < WINDOWED:
            parts, size = _parts(query, WINDOW)
            start = int(rng.integers(0, max(1, len(parts) - size + 1)))
            query = _joined(parts[start : start + size])
        found.append(PseudoQuery(query, row))
    return found


def sentences(text: str) -> list[str]:
    """The sentences of a text, of any length, possibly empty ones.

    Where a script has no blanks between words, blanks part what no full stop does (Thai), and what is still longer
    than ``WORDS`` allows is cut: some writers of Thai and of old Chinese leave out both.
    """
    found = _SENTENCE_END.split(text)
    return [part for one in found for part in (_shortened(one) if is_unspaced(one) else [one])]


def _shortened(sentence: str) -> list[str]:
    """A sentence of a script without blanks, in stretches of as many words as a query may have."""
    if word_count(sentence) <= WORDS[1]:
        return [sentence]
    found: list[str] = []
    for phrase in sentence.split():
        parts, size = _parts(phrase, WORDS[1])
        stretches = [_joined(parts[start : start + size]) for start in range(0, len(parts), size)]
        if found and word_count(found[-1]) < WORDS[0]:
            stretches[0] = f"{found.pop()} {stretches[0]}"
        found += stretches
    return found


def _parts(text: str, words: int) -> tuple[list[str], int]:
    """What a text is cut into, and how many of these make so many words."""
    if not is_unspaced(text):
        return [f"{word} " for word in text.split()], words
    parts = atoms(text)
    return parts, max(1, round(words * len(parts) / max(1, word_count(text))))


def _opening(text: str, words: int) -> str:
    parts, size = _parts(text, words)
    return _joined(parts[:size])


def _joined(parts: list[str]) -> str:
    return "".join(parts).strip()


def _from_code(text: str, row: int) -> list[PseudoQuery]:
    said, named = _first_sentence(text), _spaced_name(text)
    return [PseudoQuery(one, row) for one, least in ((said, 3), (named, 2)) if word_count(one) >= least]


def code_parts(text: str) -> list[str] | None:
    """A function's name with the first sentence of its docstring, and its code without docstring; none: no code."""
    if not _FUNCTION.search(text):
        return None
    return [f"{_spaced_name(text)} {_first_sentence(text)}".strip(), _DOCSTRING.sub("", text, count=1)]


def _first_sentence(text: str) -> str:
    documented = _DOCSTRING.search(text)
    if not documented:
        return ""
    first = re.split(rf"\n\s*\n|\.\s|:param|@|[{_STOPS}]", documented.group(2).strip(), maxsplit=1)[0]
    return _opening(first, 16).lower().rstrip(".")


def _spaced_name(text: str) -> str:
    named = _FUNCTION.search(text)
    return re.sub(r"([a-z])([A-Z])", r"\1 \2", named.group(1)).replace("_", " ").lower().strip() if named else ""
