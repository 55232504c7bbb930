"""The project's own pages: links lead somewhere, and the log stays readable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOG = ROOT / "docs/log"
ENTRY = re.compile(r"\d{4}-\d{2}-\d{2}-[a-z0-9-]+\.md")
PAGES = sorted(
    page.relative_to(ROOT)
    for page in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("bench*/**/*.md"),
    )
    if ".venv" not in page.parts
)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", without_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or headings that do not exist; links to the web are not followed."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_local_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    assert broken_links(ROOT / page) == []


def test_a_broken_link_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Here, and now\n[a](page.md) [b](#here-and-now) [c](#gone) [d](gone.md) [e](https://example.org)\n"
        "```\n[f](code.md)\n```\n",
        encoding="utf-8",
    )
    assert broken_links(page) == ["#gone", "gone.md"]


def test_no_page_or_source_names_the_old_log() -> None:
    files = [ROOT / page for page in PAGES] + [
        path for folder in ("src", "bench", "benchmarking") for path in (ROOT / folder).rglob("*.py")
    ]
    assert [str(path) for path in files if re.search(r"\blog\.md\b", path.read_text(encoding="utf-8"))] == []


def test_the_log_is_one_file_a_date_and_topic_and_its_index_names_them_all() -> None:
    entries = {page.name for page in LOG.glob("*.md")} - {"README.md"}
    assert [name for name in entries if not ENTRY.fullmatch(name)] == []
    linked = re.findall(r"\]\(([^)]+)\)", (LOG / "README.md").read_text(encoding="utf-8"))
    assert len(linked) == len(set(linked))
    assert set(linked) == entries


@pytest.mark.parametrize("page", sorted(LOG.glob("*.md")), ids=lambda page: page.name)
def test_an_entry_of_the_log_is_short(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text) <= 8_000, "split it by topic"
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 600] == [], "short paragraphs, lists or tables"
