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
