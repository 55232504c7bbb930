"""Prompts are found in the model's config, else by its family, also for a local copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ranksaga.encode.prompts import Prompts, find_prompts, name_hints


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("intfloat/e5-base-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-m3", "", ""),
        ("thenlper/gte-base", "", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("Snowflake/snowflake-arctic-embed-m-v2.0", "query: ", ""),
        ("Snowflake/snowflake-arctic-embed-m", "Represent this sentence for searching relevant passages: ", ""),
        ("mixedbread-ai/mxbai-embed-large-v1", "Represent this sentence for searching relevant passages: ", ""),
        ("google/embeddinggemma-300m", "task: search result | query: ", "title: none | text: "),
        ("sentence-transformers/all-MiniLM-L6-v2", "", ""),
    ],
)
def test_known_families(name: str, query: str, document: str) -> None:
    found = find_prompts({"query": "", "document": ""}, (name,))
    assert (found.query, found.document) == (query, document)
    assert found.source.startswith("known family")


def test_the_models_own_prompts_win_over_the_family() -> None:
    found = find_prompts({"query": "q> ", "passage": "d> "}, ("intfloat/e5-base-v2",))
    assert found == Prompts("q> ", "d> ", "model config")


def test_the_users_word_wins_and_an_empty_prompt_is_a_word() -> None:
    assert find_prompts({"query": "q> "}, ("x",), query="") == Prompts("", "", "recipe")


def test_an_unknown_model_has_none() -> None:
    assert find_prompts({}, ("acme/thing",)) == Prompts("", "", "none")


def test_a_local_copy_is_known_by_its_config_or_card(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "intfloat/e5-base-v2"}))
    assert find_prompts({}, name_hints("/models/mine", tmp_path)).document == "passage: "
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\nbase_model: nomic-ai/nomic-embed-text-v1\n---\n")
    assert find_prompts({}, name_hints("/models/mine", tmp_path)).query == "search_query: "
    (tmp_path / "README.md").write_text("---\nbase_model:\n- intfloat/e5-large\n---\n")
    assert find_prompts({}, name_hints("/models/mine", tmp_path)).query == "query: "


E5 = ("query: ", "passage: ")
SEARCH = "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nmodel-index:\n- name: intfloat/e5-base-v2\n  results:\n  - dataset:\n      name: x\n---\n# T", E5),
        ("---\nmodel-index:\n  - {name: e5-small-v2, results: []}\n---\n", E5),
        ("---\r\nbase_model: intfloat/e5-base\r\n---\r\n", E5),
        ("\ufeff---\nbase_model: [BAAI/bge-m3x, BAAI/bge-small-en]\n---\n", ("", "")),
        ("---\nbase_model:\n  - BAAI/bge-small-en-v1.5\n---\n", (SEARCH, "")),
        ("---\nbase_model: /home/me/models/e5-large\n---\n", E5),
        ("---\ntags: [x, 'base_model:finetune:intfloat/multilingual-e5-base']\n---\n", E5),
        # Not names of the model: a dataset of its results, a text below the front matter, a parent folder, no YAML.
        ("---\nmodel-index:\n- name: x\n  results:\n  - dataset: {name: e5-base}\n---\n", ("", "")),
        ("---\ntags: [x]\n---\nbase_model: intfloat/e5-base\nname: intfloat/e5-base\n", ("", "")),
        ("---\nbase_model: /data/e5-base/my-bert\n---\n", ("", "")),
        ("base_model: intfloat/e5-base\n", ("", "")),
        ("---\nbase_model: [intfloat/e5-base\n---\n", ("", "")),
        ("---\n- base_model\n---\n", ("", "")),
        ("---\nbase_model: 5\ntags: {a: b}\ndate: 2024-99-99\n---\n", ("", "")),
        ("---\nbase_model: intfloat/e5-base", ("", "")),
        ("", ("", "")),
    ],
)
def test_the_front_matter_of_a_card_is_read_as_yaml(card: str, expected: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8", newline="")
    found = find_prompts({}, name_hints("/models/mine", tmp_path))
    assert (found.query, found.document) == expected


def test_a_long_card_is_read_to_its_end(tmp_path: Path) -> None:
    results = "".join(f"  - dataset: {{name: set {row}}}\n" for row in range(3000))
    (tmp_path / "README.md").write_text(f"---\nmodel-index:\n- results:\n{results}  name: e5-small\n---\n")
    assert find_prompts({}, name_hints("/models/mine", tmp_path)).query == "query: "


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/e5-experiments/minilm", ("", "")),
        ("home/e5-base/my-bert", ("", "")),
        ("e5-base/checkpoint", ("", "")),
        ("models/e5-base-v2", E5),
        ("models/e5-base-v2/", E5),
        ("models/my-e5-small-finetuned", E5),
        ("models/ours_e5_large", E5),
        ("models/me5-basement", ("", "")),
        ("models--intfloat--e5-base-v2/snapshots/f52bf8ec8c7124536f0efb74aca902b2995e5bcd", E5),
        ("models--acme--bert/snapshots/e5-base", ("", "")),
        ("e5-base/snapshots/f52bf8ec", ("", "")),
    ],
)
def test_only_the_last_part_of_a_path_is_a_name(path: str, expected: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / path
    folder.mkdir(parents=True)
    for name in (f"{tmp_path}/{path}", path):
        found = find_prompts({}, name_hints(name, folder))
        assert (found.query, found.document) == expected
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": f"/somewhere/{path}"}))
    found = find_prompts({}, name_hints("/models/mine", tmp_path))
    assert (found.query, found.document) == expected


def test_an_owner_is_no_name() -> None:
    assert find_prompts({}, name_hints("e5-base/bert", None)) == Prompts("", "", "none")


def test_a_family_of_an_architecture_gives_way_to_any_other(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "microsoft/Multilingual-MiniLM-L12-H384"}))
    (tmp_path / "README.md").write_text("---\nmodel-index:\n- name: intfloat/multilingual-e5-small\n---\n")
    assert find_prompts({}, name_hints("/models/my-minilm", tmp_path)).query == "query: "
