"""Links of the project's own pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT)
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench*/**/*.md"))
    if ".venv" not in page.parts
)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_local_links_lead_to_a_file(page: Path) -> None:
    found = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in local if not (ROOT / page.parent / link).exists()] == []
