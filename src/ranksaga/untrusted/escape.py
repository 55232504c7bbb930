"""Foreign text on its way out: one function for each kind of output, so that text stays text there.

Names of datasets and models, ids, texts, prompts and messages of servers can hold anything: escape sequences of a
terminal, marks that turn the direction of writing, markup, formulas. What is stored as JSON or YAML is exact and needs
none of this; its parsers read it back as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

__all__ = [
    "breaks_lines",
    "code_block",
    "csv_cell",
    "cut",
    "is_name",
    "markdown",
    "one_line",
    "printable",
    "public_url",
    "shown",
    "trec_id",
    "without_secrets",
]

# C0 but tab and line feed, DEL, C1, the ends of lines and paragraphs, halves of characters, and what Trojan Source
# (Boucher and Anderson 2021) turns directions with; invisible tags, which can carry hidden text, too.
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LINES = "\u2028\u2029"
_CONTROLS = "\x00-\x1f\x7f-\x9f"
_UNSAFE = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_LINES}\ud800-\udfff{_BIDI}\U000e0000-\U000e007f]")
_PARTING = re.compile(rf"[\s{_CONTROLS}{_LINES}]")
_UNNAMED = re.compile(rf"[{_CONTROLS}{_LINES}\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@\t\r\n'＝＋－＠]")
# At the start of a text: headings, quotes, lists, rules. Negative and signed figures are none.
_BLOCK = re.compile(r"(?:[#>~]|[-+=](?=[\s=-]|$)|\d+(?=[.)](?:\s|$)))")
# Anywhere: emphasis (an underscore inside a word is none), code, cells, and the middle of a link.
_INLINE = re.compile(r"[\\`*|~$]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|:(?=//)|(?<=www)\.", re.IGNORECASE)
_ENTITY = re.compile(r"&(?=#?\w+;)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_SECRET_NAME = re.compile(
    r"TOKEN(?!I)|SECRET|PASSW|APIKEY|API_KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL|BEARER", re.IGNORECASE
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>()]*[^\s'\"<>().,:;]", re.IGNORECASE)
_SHORTEST_SECRET = 8  # characters: a shorter value would be found in ordinary words
_SHORTEST_PASSWORD = 4
HIDDEN = "***"


def cut(text: str, limit: int = 200) -> str:
    """The text, or its first ``limit`` characters and three dots."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def shown(value: object, limit: int = 200) -> str:
    """A value of foreign origin for a message: as Python writes it, cut."""
    return cut(repr(value), limit)


def breaks_lines(text: str) -> bool:
    """Whether a text has a tab or an end of a line, with which an id would forge columns and lines of tables."""
    return any(mark in text for mark in "\t\r\n")


def is_name(value: object) -> bool:
    """Whether it is text that can name something in one line of UTF-8: no control characters, no halves of others."""
    return isinstance(value, str) and _UNNAMED.search(value) is None


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def printable(text: str) -> str:
    """For a terminal, a log or a page: tabs and line feeds stay, other characters that act become visible escapes."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    """For one line of a terminal or a log, which it cannot leave."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def markdown(text: str) -> str:
    """One line of Markdown that shows the text: no markup, link, image, HTML or end of a table's cell."""
    text = printable(" ".join(text.split()))
    text = _ENTITY.sub("&amp;", text)
    text = _INLINE.sub(r"\\\g<0>", text)
    text = _TAG.sub("&lt;", text)
    if block := _BLOCK.match(text):
        mark = block.group()
        return f"{mark}\\{text[len(mark) :]}" if mark.isdigit() else f"\\{text}"
    return text


def code_block(text: str, language: str = "") -> str:
    """A fenced block of Markdown that no text inside can close."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(text).rstrip()}\n{fence}"


def csv_cell(text: str) -> str:
    """A text for a cell of a CSV file: spreadsheets run cells that begin with = + - @ as formulas.

    Such a text gets an apostrophe before it, which they take for a mark of text; so does one that begins with an
    apostrophe. Who reads the file otherwise takes one leading apostrophe off. Figures are not passed here.
    """
    text = one_line(text)
    return f"'{text}" if _FORMULA.match(text) else text


def trec_id(identifier: str) -> str:
    """An id as a column of a TREC file: readers split lines at white space, so an id that has some is percent-encoded.

    So are control characters. Ids without either, nearly all, are as they are.
    """
    if not _PARTING.search(identifier):
        return identifier
    return _PARTING.sub(lambda match: quote(match.group()), identifier.replace("%", "%25"))


def public_url(url: str) -> str:
    """An address without what may be secret in it: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return HIDDEN
    hidden = f"{HIDDEN}@" if "@" in parts.netloc else ""
    query = HIDDEN if parts.query else ""
    return urlunsplit((parts.scheme, hidden + host, parts.path, query, ""))


def without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A message without users, passwords and queries of addresses, and without the environment's tokens.

    A token is the value of a variable whose name says so (HF_TOKEN, AWS_SECRET_ACCESS_KEY, ...), and a password in an
    address that a variable holds (RANKSAGA_BEIR_URL, HF_ENDPOINT, HTTPS_PROXY, ...).
    """
    for secret in _secrets(os.environ if environment is None else environment):
        text = text.replace(secret, HIDDEN)
    return _URL.sub(lambda match: public_url(match.group()) if _has_secret(match.group()) else match.group(), text)


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Longest first, so that none is left in part."""
    secrets = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            secrets.add(value)
        if "://" in value and "@" in value:
            user = value.partition("://")[2].partition("/")[0].rpartition("@")[0]
            secrets |= {part for part in (user, user.partition(":")[2]) if len(part) >= _SHORTEST_PASSWORD}
    return sorted(secrets, key=len, reverse=True)


def _has_secret(url: str) -> bool:
    return "@" in url or "?" in url
