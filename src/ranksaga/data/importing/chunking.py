"""Cut a section into documents of at most so many of a model's own tokens, at the best place near the end of each."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ranksaga.errors import UsageError

__all__ = ["Tokens", "cut", "title_of"]

# Where a text may be cut, the best place first: after a paragraph, a line, a sentence, a word.
_PLACES = (
    re.compile(r"\n[ \t\r]*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(r"(?<=[.!?;])[\"')\]]*\s+|(?<=[。！？；।॥])\s*"),
    re.compile(r"\s+"),
)
# A place is taken if at least this share of the tokens stands before it; a word's end wherever it is.
_FILLED = 0.5


@dataclass(frozen=True)
class Tokens:
    """How a model reads documents.

    Attributes:
        limit: tokens of a whole document, special ones and prompt included.
        count: how many tokens each text has, special ones and prompt included, however long it is.
        ends: for a text, one after the last character of each of its tokens, without special ones and prompt.
    """

    limit: int
    count: Callable[[Sequence[str]], list[int]]
    ends: Callable[[str], list[int]]


def title_of(headings: Sequence[str], tokens: Tokens) -> str:
    """A heading path as a title (``Install > Windows``), less its outermost headings where it fills half a document."""
    path = list(headings)
    while path:
        title = " > ".join(path)
        if tokens.count([title])[0] <= tokens.limit // 2:
            return title
        path.pop(0)
    return ""


def cut(text: str, start: int, end: int, title: str, tokens: Tokens) -> list[tuple[int, int]]:
    """Spans of ``text`` between start and end, without blanks at their ends, none longer than the limit.

    Args:
        text: of a file.
        start: first character.
        end: one after the last.
        title: that each document begins with.
        tokens: how long it may be, and how that is counted.

    Raises:
        UsageError: the limit leaves no room for a text.
    """
    start, end = _stripped(text, start, end)
    if start == end:
        return []
    room = tokens.limit - tokens.count([title])[0]
    if room < 1:
        raise UsageError(
            f"--tokens {tokens.limit}: no room for a text beside title, prompt and special tokens; give more"
        )
    ends = [start + last for last in tokens.ends(text[start:end])]
    spans = []
    while start < end:
        stop = _fit(text, start, end, title, tokens, ends, room)
        spans.append(_stripped(text, start, stop))
        start = _stripped(text, stop, end)[0]
    return spans


def _fit(text: str, start: int, end: int, title: str, tokens: Tokens, ends: Sequence[int], room: int) -> int:
    """Where the document that begins at ``start`` ends. A part may have more tokens than it has in the whole."""
    first = bisect_right(ends, start)
    while True:
        last = first + room - 1
        stop = end if last >= len(ends) - 1 else _best(text, start, ends[last])
        if tokens.count([f"{title} {text[start:stop].strip()}".strip()])[0] <= tokens.limit:
            return stop
        if room == 1:
            # One token of the whole that is several by itself (a rare sign): it cannot be cut further.
            return stop
        room = max(1, min(room - 1, room * 15 // 16))


def _best(text: str, start: int, stop: int) -> int:
    """The best place to cut at or before ``stop``."""
    if stop < len(text) and text[stop].isspace():
        stop += 1  # the blank after the last word shows that it ends there
    for rank, pattern in enumerate(_PLACES):
        earliest = start + (stop - start) * _FILLED if rank < len(_PLACES) - 1 else start
        places = [match.end() for match in pattern.finditer(text, start, stop) if match.end() > earliest]
        if places and _stripped(text, start, places[-1])[1] > start:
            return places[-1]
    return stop


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
