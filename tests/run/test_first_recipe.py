"""``ranksaga init``: what lies in a folder becomes a recipe that a run accepts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ranksaga import cli
from ranksaga.config.load import load_recipe
from ranksaga.config.presets import PRESETS
from ranksaga.data.beir import read_beir, write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.run.first_recipe import look, recipe_text, reduce


def made(name: str, documents: int = 12, queries: int = 6) -> Dataset:
    corpus = Corpus(tuple(f"d{row}" for row in range(documents)), ("",) * documents, tuple("abcdefghijkl"[:documents]))
    asked = Queries(tuple(f"q{row}" for row in range(queries)), tuple(f"{row} {name}" * 3 for row in range(queries)))
    return Dataset(name, corpus, asked, {"test": Qrels.of([(row, row, 1) for row in range(queries)])})


def init(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ranksaga", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_what_lies_here_is_used(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_beir(made("pets"), here / "datasets" / "pets")
    write_beir(made("tools: #1"), here / "deep" / "tools: #1")
    write_beir(made("few", queries=1), here / "few")
    write_beir(made("pets"), here / "deep" / "pets")  # of the same name
    (here / "broken").mkdir()
    (here / "broken" / "corpus.jsonl").write_text("{}")
    (here / "broken" / "queries.jsonl").write_text("{}")
    (here / "faq.csv").write_text("question,answer\nwho swims?,fish swim\nwho flies?,birds fly\n")
    (here / "package.json").write_text(json.dumps({"name": "x", "version": "1"}))
    (here / "texts").mkdir()
    (here / "texts" / "a.md").write_text("# A\nb\n")
    for model in ("mine", "other"):
        (here / "models" / model).mkdir(parents=True)
        (here / "models" / model / "modules.json").write_text("[]")
    assert init("init", monkeypatch=monkeypatch) == 0
    recipe = load_recipe(here / "recipe.yaml", environment={})
    assert recipe.name == "my-shop"
    assert recipe.model == "./models/mine"
    assert recipe.datasets == ("pets", "./deep/tools: #1", "faq")
    assert recipe.guards == ("./few",)
    assert recipe.systems["best"] == PRESETS["best"]
    assert sorted(read_beir(here / "datasets" / "faq").queries.texts) == ["who flies?", "who swims?"]
    text = (here / "recipe.yaml").read_text()
    for remark in (
        "# Also here: ./models/other",
        "# Not used: broken is no sound dataset",
        "# Not used: package.json was not imported (package.json: no column looks like the query",
        "has the name of another dataset",
        "# texts holds texts: ranksaga datasets import texts --queries TABLE",
    ):
        assert remark in text
    capsys.readouterr()
    assert init("run", "recipe.yaml", "--dry-run", "--set", "model=minilm", monkeypatch=monkeypatch) == 0
    assert "to do" in capsys.readouterr().out
    assert init("init", monkeypatch=monkeypatch) == 2, "what is there is never overwritten"


@pytest.mark.parametrize("quick", [False, True])
def test_an_empty_folder_gets_a_recipe_on_what_every_machine_has(
    here: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    assert init("init", *(["--quick"] if quick else []), monkeypatch=monkeypatch) == 0
    recipe = load_recipe(here / "recipe.yaml", environment={})
    assert recipe.datasets == ("python:stdlib?limit=450",)
    assert recipe.max_length == (128 if quick else None)
    assert init("run", "recipe.yaml", "--dry-run", monkeypatch=monkeypatch) == 0


def test_quick_takes_a_part_of_what_is_large(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranksaga.run.first_recipe.QUICK_DOCUMENTS", 10)
    write_beir(made("pets"), here / "datasets" / "pets")
    assert init("init", "--quick", monkeypatch=monkeypatch) == 0
    recipe = load_recipe(here / "recipe.yaml", environment={})
    assert recipe.datasets == ("pets-quick",)
    assert recipe.systems["best"].max_steps == 300
    small = read_beir(here / "datasets" / "pets-quick")
    assert len(small.corpus) == 10
    assert look(here).datasets == ["pets"], "a part is no dataset of its own"
    assert "# Parts of the datasets" in (here / "recipe.yaml").read_text()


def test_a_part_keeps_all_judged_documents_of_its_queries_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    documents, queries = 3000, 900
    corpus = Corpus(tuple(f"d{row}" for row in range(documents)), ("",) * documents, tuple(map(str, range(documents))))
    asked = Queries(tuple(f"q{row}" for row in range(queries)), tuple(f"q {row}" for row in range(queries)))
    pairs = {(row, int(document)) for row in range(queries) for document in rng.integers(0, documents, 4)}
    parts = {"train": range(500), "dev": range(500, 600), "test": range(600, 900)}
    qrels = {
        split: Qrels.of([(query, document, 1 + query % 2) for query, document in pairs if query in rows])
        for split, rows in parts.items()
    }
    whole = Dataset("x", corpus, asked, qrels)
    small = reduce(whole, 800, seed=0)
    assert len(small.corpus) == 800
    for split, judged in small.qrels.items():
        assert 10 < len(judged.query_rows) <= 300
        expected = whole.qrels[split].only_queries(judged.query_rows)
        ids = [small.corpus.ids[document] for document in judged.documents]
        assert sorted(zip(judged.queries.tolist(), ids, judged.scores.tolist(), strict=True)) == sorted(
            (query, corpus.ids[document], score)
            for query, document, score in zip(
                expected.queries.tolist(), expected.documents.tolist(), expected.scores.tolist(), strict=True
            )
        )
    back = rng.permutation(documents)
    place = np.argsort(back).astype(np.int32)
    moved = {
        split: Qrels.of(
            list(zip(judged.queries.tolist(), place[judged.documents].tolist(), judged.scores.tolist(), strict=True))
        )
        for split, judged in qrels.items()
    }
    again = reduce(Dataset("x", corpus.only(back), asked, moved), 800, seed=0)
    assert set(again.corpus.ids) == set(small.corpus.ids)
    assert reduce(made("pets"), 100, seed=0).fingerprint == made("pets").fingerprint


@pytest.mark.parametrize("name", ["no", "1.0", "a: b", "it's #1", '"quoted"', "日本", "- x", "[x]"])
def test_any_name_is_a_value(name: str, tmp_path: Path) -> None:
    seen = look(tmp_path)
    seen.datasets.append(name)
    (tmp_path / "recipe.yaml").write_text(
        recipe_text(seen, name="x", file="recipe.yaml", quick=False), encoding="utf-8"
    )
    assert load_recipe(tmp_path / "recipe.yaml", environment={}).datasets == (name,)
