"""A whole run in which every name, id, text and prompt tries to be more than text, read back by real parsers."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml

from ranksaga.config.load import load_recipe
from ranksaga.config.recipe import Recipe
from ranksaga.data.beir import write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.run.console import Terminal
from ranksaga.run.pipeline import run_recipe

TESTS = Path(__file__).parents[1]
HOSTILE: tuple[str, ...] = runpy.run_path(str(TESTS / "untrusted" / "hostile_texts.py"))["HOSTILE"]
NAMES = ("=1+1|[a](javascript:1)<b onload=1>", "@`$x$ \u202ey --- # {{7*7}}", "-- [c]: x ![i](http:x) 'q' &lt;")
PROMPT = "```\n# forged\n---\nbase_model: evil\x1b[2J\u202e\x85<script>alert(1)</script>|x"
SETTINGS = {"epochs": 1, "max_steps": 2, "batch_size": 4}
TOKENS = {"HF_TOKEN": "hf_neverwritten", "AWS_SECRET_ACCESS_KEY": "aws-neverwritten"}
QUERIES = 16


def dataset(name: str, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"word{word}" for word in rng.choice(60, 8, replace=False)) for _ in range(QUERIES)]
    attached = [HOSTILE[(row + 16 * seed) % len(HOSTILE)].replace("\ud800", "") for row in range(QUERIES)]
    plain = [" ".join(one.split()) for one in attached]  # tabs and line ends are refused when a dataset is read
    documents = tuple(f"{one} {row}" for row, one in enumerate(plain))
    queries = tuple(f"{one} q{row}" for row, one in enumerate(plain))
    return Dataset(
        name,
        Corpus(documents, tuple(attached), tuple(f"{text} {one}" for text, one in zip(texts, attached, strict=True))),
        Queries(
            queries, tuple(" ".join(text.split()[:4]) + " " + one for text, one in zip(texts, attached, strict=True))
        ),
        {
            "train": Qrels.of([(row, row, 1) for row in range(8)]),
            "test": Qrels.of([(row, row, 1) for row in range(8, 16)]),
        },
    )


def acts(character: str) -> bool:
    if character in "\t\n":
        return False
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in bidi


class Page(HTMLParser):
    """Names of tags and attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(name for name, _ in attributes)}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_run_of_hostile_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval is not installed (extra [dev])")
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    monkeypatch.setenv("RANKSAGA_HOME", str(tmp_path / "home"))
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    helpers = runpy.run_path(str(TESTS / "train" / "tiny_training.py"))
    model = shutil.move(helpers["build_tiny_bert"](tmp_path / "made"), tmp_path / "=m|[x](y) <i>`*_")
    sets = [dataset(name, seed) for seed, name in enumerate(NAMES)]
    for one in sets:
        write_beir(one, tmp_path / "data" / one.name)
    recipe = Recipe.model_validate(
        {
            "name": "hostile",
            "model": str(model),
            "datasets": [str(tmp_path / "data" / name) for name in NAMES[:2]],
            "guards": [str(tmp_path / "data" / NAMES[2])],
            "query_prompt": PROMPT,
            "leakage": "report",
            "systems": {"mine": {"method": "labelled", **SETTINGS}},
        }
    )
    out = tmp_path / "run"
    outcome = run_recipe(recipe, out, Terminal())
    printed = "".join(capfd.readouterr())
    assert not any(map(acts, printed.replace("\r", "")))
    assert all(name.replace("\u202e", "\\u202e") in printed for name in NAMES)
    assert outcome.text()

    # Nothing of the environment's tokens is in any file.
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert b"neverwritten" not in content, path

    # The recipe and the record are exact.
    assert load_recipe(out / "recipe.yaml", environment={}) == recipe
    assert json.loads((out / "run.json").read_text())["recipe"]["query_prompt"] == PROMPT

    # Tables: every dataset under its name, every cell in its column, no formula.
    with (out / "comparison_table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["dataset"] for row in rows} == {f"'{name}".replace("\u202e", "\\u202e") for name in NAMES}
    assert all(0 <= float(row["value"]) <= 1 and None not in row for row in rows)

    # Runs: trec_eval's parser sees the ids of the dataset and no others.
    runs = sorted((out / "rankings").glob("mine.*.trec"))
    assert len(runs) == 3
    seen: set[str] = set()
    for path in runs:
        with path.open(encoding="utf-8") as stream:
            for query, ranked in pytrec_eval.parse_run(stream).items():
                seen |= {unquote(query), *map(unquote, ranked)}
    known = {unquote(one) for each in sets for one in (*each.corpus.ids, *each.queries.ids)}
    assert seen <= known
    assert len(seen & known) >= 3 * 8

    # Markdown: report and card.
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse((out / "comparison_report.md").read_text(encoding="utf-8"))
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close", "image"}
    assert [token.type for token in tokens].count("fence") == 1
    _, head, body = (out / "model" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == str(model)
    kinds = {child.type for token in parser.parse(body) for child in token.children or ()}
    assert kinds <= {"text", "text_special"}

    # The page: no tag, attribute or acting character but ours.
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.names & {"img", "b", "i", "onload", "onerror", "src"}
    assert not any(map(acts, text))
    assert all(name.replace("\u202e", "\\u202e") in page.text for name in NAMES)
    for name in ("comparison_report.md", "comparison_table.csv", "model/README.md", "recipe.yaml"):
        assert not any(map(acts, (out / name).read_text(encoding="utf-8"))), name
