"""The text of a file for people, Markdown, HTML, plain text or PDF, in sections under their headings."""

from __future__ import annotations

import codecs
import html
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from ranksaga.data.importing.rows import needs_import_extra
from ranksaga.data.importing.text_files import read_bytes, read_text
from ranksaga.errors import DataError

__all__ = ["TEXT_SUFFIXES", "Extract", "Section", "extract"]

_MARKDOWN, _HTML, _PLAIN, _PDF = (
    (".md", ".markdown", ".mdx"),
    (".html", ".htm", ".xhtml"),
    (".txt", ".text", ".rst"),
    (".pdf",),
)
TEXT_SUFFIXES = (*_MARKDOWN, *_HTML, *_PLAIN, *_PDF)

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a file's text under one heading path.

    Attributes:
        headings: outermost first.
        start: first character in the text.
        end: one after the last.
    """

    headings: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Extract:
    """A file's text and its sections.

    ``offsets`` are (character of ``text``, character of the file, end of an entity there or 0), ascending, where text
    and file differ. Markdown and plain text are their files' own text.
    """

    text: str
    sections: tuple[Section, ...]
    offsets: tuple[tuple[int, int, int], ...] = ()

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where characters [start, end) of the text lie in the file; for a PDF in its extracted text."""
        if not self.offsets or end <= start:
            return start, end
        own, there, _ = self._before(start)
        last, at, entity_end = self._before(end - 1)
        return there + start - own, entity_end or at + end - last

    def _before(self, character: int) -> tuple[int, int, int]:
        return self.offsets[max(0, bisect_right(self.offsets, (character, 1 << 62, 0)) - 1)]


def extract(path: Path, encoding: str | None = None) -> Extract:
    """Read a file by its ending.

    Raises:
        DataError: it is missing, broken, encrypted, or no text.
        UsageError: a library is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in _PDF:
        return _pdf(path)
    text, _ = read_text(path, encoding or (_declared(path) if suffix in _HTML else None))
    if suffix in _MARKDOWN:
        return Extract(text, tuple(_markdown_sections(text)))
    if suffix in _HTML:
        return _HtmlReader(text).extract()
    return Extract(text, (Section((), 0, len(text)),))


def _declared(path: Path) -> str | None:
    """The encoding that a page declares, where it is no UTF-8 and Python has that encoding."""
    raw = read_bytes(path)
    declared = re.search(rb"""<meta[^>]+charset=["']?([\w-]+)""", raw[:2048], re.IGNORECASE)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        if declared and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            with suppress(LookupError):
                return codecs.lookup(declared[1].decode()).name
    return None


def _markdown_sections(text: str) -> Iterator[Section]:
    """Sections between headings; those in fenced code are none."""
    front = _FRONT_MATTER.match(text)
    start = front.end() if front else 0
    title = re.search(r"^title:[ \t]*(.+?)[ \t]*\r?$", front[1], re.MULTILINE) if front else None
    path: list[tuple[int, str]] = [(0, title[1].strip("'\""))] if title else []
    fence = ""
    position, paragraph = start, start  # where this line begins, and the paragraph that it may be part of
    for line in re.findall(r"[^\n]*\n|[^\n]+", text[start:]):  # not splitlines: U+2028 is text
        stripped = line.rstrip("\r\n")
        mark = _FENCE.match(stripped)
        heading: tuple[int, str, int] | None = None  # level, words, where its first line begins
        if fence:
            if mark and mark[1].startswith(fence) and not stripped.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        elif atx := _ATX.match(stripped):
            heading = len(atx[1]), atx[2] or "", position
        elif (rule := _SETEXT.match(stripped)) and text[paragraph:position].strip():
            heading = 1 if rule[1][0] == "=" else 2, text[paragraph:position], paragraph
        if heading is not None:
            level, words, begins = heading
            yield Section(tuple(words for _, words in path if words), start, begins)
            path = [(above, words) for above, words in path if above < level]
            words = _plain_heading(words)
            if not path or path[-1][1] != words:  # the page's title is often its first heading again
                path.append((level, words))
            start = position + len(line)
        position += len(line)
        if (
            heading is not None
            or not stripped.strip()
            or fence
            or mark
            or re.match(r" {0,3}([-*+>|]|\d+[.)])", stripped)
        ):
            paragraph = position
    yield Section(tuple(words for _, words in path if words), start, len(text))


def _plain_heading(markup: str) -> str:
    words = re.sub(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", markup)
    words = re.sub(r"\s*\{[#.:][^}]*\}\s*$", "", words)  # an anchor
    words = re.sub(r"<[^>]+>", "", words)
    return " ".join(re.sub(r"(\*\*|__|`|~~)", "", words).split())


_PARAGRAPHS = re.compile("address|article|blockquote|dl|div|figure|h[1-6]|main|ol|p|pre|section|table|ul")
_LINES = re.compile(
    "aside|body|br|caption|d[dt]|details|fieldset|figcaption|form|header|hr|html|li|summary|t(body|[dhr]|head|foot)"
)
_SKIPPED = re.compile("script|style|template|noscript|svg|nav|footer|head|iframe|object|select|button")


class _HtmlReader(HTMLParser):
    """The visible text with where it stands in the file; navigation, scripts and footers are left out."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=False)
        self._line_starts = [0, *(match.end() for match in re.finditer(r"\n", source))]
        self._parts: list[str] = []
        self._offsets: list[tuple[int, int, int]] = []
        self._length = 0
        self._skipping: list[str] = []
        self._pre = 0
        self._title: list[str] | None = None
        self._page_title = ""
        self._heading: tuple[int, list[str]] | None = None
        self._path: list[tuple[int, str]] = []
        self._sections: list[Section] = []
        self._section_start = 0
        self.feed(source)
        self.close()

    def extract(self) -> Extract:
        """The text, its sections, and their places in the file."""
        self._end_section()
        return Extract("".join(self._parts), tuple(self._sections), tuple(self._offsets))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self._page_title and "svg" not in self._skipping:
            self._title = []
        if _SKIPPED.fullmatch(tag):
            self._skipping.append(tag)
        if tag == "body":
            self._skipping.clear()  # a head that is never closed
        if self._skipping:
            return
        self._break(_blank_lines(tag))
        if tag == "pre":
            self._pre += 1
        if re.fullmatch(r"h[1-6]", tag):
            self._end_section()
            self._heading = int(tag[1]), []

    def handle_endtag(self, tag: str) -> None:
        if tag == "title" and self._title is not None:
            self._page_title, self._title = " ".join("".join(self._title).split()), None
        if tag in self._skipping:
            while self._skipping.pop() != tag:
                pass
            return
        if self._skipping:
            return
        if re.fullmatch(r"h[1-6]", tag) and self._heading is not None:
            level, words = self._heading
            self._path = [(above, heading) for above, heading in self._path if above < level]
            self._path.append((level, " ".join("".join(words).split())))
            self._heading = None
        self._break(_blank_lines(tag))
        if tag == "pre":
            self._pre = max(0, self._pre - 1)

    def handle_data(self, data: str) -> None:
        self._take(data, source_length=None)

    def handle_entityref(self, name: str) -> None:
        text = html.unescape(f"&{name};")
        if text == f"&{name};":  # no entity: an address with &name=
            text = f"&{name}"
        self._take(text, source_length=len(name) + 2)

    def handle_charref(self, name: str) -> None:
        self._take(html.unescape(f"&#{name};"), source_length=len(name) + 3)

    def _take(self, data: str, source_length: int | None) -> None:
        if self._title is not None:
            self._title.append(data)
            return
        if self._skipping:
            return
        if self._heading is not None:
            self._heading[1].append(data)
            return
        line, column = self.getpos()
        begin = self._line_starts[line - 1] + column
        if source_length is not None:
            self._append(data, begin, begin + source_length)
            return
        if self._pre:
            self._append(data, begin)
            return
        for match in re.finditer(r"\s+|\S+", data):
            if not match[0].isspace():
                self._append(match[0], begin + match.start())
            elif self._parts and not self._parts[-1].endswith((" ", "\n")):
                self._append(" ", begin + match.start())

    def _append(self, text: str, begin: int, entity_end: int = 0) -> None:
        self._offsets.append((self._length, begin, entity_end))
        self._parts.append(text)
        self._length += len(text)

    def _break(self, lines: int) -> None:
        if not lines or self._heading is not None or not self._parts:
            return
        have = len(self._parts[-1]) - len(self._parts[-1].rstrip("\n"))
        if have < lines:
            line, column = self.getpos()
            self._append("\n" * (lines - have), self._line_starts[line - 1] + column)

    def _end_section(self) -> None:
        headings = [heading for _, heading in self._path if heading]
        if not headings and self._page_title:
            headings = [self._page_title]
        self._sections.append(Section(tuple(headings), self._section_start, self._length))
        self._section_start = self._length


def _blank_lines(tag: str) -> int:
    """Line ends that a tag stands for: two around a paragraph, one around a line, none within."""
    if _PARAGRAPHS.fullmatch(tag):
        return 2
    return 1 if _LINES.fullmatch(tag) else 0


def _pdf(path: Path) -> Extract:
    """Pages of text with a blank line between them; a section a page would cut sentences, so there is one."""
    with needs_import_extra("a PDF"):
        import pypdf
    import logging

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its remarks about sloppy files are not a user's business
    try:
        pages = [page.extract_text() for page in pypdf.PdfReader(path).pages]
    except Exception as problem:  # broken files raise many kinds of errors in the library
        first = next(iter(str(problem).strip().splitlines()), "") or type(problem).__name__
        raise DataError(
            f"{path}: no PDF that can be read ({first}); remove it, or save it anew without a password"
        ) from problem
    text = "\n\n".join(page.strip() for page in pages)
    return Extract(text, (Section((), 0, len(text)),))
