"""Words of a text in any script, for BM25, pseudo-queries and comparisons of texts.

Unicode writes one word in many ways; :func:`folded` gives them one form. Where a script puts no blanks
between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese and their kin), overlapping pairs of
characters stand for words, as in Lucene's CJKAnalyzer, which treats Korean so, too: its particles
cling to the nouns.

Sources: Unicode Standard Annex 15 (normalisation) and 29 (text segmentation); Lucene's CJKBigramFilter,
PersianCharFilter and ArabicNormalizer.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import regex

__all__ = ["atoms", "folded", "is_lone_character", "is_unspaced", "tokens", "word_count"]

_EAST = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\u30FC\u3031-\u3035"
_SOUTH_EAST = (
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Ahom}"
    r"\p{Javanese}\p{Balinese}"
)
_MARK = r"[\p{Mn}\p{Mc}]"


def _characters(scripts: str, *, inside: bool = True) -> str:
    """Pattern of a letter or digit of these scripts (or of none of them) with the marks on it."""
    return rf"[[\p{{L}}\p{{N}}]{'&&' if inside else '--'}[{scripts}]]{_MARK}*"


# A word of any length; an underscore ends it, which on code (cosqa) gives nDCG@10 0.362 against 0.319.
_WORD = re.compile(r"[^\W_]+")
_PAIRED = _characters(_EAST + _SOUTH_EAST + r"\p{Hangul}")
_UNPAIRED = _characters(_EAST + _SOUTH_EAST + r"\p{Hangul}", inside=False)
_CHARACTER = regex.compile(_PAIRED, regex.V1)
# What the standard library's pattern of a word does not know: marks, and scripts without blanks.
_SPECIAL = regex.compile(rf"[{_MARK[1:-1]}{_EAST}{_SOUTH_EAST}\p{{Hangul}}]")
_RUN = regex.compile(rf"(?P<unspaced>(?:{_PAIRED})+)|(?:{_UNPAIRED})+", regex.V1)

# How many characters make about a word: what is a size in words elsewhere is one in characters here.
_PER_WORD = {
    2: regex.compile(_characters(_EAST), regex.V1),
    4: regex.compile(_characters(_SOUTH_EAST), regex.V1),
}
_UNSPACED = _characters(_EAST + _SOUTH_EAST)
_IS_UNSPACED = regex.compile(_UNSPACED, regex.V1)
_ATOM = regex.compile(rf"{_UNSPACED}\s*|(?:(?!{_UNSPACED})\S)+\s*", regex.V1)

# Between letters of Arabic script a zero-width non-joiner parts a word from its ending, and a blank is as common there.
_PERSIAN_BREAK = regex.compile(r"(?<=\p{Arabic})\u200C+")
# Soft hyphens, joiners, marks of direction, variation selectors, enclosing marks; vowel signs of Arabic and its
# stretched lines, points of Hebrew. All but U+200B, which is a break between words.
_INVISIBLE = regex.compile(
    r"[[\p{Cf}\p{Me}\uFE00-\uFE0F\U000E0100-\U000E01EF\u034F\u180B-\u180D"
    r"\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7"
    r"\u0610-\u061A\u0640\u064B-\u065F\u0670\u06D6-\u06DC\u06DF-\u06E8\u06EA-\u06ED\u08D3-\u08FF]--\u200B]",
    regex.V1,
)
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")


def folded(text: str, *, turkic: bool = False) -> str:
    """One form of a text for all that are read the same: case, width, composition, digits, invisible signs.

    Args:
        text: any.
        turkic: the capital of ``ı`` is ``I`` and that of ``i`` is ``İ``, as in Turkish.
    """
    if turkic:
        text = text.replace("I\u0307", "i").replace("I", "ı")
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text)
    text = _INVISIBLE.sub("", _PERSIAN_BREAK.sub(" ", text))
    text = _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), text)
    # A capital dotted İ becomes an i and a dot above it, which nobody writes.
    return unicodedata.normalize("NFKC", text.casefold()).replace("i\u0307", "i")


def tokens(text: str, *, turkic: bool = False) -> list[str]:
    """The words of a text, folded; overlapping pairs of characters where no blanks part words.

    A character that stands alone there is a token itself. Punctuation, symbols and emoji are in none.
    """
    text = folded(text, turkic=turkic)
    if text.isascii() or not _SPECIAL.search(text):
        return _WORD.findall(text)
    result: list[str] = []
    for run in _RUN.finditer(text):
        if run["unspaced"] is None:
            result.append(run.group())
            continue
        characters = _CHARACTER.findall(run.group())
        result += [left + right for left, right in pairwise(characters)] or characters
    return result


def is_lone_character(token: str) -> bool:
    """Whether a token is one character of a script whose tokens are pairs."""
    return not token.isascii() and _CHARACTER.fullmatch(token) is not None


def is_unspaced(text: str) -> bool:
    """Whether a text holds letters of a script that puts no blanks between words."""
    return not text.isascii() and _IS_UNSPACED.search(text) is not None


def word_count(text: str) -> int:
    """Words between blanks; where a script has none, about as many as its characters make.

    Two characters count as a word in Chinese and Japanese, four in Thai and its neighbours.
    """
    if not is_unspaced(text):
        return len(text.split())
    parts = sum(len(pattern.findall(text)) / size for size, pattern in _PER_WORD.items())
    return round(parts) + sum(any(map(str.isalnum, word)) for word in _IS_UNSPACED.sub(" ", text).split())


def atoms(text: str) -> list[str]:
    """What a text may be cut into: words, and single characters where no blanks part words, each with the blanks
    after it."""
    found: list[str] = _ATOM.findall(text)
    return found
