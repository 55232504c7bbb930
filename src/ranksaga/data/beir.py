"""Reading and writing the BEIR layout: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``.

The layout is that of BEIR (Thakur et al. 2021, https://arxiv.org/abs/2104.08663).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ranksaga.data.beir_files import Finding
from ranksaga.data.beir_parser import QRELS_HEADER, parse, qrels_files, split_of
from ranksaga.data.dataset import Dataset
from ranksaga.errors import DataError
from ranksaga.files import atomic_dir
from ranksaga.untrusted.escape import breaks_lines, is_name, shown
from ranksaga.untrusted.input_files import bounded_lines, open_regular

__all__ = ["Counts", "count_beir", "read_beir", "write_beir", "write_judgments", "write_records"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Size of a dataset; ``splits`` maps a split to (judged queries, judgments)."""

    documents: int
    queries: int
    splits: Mapping[str, tuple[int, int]]


def read_beir(path: Path, name: str | None = None) -> Dataset:
    """Read a dataset; all queries of queries.jsonl are kept, judged or not.

    Args:
        path: the dataset's folder; each ``qrels/*.tsv`` is a split.
        name: what the dataset is called; None: the folder's name.

    Raises:
        DataError: the first problem, with file, line and remedy; ``check_beir`` lists them all.
    """
    warnings: list[Finding] = []

    def report(finding: Finding) -> None:
        if finding.level == "error":
            raise DataError(f"{path}/{finding}")
        warnings.append(finding)

    name = name or path.resolve().name
    if not is_name(name):  # bytes of a file name that are not UTF-8 stand as halves of characters
        raise DataError(f"{shown(name)}: a dataset's name is UTF-8 text without control characters; rename the folder")
    dataset = parse(path, name, report)
    for finding in warnings[:1]:
        logger.warning("%s/%s (%d warnings in this dataset)", path, finding, len(warnings))
    return dataset


def write_beir(dataset: Dataset, path: Path) -> None:
    """Write a dataset as a folder that appears whole or not at all; an existing folder is replaced.

    Raises:
        DataError: an id or a text cannot be written in this layout.
    """
    corpus, queries = dataset.corpus, dataset.queries
    for identifier in (*corpus.ids, *queries.ids):
        if not identifier.strip() or breaks_lines(identifier):
            raise DataError(f"{dataset.name}: the id {identifier!r} is empty or has a tab or line break; rename it")
    try:
        with atomic_dir(path) as folder:
            documents = zip(corpus.ids, corpus.titles, corpus.texts, strict=True)
            write_records(folder / "corpus.jsonl", ({"_id": i, "title": t, "text": x} for i, t, x in documents))
            texts = zip(queries.ids, queries.texts, strict=True)
            write_records(folder / "queries.jsonl", ({"_id": i, "text": x} for i, x in texts))
            for split, qrels in dataset.qrels.items():
                rows = zip(qrels.queries.tolist(), qrels.documents.tolist(), qrels.scores.tolist(), strict=True)
                judged = ((queries.ids[query], corpus.ids[document], score) for query, document, score in rows)
                write_judgments(folder / "qrels" / f"{split}.tsv", judged)
    except UnicodeEncodeError as problem:
        raise DataError(f"{dataset.name}: a text has half of a character ({problem}); remove it") from problem


def write_records(path: Path, records: Iterable[Mapping[str, str]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_judgments(path: Path, judgments: Iterable[tuple[str, str, int]]) -> None:
    """Write (query id, document id, grade) as a qrels file with its header."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(QRELS_HEADER + "\n")
        for query, document, score in judgments:
            stream.write(f"{query}\t{document}\t{score}\n")


def count_beir(path: Path) -> Counts:
    """Count a dataset's lines without keeping or checking them: cheap enough for millions of documents.

    Raises:
        DataError: corpus.jsonl or queries.jsonl is missing.
    """
    splits = {}
    for file in qrels_files(path):
        judged = [line.partition(b"\t")[0] for line in _lines(file)][1:]
        splits[split_of(file.stem)] = (len(set(judged)), len(judged))
    return Counts(_count_lines(path / "corpus.jsonl"), _count_lines(path / "queries.jsonl"), splits)


def _count_lines(path: Path) -> int:
    if not path.is_file():
        raise DataError(f"{path}: the file is missing; a dataset needs corpus.jsonl, queries.jsonl and qrels/*.tsv")
    return sum(1 for _ in _lines(path))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open_regular(path) as stream:
            yield from (line for line in bounded_lines(stream) if not line.isspace())
    except (OSError, ValueError) as problem:
        raise DataError(f"{path}: cannot be read ({problem}); give another file") from problem
