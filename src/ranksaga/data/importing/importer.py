"""From a source's name to a dataset on disk: what it is, what it holds, and the files that are written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import shorten

from ranksaga.data.beir import write_beir
from ranksaga.data.importing.assemble import Assembled
from ranksaga.data.importing.chunking import Tokens
from ranksaga.data.importing.collections import IRDS, irds_source, is_llama_index, llama_index_source
from ranksaga.data.importing.columns import Columns
from ranksaga.data.importing.extract import TEXT_SUFFIXES
from ranksaga.data.importing.folders import folder_source, has_texts
from ranksaga.data.importing.hub_datasets import hub_source, is_hub_id, is_tables_folder, tables_source
from ranksaga.data.importing.pairs import pairs_source
from ranksaga.data.importing.rows import Chunk, Document, Source
from ranksaga.data.importing.tables import TABLE_SUFFIXES, read_json_value, read_table
from ranksaga.data.importing.text_files import suffix_of
from ranksaga.data.importing.trec import find_trec_files, is_sgml, trec_source
from ranksaga.errors import DataError, UsageError
from ranksaga.files import atomic_dir, atomic_open
from ranksaga.untrusted.escape import one_line

__all__ = ["CHUNKS", "Options", "describe", "describe_result", "read_chunks", "understand", "write_dataset"]

CHUNKS = "chunks.jsonl"
EXAMPLES = 3


@dataclass(frozen=True)
class Options:
    """What the user said about a source, beside its name.

    Attributes:
        named: columns.
        config: of a Hugging Face dataset.
        sheet: of a workbook.
        encoding: of text files.
        topics: of a TREC collection.
        qrels: of a TREC collection, one or one a split.
        queries: a table of questions about the files of a folder.
        tokens: how long documents cut from a folder may be; called only where there is something to cut.
    """

    tokens: Callable[[], Tokens]
    named: Columns = field(default_factory=Columns)
    config: str | None = None
    sheet: str | None = None
    encoding: str | None = None
    topics: Path | None = None
    qrels: tuple[Path, ...] = ()
    queries: Path | None = None


def understand(source: str, options: Options) -> Source:
    """Read a source of any kind.

    Raises:
        DataError: it is missing or broken. The message names the line where there is one.
        UsageError: what the user said does not fit it, or a library is not installed.
        DownloadError: it had to be downloaded and could not be.
    """
    path = Path(source).expanduser()
    _check_options(source, path, options)
    if source.startswith(IRDS):
        return irds_source(source)
    if options.topics is not None:
        _must_exist(path)
        return trec_source(path, options.topics, options.qrels, encoding=options.encoding)
    if path.is_dir():
        return _understand_folder(path, options)
    if path.exists():
        return _understand_file(path, options)
    if is_hub_id(source):
        return hub_source(source, options.named, config=options.config)
    _must_exist(path)
    raise DataError(f"{source}: neither a file nor a folder; name one of these")


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; check the path, or name irds:ID or hf:ORG/NAME")


def _check_options(source: str, path: Path, options: Options) -> None:
    if (options.topics is None) != (not options.qrels):
        raise UsageError("--topics and --qrels belong together: a TREC collection has both; give the other one, too")
    if options.queries is not None and not path.is_dir():
        raise UsageError(f"--queries names questions about the files of a folder, and {source} is none; leave it out")
    if options.sheet is not None and suffix_of(path) not in (".xlsx", ".xlsm"):
        raise UsageError(f"--sheet {options.sheet}: {source} is no workbook (.xlsx); leave it out")


def _understand_folder(path: Path, options: Options) -> Source:
    if options.queries is None:
        trec = find_trec_files(path)
        if trec is not None:
            return trec_source(*trec, encoding=options.encoding)
        if is_tables_folder(path):
            return tables_source(path, options.named, config=options.config, encoding=options.encoding)
    if not has_texts(path):
        raise DataError(f"{path}: nothing in it can be imported; expected tables, or Markdown, HTML, text or PDF files")
    questions = None
    if options.queries is not None:
        questions = read_table(options.queries, encoding=options.encoding)
    return folder_source(path, options.tokens(), questions, options.named, encoding=options.encoding)


def _understand_file(path: Path, options: Options) -> Source:
    suffix = suffix_of(path)
    if suffix == ".json":
        value, words = read_json_value(path, options.encoding)
        if is_llama_index(value):
            return llama_index_source(str(path), value, words)
    if suffix in TABLE_SUFFIXES:
        return pairs_source(read_table(path, encoding=options.encoding, sheet=options.sheet), options.named)
    if is_sgml(path):
        raise UsageError(f"{path}: TREC documents; name their queries and judgments with --topics and --qrels")
    if suffix in TEXT_SUFFIXES:
        raise UsageError(f"{path}: one text; name the folder it is in, to import all texts there")
    known = ", ".join(TABLE_SUFFIXES)
    raise UsageError(f"{path}: a file of this ending cannot be imported; expected {known}, or a folder")


def describe(source: Source) -> str:
    """What was understood: format, columns, three examples, and what was left out."""
    lines = [f"{source.name}: {source.format}"]
    lines += [f"  {role:13s} {column}" for role, column in source.columns.items()]
    lines += [f"  {note}" for note in source.notes]
    lines += [f"  left out: {what}: {count}" for what, count in source.left_out.items() if count]
    # Texts come from anywhere: no half characters and no commands to a terminal.
    return "\n".join([*map(one_line, lines), *map(one_line, _examples(source))])


def _examples(source: Source) -> list[str]:
    shown: dict[str, list[str]] = {}
    for judgment in source.judgments:
        query = judgment.query.text
        if query not in shown and len(shown) == EXAMPLES:
            break
        kind = "relevant" if judgment.grade > 0 else "not relevant"
        lines = shown.setdefault(query, [])
        if not any(line.strip().startswith(f"{kind}:") for line in lines):  # the first of each kind
            lines.append(f"     {kind}: {_shown(judgment.document)}")
    lines = []
    for number, (query, documents) in enumerate(shown.items(), 1):
        lines += [f"  {number}. query: {shorten(query, 160, placeholder=' ...')}", *documents]
    if not shown:
        lines = [f"  {number}. {_shown(document)}" for number, document in enumerate(source.documents[:EXAMPLES], 1)]
    return [f"{min(EXAMPLES, len(shown) or len(source.documents))} examples:", *lines]


def _shown(document: Document) -> str:
    parts = [shorten(part, 160, placeholder=" ...") for part in (document.title, document.text) if part.strip()]
    return " | ".join(parts)


def describe_result(assembled: Assembled) -> str:
    """Counts of the dataset, by split, and what was merged on the way."""
    dataset = assembled.dataset
    lines = [f"{len(dataset.corpus)} documents, {len(dataset.queries)} queries"]
    for split, judged in dataset.qrels.items():
        zero = len(judged) - len(judged.positives)
        negatives = f" and {zero} not relevant (score 0)" if zero else ""
        lines.append(f"  {split:5s} {len(judged.query_rows)} queries, {len(judged.positives)} relevant{negatives}")
    unjudged = len(dataset.queries) - len({int(row) for judged in dataset.qrels.values() for row in judged.query_rows})
    if unjudged and dataset.qrels:
        lines.append(f"  {unjudged} queries have no judgment and take no part in a run")
    return "\n".join([*lines, *(f"  {note}" for note in assembled.notes)])


def write_dataset(assembled: Assembled, target: Path) -> None:
    """Write a dataset, and for a folder of texts ``chunks.jsonl``; all of it appears at once.

    A corpus alone is ``corpus.jsonl`` and ``chunks.jsonl``.

    Raises:
        UsageError: the target exists.
        DataError: an id or a text cannot be written.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target}: exists already; name a new folder")
    dataset = assembled.dataset
    with atomic_dir(target) as folder:
        write_beir(dataset, folder)
        if assembled.chunks:
            with atomic_open(folder / CHUNKS) as stream:
                for chunk in assembled.chunks:
                    stream.write(json.dumps(asdict(chunk), ensure_ascii=False) + "\n")
        if not dataset.queries.ids:
            (folder / "queries.jsonl").unlink()


def read_chunks(folder: Path) -> list[Chunk]:
    """The map from documents to files of an imported folder; empty where it has none."""
    path = folder / CHUNKS
    if not path.is_file():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [Chunk(**{**record, "headings": tuple(record["headings"])}) for record in records]
