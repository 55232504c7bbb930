"""Hugging Face datasets, by local folder or id: pairs, triplets, or configurations corpus, queries and qrels.

A folder of tables is read as it is. One that names its configurations (a card, ``save_to_disk``) and an id on the hub
are read by the library ``datasets``.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ranksaga.data.importing.collections import corpus_of, join, queries_of, table_judgments
from ranksaga.data.importing.columns import Columns, assign
from ranksaga.data.importing.pairs import pairs_source, split_name
from ranksaga.data.importing.rows import Source, needs_import_extra, unknown_name
from ranksaga.data.importing.tables import TABLE_SUFFIXES, Table, read_table, table_of
from ranksaga.data.importing.text_files import suffix_of
from ranksaga.errors import DataError, DownloadError, UsageError
from ranksaga.files import files_below

__all__ = ["HUB", "hub_source", "is_hub_id", "is_tables_folder", "tables_source"]

HUB = "hf:"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
_SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")
_SPLIT_WORDS = re.compile(r"(?:^|[^a-z])(train|training|dev|development|val|valid|validation|test|eval)(?![a-z])")
_PART = re.compile(r"(corpus|documents|queries|qrels)(?![a-z])")

Tables = Mapping[str, Table]  # by split


def is_hub_id(name: str) -> bool:
    """Whether a name is one of the hub: ``hf:ORG/NAME``, or ``ORG/NAME`` and no path here."""
    return name.startswith(HUB) or (_HUB_ID.fullmatch(name) is not None and not Path(name).exists())


def is_tables_folder(folder: Path) -> bool:
    """Whether a folder holds a dataset of tables, and no texts of another kind."""
    if any((folder / name).is_file() for name in _SAVED):
        return True
    names = [Path(name) for name, _ in files_below(folder) if not name.startswith(".")]
    tables = [name for name in names if suffix_of(name) in TABLE_SUFFIXES]
    texts = [name for name in names if name.suffix.lower() in (".md", ".html", ".htm", ".txt", ".pdf")]
    texts = [name for name in texts if not re.match(r"readme|license", name.name.lower())]
    return bool(tables) and not texts


def tables_source(folder: Path, named: Columns, *, config: str | None, encoding: str | None) -> Source:
    """A local folder of tables.

    Raises:
        UsageError: there are several configurations and none was chosen, or a column is missing.
        DataError: a file is broken.
    """
    if any((folder / name).is_file() for name in _SAVED) or _card_has_configs(folder):
        return hub_source(str(folder), named, config=config)
    files = [
        path for name, path in files_below(folder) if suffix_of(path) in TABLE_SUFFIXES and not name.startswith(".")
    ]
    parts: dict[str, list[Path]] = {}
    for path in files:
        match = next((m for m in map(_PART.match, path.relative_to(folder).as_posix().lower().split("/")) if m), None)
        parts.setdefault(match[1].replace("documents", "corpus") if match else "", []).append(path)

    def read(paths: Sequence[Path]) -> Tables:
        by_split: dict[str, list[Table]] = {}
        for path in paths:
            words = _SPLIT_WORDS.findall(path.relative_to(folder).as_posix().lower())
            by_split.setdefault(words[-1] if words else "", []).append(read_table(path, encoding=encoding))
        return {split: _stacked(str(folder), tables) for split, tables in by_split.items()}

    if {"corpus", "queries", "qrels"} <= parts.keys():
        return _collection(str(folder), *(read(parts[part]) for part in ("corpus", "queries", "qrels")))
    return _pairs(str(folder), read(files), named)


def hub_source(name: str, named: Columns, *, config: str | None) -> Source:
    """A dataset that the library ``datasets`` reads, by id or folder.

    Raises:
        UsageError: the library is not installed, there are several configurations and none was chosen, or a column is
            missing.
        DataError: it cannot be read.
        DownloadError: it had to be downloaded and could not be.
    """
    with needs_import_extra("a dataset of Hugging Face"):
        import datasets
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the one line below says what it would
    identifier = name.removeprefix(HUB)
    local = Path(identifier).is_dir()
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    # A folder's tables are not kept a second time; a download is.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) if local else nullcontext() as cache:
        try:
            return _read_hub(datasets, identifier, named, config, cache)
        except (UsageError, DownloadError):
            raise
        except Exception as problem:  # whatever the library and its HTTP client raise; it changes between versions
            first = next(iter(str(problem).strip().splitlines()), "") or type(problem).__name__
            if local:
                raise DataError(
                    f"{name}: datasets cannot read it ({first}); name one of its files instead"
                ) from problem
            raise DownloadError(
                f"{name}: it cannot be had ({first}); check the id and the network (HF_HUB_OFFLINE?)"
            ) from problem
        finally:
            if not bars:
                datasets.enable_progress_bars()


def _read_hub(datasets: Any, name: str, named: Columns, config: str | None, cache: str | None) -> Source:
    folder = Path(name)
    if any((folder / saved).is_file() for saved in _SAVED):
        return _pairs(name, _tables(name, datasets.load_from_disk(name)), named)
    configs = list(datasets.get_dataset_config_names(name))

    def load(part: str, source: str = name) -> Tables:
        return _tables(f"{source} ({part})", datasets.load_dataset(source, part, cache_dir=cache))

    if config is None and {"corpus", "queries"} <= set(configs):
        judged = next((part for part in ("qrels", "default") if part in configs), None)
        if judged is not None:
            qrels = load(judged)
        else:  # BeIR/NAME keeps them in a repository of their own
            qrels = load(datasets.get_dataset_config_names(f"{name}-qrels")[0], f"{name}-qrels")
        return _collection(name, load("corpus"), load("queries"), qrels)
    chosen = config if config is not None else configs[0] if len(configs) == 1 else "default"
    if chosen not in configs:
        if config is not None:
            raise unknown_name(name, "configuration", config, configs)
        raise UsageError(f"{name}: it has the configurations {', '.join(configs)}; choose one with --config")
    return _pairs(name, load(chosen), named)


def _tables(name: str, loaded: Any) -> Tables:
    """The tables of what ``datasets`` loaded, by split; empty where there is none."""
    parts = loaded if isinstance(loaded, Mapping) else {"": loaded}
    return {
        split: table_of(name, "Hugging Face", part, (f"{split} row {row}" for row in range(1, len(part) + 1)))
        for split, part in parts.items()
        if len(part)
    }


def _stacked(name: str, tables: Sequence[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    columns = tuple(dict.fromkeys(column for table in tables for column in table.columns))
    records = [record for table in tables for record in table.records]
    places = [f"{Path(table.name).name}:{place}" for table in tables for place in table.places]
    return Table(name, tables[0].format, columns, records, places, sum(table.empty for table in tables))


def _pairs(name: str, tables: Tables, named: Columns) -> Source:
    """Pairs or triplets in one table a split."""
    if not tables:
        raise DataError(f"{name}: there is no row; expected tables of queries and documents")
    for table in tables.values():
        assign(table.name, table.columns, named, needed=("query", "document"))
    parts = [
        pairs_source(table, named, split=split_name(split, name) if split and len(tables) > 1 else "")
        for split, table in tables.items()
    ]
    left_out: Counter[str] = Counter()
    for part in parts:
        left_out.update(part.left_out)
    rows = ", ".join(f"{split or 'all'} {len(table.records)}" for split, table in tables.items())
    return Source(
        name,
        f"Hugging Face dataset ({next(iter(tables.values())).format}), rows: {rows}",
        parts[0].columns,
        _chained(parts, lambda part: part.documents),
        _chained(parts, lambda part: part.queries),
        _chained(parts, lambda part: part.judgments),
        dict(left_out),
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _chained(parts: Sequence[Source], column: Callable[[Source], Sequence[Any]]) -> list[Any]:
    return [row for part in parts for row in column(part)]


def _collection(name: str, corpus: Tables, queries: Tables, qrels: Tables) -> Source:
    """A corpus, queries and judgments in tables of their own, whatever split each of them is called."""
    counts: Counter[str] = Counter()
    declared = len(qrels) > 1 or "test" in qrels

    def lines() -> Iterator[tuple[str, str, int, str]]:
        for split, table in qrels.items():
            yield from table_judgments(table, split_name(split, name) if declared and split else "")

    documents = [document for table in corpus.values() for document in corpus_of(table, counts)]
    asked = [query for table in queries.values() for query in queries_of(table, counts)]
    columns = {
        "query": "queries",
        "document": "corpus",
        "judgments": f"qrels ({', '.join(filter(None, qrels)) or 'one split'})",
    }
    return join(
        name, "corpus, queries and qrels", documents, dict.fromkeys(asked), lines(), columns=columns, left_out=counts
    )


def _card_has_configs(folder: Path) -> bool:
    card = folder / "README.md"
    if not card.is_file():
        return False
    head = card.read_text(encoding="utf-8", errors="replace")
    return head.startswith("---") and re.search(r"^configs:", head.partition("\n---")[0], re.MULTILINE) is not None
