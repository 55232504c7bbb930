"""Collections whose corpus, queries and judgments stand apart, joined by ids.

LlamaIndex's ``{queries, corpus, relevant_docs}``, tables of three kinds (as on Hugging Face), and ids of ir_datasets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ranksaga.data.importing.columns import DOCUMENT_ID, QUERY_ID, SCORE, TITLE, nearest_role, plain
from ranksaga.data.importing.pairs import cell_id, cell_texts, parse_grade, split_name
from ranksaga.data.importing.rows import Document, Judgment, Query, Source, needs_import_extra
from ranksaga.data.importing.tables import Table
from ranksaga.errors import DataError, DownloadError, RankSagaError

__all__ = [
    "IRDS",
    "corpus_of",
    "irds_source",
    "is_llama_index",
    "join",
    "llama_index_source",
    "queries_of",
    "table_judgments",
]

IRDS = "irds:"
_LLAMA_KEYS = ("queries", "corpus", "relevant_docs")
_TEXT = ("text", "contents", "content", "passage", "body", "document", "query", "question", "abstract")
_ID = ("id", "docid", "documentid", "corpusid", "passageid", "pid", "docno", "queryid", "qid", "topicid")

Line = tuple[str, str, int, str]  # query id, document id, grade, split


def join(
    name: str,
    form: str,
    documents: Iterable[Document],
    queries: Iterable[Query],
    lines: Iterable[Line],
    *,
    columns: Mapping[str, str] | None = None,
    left_out: Mapping[str, int] | None = None,
    ids_decide: bool = True,
) -> Source:
    """Judgments by id as judgments of texts.

    Judgments of a query or a document that is not there are left out and counted.

    Args:
        name: of the source.
        form: what it is, in words.
        documents: with ids.
        queries: with ids.
        lines: query id, document id, grade, split.
        columns: see :class:`Source`.
        left_out: what was left out before.
        ids_decide: see :class:`Source`.

    Raises:
        DataError: an id occurs twice with different texts, or no judgment fits.
    """
    counts: Counter[str] = Counter(left_out or {})
    by_id = _unique(name, "document", documents)
    asked = _unique(name, "query", queries)
    judgments = []
    for query, document, grade, split in lines:
        if query not in asked:
            counts["judgments of a query that is not there"] += 1
        elif document not in by_id:
            counts["judgments of a document that is not there"] += 1
        else:
            judgments.append(Judgment(asked[query], by_id[document], grade, split))
    if not judgments:
        why = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "there are none"
        raise DataError(f"{name}: no judgment joins a query with a document ({why}); check that the ids are the same")
    return Source(
        name,
        form,
        dict(columns or {}),
        tuple(by_id.values()),
        tuple(asked.values()),
        judgments,
        dict(+counts),  # without zeros
        ids_decide=ids_decide,
    )


def _unique(name: str, kind: str, rows: Iterable[Any]) -> dict[str, Any]:
    by_id: dict[str, Any] = {}
    for row in rows:
        known = by_id.setdefault(row.id, row)
        if known != row:
            raise DataError(f"{name}: the {kind} id {row.id!r} occurs twice with different texts; ids must differ")
    return by_id


def is_llama_index(value: Any) -> bool:
    """Whether a JSON value is an ``EmbeddingQAFinetuneDataset`` of LlamaIndex."""
    return isinstance(value, Mapping) and all(isinstance(value.get(key), Mapping) for key in _LLAMA_KEYS)


def llama_index_source(name: str, value: Mapping[str, Any], words: str) -> Source:
    """What LlamaIndex's ``generate_qa_embedding_pairs`` writes; equal texts become one, as its ids are drawn.

    Raises:
        DataError: a text is none, or no judgment fits.
    """
    counts: Counter[str] = Counter()
    documents, queries = [], []
    for identifier, cell in value["corpus"].items():
        texts = cell_texts(cell, f"{name}: corpus {identifier}", "text")
        if texts:
            documents.append(Document(" ".join(texts), id=identifier))
        else:
            counts["empty documents"] += 1
    for identifier, cell in value["queries"].items():
        texts = cell_texts(cell, f"{name}: queries {identifier}", "text")
        if texts:
            queries.append(Query(" ".join(texts), identifier))
        else:
            counts["empty queries"] += 1
    lines = []
    for query, relevant in value["relevant_docs"].items():
        if isinstance(relevant, Mapping):
            lines += [(query, str(key), parse_grade(grade, f"{name}: {query}"), "") for key, grade in relevant.items()]
        else:
            lines += [(query, key, 1, "") for key in cell_texts(relevant, f"{name}: relevant_docs {query}", "ids")]
    form = f"LlamaIndex question-answer pairs (JSON, {words})"
    columns = {"query": "queries", "document": "corpus", "judgments": "relevant_docs"}
    return join(name, form, documents, queries, lines, columns=columns, left_out=counts, ids_decide=False)


def corpus_of(table: Table, counts: Counter[str]) -> Iterator[Document]:
    """The documents of a table with an id and a text, and a title or none.

    Raises:
        DataError: the columns are not there.
    """
    identifier, text = _columns(table)
    title = nearest_role(table.columns, TITLE)
    for number, record in enumerate(table.records):
        where = f"{table.name}:{table.places[number]}"
        words = " ".join(cell_texts(record.get(text), where, text))
        heading = " ".join(cell_texts(record.get(title), where, title)) if title else ""
        if words or heading:
            yield Document(words, heading, cell_id(record.get(identifier)))
        else:
            counts["empty documents"] += 1


def queries_of(table: Table, counts: Counter[str]) -> Iterator[Query]:
    """The queries of a table with an id and a text.

    Raises:
        DataError: the columns are not there.
    """
    identifier, text = _columns(table)
    for number, record in enumerate(table.records):
        words = " ".join(cell_texts(record.get(text), f"{table.name}:{table.places[number]}", text))
        if words:
            yield Query(words, cell_id(record.get(identifier)))
        else:
            counts["empty queries"] += 1


def table_judgments(table: Table, split: str) -> Iterator[Line]:
    """The judgments of a table with a query id, a document id, and a score (none: 1).

    Raises:
        DataError: the columns are not there, or a score is no integer.
    """
    query = nearest_role(table.columns, QUERY_ID)
    document = nearest_role([name for name in table.columns if name != query], DOCUMENT_ID)
    score = nearest_role(table.columns, SCORE)
    if not query or not document:
        have = ", ".join(map(repr, table.columns))
        raise DataError(f"{table.name}: judgments need the columns query-id and corpus-id; it has: {have}")
    for number, record in enumerate(table.records):
        where = f"{table.name}:{table.places[number]}"
        grade = parse_grade(record.get(score), where) if score else 1
        yield cell_id(record.get(query)), cell_id(record.get(document)), grade, split


def _columns(table: Table) -> tuple[str, str]:
    identifier, text = nearest_role(table.columns, _ID), nearest_role(table.columns, _TEXT)
    if not identifier or not text:
        have = ", ".join(map(repr, table.columns))
        raise DataError(f"{table.name}: expected the columns _id and text; it has: {have}")
    return identifier, text


def irds_source(name: str) -> Source:
    """A dataset of ir_datasets, by an id such as ``irds:beir/scifact``.

    Its judgments are those of the id itself, or where it has none those of ``/train``, ``/dev`` and ``/test`` below it.

    Raises:
        UsageError: ir_datasets is not installed.
        DataError: there is no such id, or it has no documents, queries or judgments.
        DownloadError: it had to be downloaded and could not be.
    """
    with needs_import_extra("ir_datasets"):
        import ir_datasets
    identifier = name.removeprefix(IRDS)
    try:
        dataset = ir_datasets.load(identifier)
        parts = _parts(ir_datasets, identifier, dataset)
        if not dataset.has_docs():
            raise DataError(f"{name}: it has no documents; name another id, see ir-datasets.com")
        counts: Counter[str] = Counter()
        documents = [_irds_document(row) for row in dataset.docs_iter()]
        queries, lines = [], []
        for part, split in parts:
            queries += [Query(_default_text(row).strip(), row.query_id) for row in part.queries_iter()]
            lines += [(row.query_id, row.doc_id, max(0, int(row.relevance)), split) for row in part.qrels_iter()]
    except KeyError as problem:
        raise DataError(f"{name}: ir_datasets has no such id; they are listed on ir-datasets.com") from problem
    except RankSagaError:
        raise
    except Exception as problem:  # what its readers and downloads raise, assertions among it
        first = next(iter(str(problem).strip().splitlines()), "") or type(problem).__name__
        raise DownloadError(
            f"{name}: ir_datasets cannot read its files ({first}); check the network, or the files"
        ) from problem
    counts["empty queries"] += sum(not query.text for query in queries)
    form = f"ir_datasets{'' if len(parts) == 1 else ', splits ' + ', '.join(split for _, split in parts)}"
    asked = [query for query in dict.fromkeys(queries) if query.text]
    return join(name, form, documents, asked, lines, left_out=counts)


def _parts(ir_datasets: Any, identifier: str, dataset: Any) -> list[tuple[Any, str]]:
    """The datasets that hold queries and judgments, each with its split; empty where it names none."""
    last = plain(identifier.rpartition("/")[2])
    if dataset.has_queries() and dataset.has_qrels():
        return [(dataset, {"train": "train", "dev": "dev", "validation": "dev", "test": "test"}.get(last, ""))]
    parts = []
    for split in ("train", "dev", "validation", "test"):
        if f"{identifier}/{split}" in ir_datasets.registry:
            part = ir_datasets.load(f"{identifier}/{split}")
            if part.has_queries() and part.has_qrels():
                parts.append((part, split_name(split, identifier)))
    if not parts:
        raise DataError(f"{IRDS}{identifier}: it has no queries with judgments; name one that has, see ir-datasets.com")
    return parts


def _irds_document(row: Any) -> Document:
    title = str(getattr(row, "title", "") or "").strip()
    text = _default_text(row).strip()
    if title and text.startswith(title):
        text = text[len(title) :].strip()
    return Document(text, title, row.doc_id)


def _default_text(row: Any) -> str:
    """The text that ir_datasets itself takes for a document or query."""
    return str(row.default_text())
