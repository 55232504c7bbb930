"""The project's own pages: links lead somewhere, and the log stays readable."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from ranksaga.cli import app

ROOT = Path(__file__).parents[1]
LOG = ROOT / "docs/log"
ENTRY = re.compile(r"\d{4}-\d{2}-\d{2}-[a-z0-9-]+\.md")
PAGES = sorted(
    page.relative_to(ROOT)
    for page in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("bench*/**/*.md"),
        *ROOT.glob("studies/*.md"),
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


RESULTS = ROOT / "benchmarking/results/offline-study/comparison_table.csv"
MARKS = {"improved": "*", "regressed": "!"}


def printed(row: dict[str, str]) -> str:
    """A row of the study as the pages show it: the value, the change and its mark."""
    value = f"{float(row['value']):.4f}"
    if not row["change_pct"]:
        return value
    return f"{value} ({float(row['change_pct']):+.1f}%{MARKS.get(row['verdict'], '')})"


@pytest.mark.parametrize(
    ("page", "systems"),
    [
        ("README.md", ["baseline", "best", "baseline_hybrid", "hybrid"]),
        ("docs/results.md", ["baseline", "v1", "v2", "best", "baseline_hybrid", "hybrid"]),
    ],
)
def test_the_results_shown_are_those_of_the_study(page: str, systems: list[str]) -> None:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = {(row["dataset"], row["system"]): row for row in csv.DictReader(file) if row["metric"] == "ndcg_at_10"}
    text = (ROOT / page).read_text(encoding="utf-8").partition("## An E5")[0]
    table = {name: cells for name, cells in table_rows(text) if (name, "baseline") in rows}
    datasets = list(dict.fromkeys(dataset for dataset, _ in rows))
    assert table == {dataset: [printed(rows[dataset, system]) for system in systems] for dataset in datasets}


def table_rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """First word and further cells of every line of a table."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0]:
            yield cells[0].split()[0], cells[1:]


def test_the_reduced_studies_shown_are_those_that_were_run() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").partition("## An E5")[2].partition("\n## ")[0]
    table = dict(table_rows(text))
    changes: dict[str, list[float]] = {}
    for model in ("minilm", "e5"):
        path = RESULTS.parents[1] / f"reduced-{model}" / "comparison_table.csv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = {(r["dataset"], r["system"]): r for r in csv.DictReader(file) if r["metric"] == "ndcg_at_10"}
        for system in ("best", "baseline_hybrid", "hybrid"):
            column = 3 * (model == "e5") + ["best", "baseline_hybrid", "hybrid"].index(system)
            for name in ("scifact", "nfcorpus", "cosqa", "cranfield", "cisi", "cystic-fibrosis"):
                row = rows[name, system]
                mark = "*" if row["verdict"] == "improved" else ""
                assert table[name][column] == f"{float(row['change_pct']):+.1f}%{mark}"
                changes.setdefault(f"{model} {system}", []).append(float(row["change_pct"]))
            assert table["mean"][column] == f"{sum(changes[f'{model} {system}'][:4]) / 4:+.1f}%"


PRESENT = [page for page in PAGES if page.parts[:2] != ("docs", "log")]  # the log tells of commands of its day


def unknown_words(line: str) -> list[str]:
    """The words of a line after ``ranksaga`` that are no command or option of it."""
    command = get_command(app)
    words = line.split()
    while isinstance(command, TyperGroup) and words:
        word = words.pop(0)
        if word not in command.commands:
            return [word]
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return [word for word in words if re.match(r"\[?--?[a-z]", word) and word.strip("[]") not in known]


@pytest.mark.parametrize("page", PRESENT, ids=str)
def test_every_command_shown_exists(page: Path) -> None:
    lines = re.findall(r"(?:^|`)ranksaga ([a-z][^`\n#]*)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert {line: unknown for line in lines if (unknown := unknown_words(line))} == {}


def test_a_command_that_does_not_exist_is_reported() -> None:
    assert unknown_words("datasets check mydata") == []
    assert unknown_words("run recipe.yaml --on ray --detach") == []
    assert unknown_words("datasets shew mydata") == ["shew"]
    assert unknown_words("run recipe.yaml --from train --wait") == ["--wait"]


@pytest.mark.parametrize("page", PRESENT, ids=str)
def test_every_file_and_make_target_shown_exists(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w/.-])(?:bench|benchmarking|studies|src|tests|docs)/[\w./-]*\w", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make (\w+)", text, flags=re.MULTILINE)) <= set(targets)
