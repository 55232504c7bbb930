"""Queries that a language model writes for documents, kept where a search brings their document back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ranksaga.data.beir_files import Finding
from ranksaga.data.beir_parser import parse
from ranksaga.data.dataset import Corpus, Dataset, Queries
from ranksaga.data.importing.assemble import Assembled, assemble, same_text
from ranksaga.data.importing.chat import Chat
from ranksaga.data.importing.importer import read_chunks
from ranksaga.data.importing.rows import Document, Judgment, Query, Source
from ranksaga.errors import DataError
from ranksaga.files import hash_json
from ranksaga.run.console import Console

__all__ = ["Cost", "Generated", "choose_documents", "estimate_cost", "generate", "read_corpus", "round_trip"]

PROMPT = """\
Write {count} different questions or search queries that a person might type and that the document below answers.
Each must make sense without the document, must not copy a sentence of it, and must be in its language.
Write one a line, without numbers, quotation marks or anything else.

Document:
{document}"""
LONGEST_DOCUMENT = 6000  # characters that are sent
LONGEST_QUERY = 300  # characters; what is longer is no query
CHARACTERS_PER_TOKEN = 4  # of English text, for the estimate
TOKENS_PER_QUERY = 20
_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+|^[\"'“«]+|[\"'”»]+$")


@dataclass(frozen=True)
class Cost:
    """What is still to be asked: requests, and about how many tokens and US dollars (none: no price was given)."""

    requests: int
    kept: int
    tokens_in: int
    tokens_out: int
    dollars: float | None

    def __str__(self) -> str:
        price = "; no price was given" if self.dollars is None else f", about ${self.dollars:.2f}"
        kept = f" ({self.kept} are answered already)" if self.kept else ""
        tokens = f"about {self.tokens_in} tokens to the model and {self.tokens_out} from it"
        return f"{self.requests} requests{kept}, {tokens}{price}"


@dataclass(frozen=True)
class Generated:
    """A dataset of generated queries, and how many were written, double, and not brought back."""

    assembled: Assembled
    written: int
    doubled: int
    lost: int


def read_corpus(folder: Path) -> Corpus:
    """The documents of a folder in BEIR layout, with queries or without.

    Raises:
        DataError: corpus.jsonl is missing or broken.
    """

    def report(finding: Finding) -> None:
        if finding.level == "error" and finding.file in (".", "corpus.jsonl"):
            raise DataError(f"{folder}/{finding}")

    return parse(folder, folder.name, report).corpus


def choose_documents(corpus: Corpus, count: int, seed: int) -> list[int]:
    """Rows of documents with words, ``count`` at most, by a hash of (seed, text): the order changes nothing."""

    def key(row: int) -> bytes:
        return hashlib.sha256(f"{seed}|{same_text(corpus.documents[row])}".encode("utf-8", "surrogatepass")).digest()

    return sorted((row for row, text in enumerate(corpus.documents) if text), key=key)[:count]


def _prompt(document: str, count: int) -> str:
    return PROMPT.format(count=count, document=document[:LONGEST_DOCUMENT])


def estimate_cost(
    corpus: Corpus, rows: Sequence[int], chat: Chat, count: int, prices: tuple[float, float] | None
) -> Cost:
    """What asking will take.

    Args:
        corpus: whose documents are asked about.
        rows: of these documents.
        chat: whose kept answers cost nothing.
        count: queries a document.
        prices: US dollars of a million tokens to the model and from it; none: not known.
    """
    prompts = [_prompt(corpus.documents[row], count) for row in rows]
    new = [prompt for prompt in prompts if chat.known(prompt) is None]
    tokens_in = sum(-(-len(prompt) // CHARACTERS_PER_TOKEN) for prompt in new)
    tokens_out = len(new) * count * TOKENS_PER_QUERY
    dollars = None if prices is None else (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
    return Cost(len(new), len(prompts) - len(new), tokens_in, tokens_out, dollars)


def generate(
    folder: Path,
    corpus: Corpus,
    rows: Sequence[int],
    chat: Chat,
    console: Console,
    *,
    count: int,
    keep: Callable[[Dataset, Sequence[int]], Sequence[bool]] | None,
    shares: Mapping[str, float],
    seed: int,
    parallel: int = 4,
) -> Generated:
    """Ask for queries and keep those that pass.

    Args:
        folder: of the corpus; its map to files is kept.
        corpus: all documents.
        rows: those that are asked about.
        chat: who answers.
        console: shows how far it is.
        count: queries a document.
        keep: which queries of a dataset pass, given the row of each one's document; none: all.
        shares: of the splits.
        seed: of the splits.
        parallel: requests at a time.

    Raises:
        DataError: no query passed.
        UsageError, DownloadError: see :meth:`Chat.ask`.
    """
    prompts = [_prompt(corpus.documents[row], count) for row in rows]
    answers: list[str] = []
    with ThreadPoolExecutor(parallel) as threads, console.progress("queries", len(prompts)) as advance:
        pending = [threads.submit(chat.ask, prompt) for prompt in prompts]
        try:
            for waiting in pending:
                answers.append(waiting.result())
                advance(1)
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    asked: dict[str, tuple[str, int]] = {}
    written = 0
    for row, answer in zip(rows, answers, strict=True):
        for text in _queries_of(answer)[:count]:
            written += 1
            asked.setdefault(same_text(text).casefold(), (text, row))
    texts, sources = [text for text, _ in asked.values()], [row for _, row in asked.values()]
    queries = Queries(tuple(f"g-{hash_json(text)}" for text in texts), tuple(texts))
    passed = [True] * len(texts)
    if keep is not None and texts:
        passed = list(keep(Dataset(folder.name, corpus, queries, {}), sources))
    documents = [Document(*parts) for parts in zip(corpus.texts, corpus.titles, corpus.ids, strict=True)]
    judgments = [
        Judgment(Query(text, identifier), documents[row])
        for text, identifier, row, good in zip(texts, queries.ids, sources, passed, strict=True)
        if good
    ]
    if not judgments:
        raise DataError(
            f"{folder}: none of {written} queries that were written passed; try another model or --filter none"
        )
    source = Source(str(folder), "generated", documents=documents, judgments=judgments, ids_decide=True)
    assembled = replace(assemble(source, folder.name, shares=shares, seed=seed), chunks=tuple(read_chunks(folder)))
    return Generated(assembled, written, written - len(texts), len(texts) - len(judgments))


def _queries_of(answer: str) -> list[str]:
    """The lines of an answer, without what models put around them; what is no query is left out."""
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL)
    lines = []
    for line in answer.splitlines():
        text, before = line.strip(), None
        while text != before:
            text, before = _MARK.sub("", text).strip(), text
        if text and len(text) <= LONGEST_QUERY and not text.endswith(":") and any(map(str.isalnum, text)):
            lines.append(text)
    return lines


def round_trip(depth: int, encoder: Any = None) -> Callable[[Dataset, Sequence[int]], Sequence[bool]]:
    """A filter: a query passes if a search brings its document back among the best ``depth``.

    Args:
        depth: documents that are looked at.
        encoder: a loaded encoder searches; none: BM25.
    """

    def keep(dataset: Dataset, sources: Sequence[int]) -> Sequence[bool]:
        from ranksaga.evaluate.benchmark import benchmark
        from ranksaga.retrieve.lexical import bm25_rankings

        rows = np.arange(len(dataset.queries), dtype=np.int32)
        ranked = bm25_rankings(dataset, rows, depth) if encoder is None else benchmark(encoder, dataset, rows, depth)
        # A copy of the document is as good as the document.
        texts = dataset.corpus.documents
        return [
            any(document >= 0 and texts[document] == texts[source] for document in documents)
            for documents, source in zip(ranked.documents.tolist(), sources, strict=True)
        ]

    return keep
