"""Documents are never longer than asked, lose no word, and end where a reader would pause."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from ranksaga.data.importing.chunking import Tokens, cut, title_of
from ranksaga.data.importing.extract import extract
from ranksaga.errors import DataError, UsageError


def by_words(limit: int) -> Tokens:
    """Words and signs, and two special tokens."""
    pattern = re.compile(r"\w+|[^\w\s]")
    return Tokens(
        limit,
        lambda texts: [len(pattern.findall(text)) + 2 for text in texts],
        lambda text: [match.end() for match in pattern.finditer(text)],
    )


def pieces(text: str, limit: int, title: str = "") -> list[str]:
    return [text[start:end] for start, end in cut(text, 0, len(text), title, by_words(limit))]


def test_a_cut_is_at_the_best_place() -> None:
    assert pieces("one two three.\n\nfour five six seven", 8) == ["one two three.", "four five six seven"]
    assert pieces("one two three\nfour five six seven", 7) == ["one two three", "four five six seven"]
    assert pieces("One two three. Four five six.", 8) == ["One two three.", "Four five six."]
    assert pieces("one two three four five six seven", 6) == ["one two three four", "five six seven"]
    assert pieces("一二三。四五六", 4) == ["一二三。", "四五六"]
    assert pieces("  \n one \n ", 3) == ["one"]
    assert pieces(" \n ", 3) == []


def test_the_title_counts() -> None:
    assert pieces("a b c d", 8, title="T U") == ["a b c d"]
    assert pieces("a b c d", 6, title="T U") == ["a b", "c d"]
    with pytest.raises(UsageError, match="no room"):
        pieces("a b", 4, title="T U")


def test_a_long_path_loses_its_outermost_headings() -> None:
    assert title_of(["Install", "Windows"], by_words(20)) == "Install > Windows"
    assert title_of(["Install", "Windows"], by_words(8)) == "Windows"
    assert title_of(["a b c d e f g"], by_words(8)) == ""


@pytest.mark.parametrize("limit", [3, 5, 17, 64])
def test_no_word_is_lost_and_none_is_twice(limit: int) -> None:
    rng = random.Random(limit)
    blanks = [" ", " ", " ", ". ", "\n", "\n\n", "  ", ", "]
    text = "".join(f"{rng.choice('abcde') * rng.randint(1, 9)}{rng.choice(blanks)}" for _ in range(400))
    spans = cut(text, 0, len(text), "", by_words(limit))
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert " ".join(text[start:end] for start, end in spans).split() == text.split() or limit < 4
    assert "".join("".join(text[start:end] for start, end in spans).split()) == "".join(text.split())
    assert max(by_words(limit).count([text[start:end] for start, end in spans])) <= limit


def test_a_part_with_more_tokens_than_in_the_whole_still_fits() -> None:
    def count(texts: object) -> list[int]:
        assert isinstance(texts, list)
        return [len(text.split()) * 2 + 2 for text in texts]  # twice what `ends` says

    tokens = Tokens(10, count, lambda text: [match.end() for match in re.finditer(r"\S+", text)])
    text = " ".join(f"w{number}" for number in range(30))
    spans = cut(text, 0, len(text), "", tokens)
    assert " ".join(text[start:end] for start, end in spans) == text
    assert max(count([text[start:end] for start, end in spans])) <= 10


HEADINGS: dict[str, tuple[str, list[tuple[tuple[str, ...], str]]]] = {
    "levels": ("a\n# A\nb\n### B\nc\n## C\nd", [((), "a"), (("A",), "b"), (("A", "B"), "c"), (("A", "C"), "d")]),
    "closed": ("# A `x` [y](z) #\nb", [(("A x y",), "b")]),
    "no heading": ("#hashtag\n    # code\n\\# c", [((), "#hashtag\n    # code\n\\# c")]),
    "fences": ("~~~\n# a\n```\n~~~\n# B\nc", [((), "~~~\n# a\n```\n~~~"), (("B",), "c")]),
    "underlined": ("A\n=\nb\n\nC\nD\n-\ne", [(("A",), "b"), (("A", "C D"), "e")]),
    "rule": ("a\n\n---\nb\n- c\n---\nd", [((), "a\n\n---\nb\n- c\n---\nd")]),
    "front": ("---\ntitle: 'T'\n---\na\n# B\nc", [(("T",), "a"), (("T", "B"), "c")]),
    "returns": ("# A\r\nb\r\n", [(("A",), "b")]),
    "open fence": ("```\n# a\nb", [((), "```\n# a\nb")]),
}


@pytest.mark.parametrize("case", HEADINGS)
def test_headings_of_markdown(case: str, tmp_path: Path) -> None:
    text, expected = HEADINGS[case]
    (tmp_path / "x.md").write_bytes(text.encode())
    read = extract(tmp_path / "x.md")
    sections = [(one.headings, read.text[one.start : one.end].strip()) for one in read.sections]
    assert [section for section in sections if section[1]] == expected


PAGES: dict[str, tuple[str, list[tuple[tuple[str, ...], str]]]] = {
    "title": ("<head><title>A &amp; B</title></head><body><p>c</p>", [(("A & B",), "c")]),
    "blocks": ("<h1>A</h1><p>b<br>c</p><ul><li>d<li>e</ul>f", [(("A",), "b\nc\n\nd\ne\n\nf")]),
    "inline": ("<p>a<b>b</b> <i>c</i>\n d</p>", [((), "ab c d")]),
    "code": ("<pre>a\n  b</pre>", [((), "a\n  b")]),
    "hidden": ("<script>x<p></script><style>y</style><nav>z</nav><footer>w</footer>a<!-- b -->", [((), "a")]),
    "levels": ("<h1>A</h1>a<h2>B <i>C</i></h2>b<h1>D</h1>d", [(("A",), "a"), (("A", "B C"), "b"), (("D",), "d")]),
    "entities": ("<p>&lt;a&gt; &eacute;&#x41;&nbsp;&copy;?a=1&b=2", [((), "<a> éA\xa0©?a=1&b=2")]),
    "broken": ("<p>a<div>b</p></section>c", [((), "a\n\nb\n\nc")]),
}


@pytest.mark.parametrize("case", PAGES)
def test_text_of_pages(case: str, tmp_path: Path) -> None:
    text, expected = PAGES[case]
    (tmp_path / "x.html").write_text(text)
    read = extract(tmp_path / "x.html")
    sections = [(one.headings, read.text[one.start : one.end].strip()) for one in read.sections]
    assert [section for section in sections if section[1]] == expected


def test_a_page_says_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "x.html").write_bytes('<meta charset="iso-8859-2"><p>Łódź</p>'.encode("iso-8859-2"))
    assert extract(tmp_path / "x.html").text.strip() == "Łódź"


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_bytes(b"%PDF-1.4")
    with pytest.raises(DataError, match="expected text, found a PDF"):
        extract(tmp_path / "x.md")
