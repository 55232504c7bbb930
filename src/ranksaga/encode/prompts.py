"""Which words stand before a query and before a document.

Leaving them out is the commonest way to score a good model badly (microsoft/unilm #1325:
TREC-COVID 51.0 without E5's prefixes, 79.6 with them). A checkpoint on disk often forgets
them, so they are looked up in this order: told by the user; the model's own
``config_sentence_transformers.json``; the family that its name, its card or its config names; none.
Of a path only the last part is a name: a folder of experiments with E5 holds other models too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranksaga.untrusted.input_files import open_regular
from ranksaga.untrusted.yaml_input import LARGEST, YamlError, read_yaml

__all__ = ["FAMILIES", "Family", "Prompts", "find_prompts", "name_hints"]


@dataclass(frozen=True)
class Prompts:
    """Texts put before queries and documents, and where they come from."""

    query: str = ""
    document: str = ""
    source: str = "none"


@dataclass(frozen=True)
class Family:
    """Models that share prompts; ``pattern`` is searched in a model's name without its owner, case ignored.

    A ``plain`` family is named after an architecture, which a model of another family can have as well (Multilingual
    E5 small is a MiniLM): it counts where no name tells of another.
    """

    name: str
    pattern: str
    query: str
    document: str = ""
    plain: bool = False


_SEARCH = "Represent this sentence for searching relevant passages: "
_WEB = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "

# From the model cards. Order matters: the first match wins.
FAMILIES: tuple[Family, ...] = (
    Family("E5 (instruct)", r"(^|[._-])e5[_-]([a-z0-9._-]*instruct|mistral)", _WEB),
    Family("E5", r"(^|[._-])e5[_-](small|base|large)", "query: ", "passage: "),
    Family("BGE (English, v1 and v1.5)", r"bge-(small|base|large)-en", _SEARCH),
    Family("BGE (Chinese)", r"bge-(small|base|large)-zh", "为这个句子生成表示以用于检索相关文章："),
    Family("BGE-M3", r"bge-m3", ""),
    Family("GTE-Qwen", r"gte-qwen", _WEB),
    Family("GTE", r"(^|[._-])gte[_-]", ""),
    Family("Nomic", r"nomic-embed-text|modernbert-embed", "search_query: ", "search_document: "),
    Family("Arctic Embed v2", r"snowflake-arctic-embed-[a-z]+-v2", "query: "),
    Family("Arctic Embed", r"snowflake-arctic-embed", _SEARCH),
    Family("mxbai", r"mxbai-embed", _SEARCH),
    Family("Qwen3-Embedding", r"qwen3-embedding", _WEB.replace("\nQuery: ", "\nQuery:")),
    Family("EmbeddingGemma", r"embeddinggemma", "task: search result | query: ", "title: none | text: "),
    Family("UAE", r"uae-large", _SEARCH),
    Family(
        "Instructor",
        r"(^|[._-])instructor-",
        "Represent the question for retrieving supporting documents: ",
        "Represent the document for retrieval: ",
    ),
    Family("MiniLM, MPNet and other plain models", r"minilm|mpnet|contriever|msmarco-|simcse|multi-qa", "", plain=True),
)

# Keys under which sentence-transformers models store the two roles, most telling first.
_QUERY_KEYS = ("query", "s2p_query", "retrieval.query", "web_search_query", "search_query")
_DOCUMENT_KEYS = ("document", "passage", "corpus", "retrieval.passage", "search_document")


def find_prompts(
    configured: dict[str, str], hints: tuple[str, ...], query: str | None = None, document: str | None = None
) -> Prompts:
    """Choose the prompts of a model.

    Args:
        configured: the model's own prompts (sentence-transformers ``model.prompts``).
        hints: names that the model goes by, see :func:`name_hints`.
        query: the user's word for queries, which wins; ``None`` where the user said nothing.
        document: likewise for documents.
    """
    found = _from_config(configured) or _from_family(hints) or Prompts()
    if query is None and document is None:
        return found
    return Prompts(found.query if query is None else query, found.document if document is None else document, "recipe")


def name_hints(name: str, folder: Path | None) -> tuple[str, ...]:
    """Names a model goes by: its own, and for a local copy those in its card and its config, most telling first."""
    if folder is None:
        return (name,)
    config = _json(folder / "config.json") or _json(folder / "0_Transformer" / "config.json")
    names = [_named(name), _named(str(folder.resolve())), *_on_card(folder / "README.md")]
    names.append(_named(str(config.get("_name_or_path", ""))))
    return tuple(one for one in dict.fromkeys(names) if one)


def _named(path: str) -> str:
    """The name in a path or a hub id; in the Hugging Face cache it stands above the snapshot."""
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    if len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    is_id = len(parts) == 2 and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) is not None
    return path if is_id else parts[-1] if parts else ""


def _on_card(card: Path) -> Iterator[str]:
    """What the front matter of a model card names: the model itself, what it was trained from, its tags."""
    try:
        with open_regular(card) as stream:
            text = stream.read(LARGEST).decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    except OSError:
        return
    front = re.match(r"---[ \t]*\n(.*?)^---[ \t]*$", text, re.DOTALL | re.MULTILINE)
    try:
        values = read_yaml(front[1]).value if front else None
    except YamlError:
        return
    if not isinstance(values, dict):
        return
    yield from _texts(values.get("model_name"))
    index = values.get("model-index")
    for entry in index if isinstance(index, list) else [index]:
        yield from _texts(entry.get("name") if isinstance(entry, dict) else entry)
    yield from _texts(values.get("base_model"))
    # A tag may name the model trained from, as "base_model:finetune:intfloat/e5-base".
    yield from (tag.rsplit(":", 1)[-1] for tag in _texts(values.get("tags")))


def _texts(value: Any) -> list[str]:
    """A card's value that is one text, or several."""
    return [_named(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _from_config(configured: dict[str, str]) -> Prompts | None:
    query = next((configured[key] for key in _QUERY_KEYS if configured.get(key)), "")
    document = next((configured[key] for key in _DOCUMENT_KEYS if configured.get(key)), "")
    if not query and not document:
        return None
    return Prompts(query, document, "model config")


def _from_family(hints: tuple[str, ...]) -> Prompts | None:
    for plain in (False, True):
        for hint in hints:
            for family in FAMILIES:
                if family.plain == plain and re.search(family.pattern, hint.rsplit("/", 1)[-1], re.IGNORECASE):
                    return Prompts(family.query, family.document, f"known family: {family.name}")
    return None


def _json(path: Path) -> dict[str, object]:
    try:
        with open_regular(path) as stream:
            value = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
