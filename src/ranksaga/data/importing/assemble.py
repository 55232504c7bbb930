"""From documents, queries and judgments to a dataset: equal texts become one, and query groups are split.

Near-copies of a query, and all of its rows, are in one split. Which one is a hash of (seed, text), so that the order
of a file changes nothing.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.data.importing.rows import Chunk, Document, Judgment, Source
from ranksaga.data.leakage import near_copies, normalised
from ranksaga.errors import DataError, UsageError

__all__ = ["SHARES", "Assembled", "assemble", "parse_shares"]

SPLITS = ("train", "dev", "test")
SHARES: Mapping[str, float] = {"train": 0.6, "dev": 0.15, "test": 0.25}


@dataclass(frozen=True)
class Assembled:
    """A dataset, and what became of the source on the way, in words.

    ``chunks`` are the source's, with the ids that the documents got.
    """

    dataset: Dataset
    notes: tuple[str, ...]
    chunks: tuple[Chunk, ...] = ()


def parse_shares(text: str | None) -> Mapping[str, float]:
    """Shares of the splits from ``train=0.6,dev=0.15,test=0.25``; none: these. They need not add up to 1.

    Raises:
        UsageError: it is not of this form, or test has no share.
    """
    if text is None:
        return SHARES
    shares = dict.fromkeys(SPLITS, 0.0)
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in shares or not 0 <= value < float("inf"):
            raise UsageError(f"--splits {text}: {part!r} is not understood; write train=0.6,dev=0.15,test=0.25")
        shares[name] = value
    if shares["test"] <= 0:
        raise UsageError(
            f"--splits {text}: test has no share, and a run scores test; write train=0.6,dev=0.15,test=0.25"
        )
    return {name: value / sum(shares.values()) for name, value in shares.items()}


def assemble(source: Source, name: str, *, shares: Mapping[str, float] = SHARES, seed: int = 0) -> Assembled:
    """A dataset of a source.

    Args:
        source: with at least one judgment above 0, or no judgments and no queries at all (a corpus alone).
        name: of the dataset.
        shares: of train, dev and test, where the source has no test split of its own.
        seed: of the splits.

    Raises:
        DataError: no document is relevant to a query, or one id names two texts.
    """
    source = source if source.ids_decide else _with_titles(source)
    documents = _Table("document", source.name, source.ids_decide)
    for document in (*source.documents, *(judgment.document for judgment in source.judgments)):
        documents.add(document.id, document.title, document.text)
    queries = _Table("query", source.name, source.ids_decide)
    for query in (*source.queries, *(judgment.query for judgment in source.judgments)):
        queries.add(query.id, "", query.text)
    corpus = Corpus(tuple(documents.ids), tuple(documents.titles), tuple(documents.texts))
    asked = Queries(tuple(queries.ids), tuple(queries.texts))
    notes = [*documents.notes(), *queries.notes()]
    chunks = tuple(
        Chunk(documents.ids[documents.row(chunk.id, *_parts(source.documents[index]))], *_rest(chunk))
        for index, chunk in enumerate(source.chunks)
    )
    if not source.judgments and not source.queries:
        return Assembled(Dataset(name, corpus, asked, {}), tuple(notes), chunks)
    grades, declared = _judged(source.judgments, documents, queries, notes)
    if not any(grade > 0 for grade in grades.values()):
        raise DataError(f"{source.name}: no document is relevant to a query; a dataset needs a judgment above 0")
    if "test" in declared.values():
        split_of = declared
        both = sum(count > 1 for count in Counter(query for query, _ in _query_splits(declared)).values())
        if both:
            notes.append(
                f"{both} queries are in two of the source's splits; in a run these are scored and train nothing"
            )
    else:
        if any(declared.values()):
            have = ", ".join(sorted({split for split in declared.values() if split}))
            notes.append(f"the source has no test split (only {have}), so all its queries are split anew")
        positive = {query for (query, _), grade in grades.items() if grade > 0}
        rows = sorted({query for query, _ in grades})
        by_query = _split_queries(rows, asked.texts, positive, shares, seed)
        split_of = {pair: by_query[pair[0]] for pair in grades}
    triples: dict[str, list[tuple[int, int, int]]] = {}
    for (query_row, document_row), grade in grades.items():
        split = split_of[query_row, document_row]
        triples.setdefault(split, []).append((query_row, document_row, grade))
    qrels = {split: Qrels.of(triples[split]) for split in SPLITS if split in triples}
    return Assembled(Dataset(name, corpus, asked, qrels), tuple(notes), chunks)


def _with_titles(source: Source) -> Source:
    """The source, each document that came without a title (a given negative) with that of its text elsewhere."""
    known: dict[str, str] = {}
    for document in source.documents:
        if document.title and document.text:
            known.setdefault(same_text(document.text), document.title)
    if not known:
        return source

    def titled(document: Document) -> Document:
        title = document.title or known.get(same_text(document.text), "")
        return replace(document, title=title)

    judgments = [replace(judgment, document=titled(judgment.document)) for judgment in source.judgments]
    return replace(source, documents=[titled(document) for document in source.documents], judgments=judgments)


def _parts(document: Document) -> tuple[str, str]:
    return document.title, document.text


def _rest(chunk: Chunk) -> tuple[str, tuple[str, ...], int, int]:
    return chunk.file, chunk.headings, chunk.start, chunk.end


def _query_splits(split_of: Mapping[tuple[int, int], str]) -> set[tuple[int, str]]:
    return {(query, split) for (query, _), split in split_of.items()}


class _Table:
    """Texts by row, each once, with ids."""

    def __init__(self, kind: str, source: str, ids_decide: bool) -> None:
        self.ids: list[str] = []
        self.titles: list[str] = []
        self.texts: list[str] = []
        self._kind, self._source, self._ids_decide = kind, source, ids_decide
        self._rows: dict[str | tuple[str, str], int] = {}
        self._known: dict[str, int] = {}  # row of each given id
        self._merged: set[str] = set()

    def add(self, identifier: str, title: str, text: str) -> None:
        """Take a text, unless it is there."""
        key = self._key(identifier, title, text)
        row = self._rows.get(key)
        if row is None:
            row = len(self.ids)
            self._rows[key] = row
            self.ids.append(identifier or _hash_id(self._kind, title, text))
            self.titles.append(title)
            self.texts.append(text)
        elif identifier and identifier != self.ids[row]:
            if self.ids[row] not in self._known:  # the first copy had no id
                self.ids[row] = identifier
            else:
                self._merged.add(identifier)
        if not identifier:
            return
        first = self._known.setdefault(identifier, row)
        if first != row or (same_text(self.texts[row]), same_text(self.titles[row])) != (
            same_text(text),
            same_text(title),
        ):
            raise DataError(
                f"{self._source}: the {self._kind} id {identifier!r} names two texts ({_short(self.texts[first])} and "
                f"{_short(text)}); give each an id of its own, or leave the column of ids out"
            )

    def row(self, identifier: str, title: str, text: str) -> int:
        """Row of a text that was added."""
        return self._rows[self._key(identifier, title, text)]

    def notes(self) -> list[str]:
        """What was merged, in words."""
        if not self._merged:
            return []
        kind, count = self._kind, len(self._merged)
        return [f"{kind} ids whose text an earlier id has: {count}; equal texts are one {kind}"]

    def _key(self, identifier: str, title: str, text: str) -> str | tuple[str, str]:
        if self._ids_decide and identifier:
            return identifier
        return same_text(title), same_text(text)


def same_text(text: str) -> str:
    """What two copies of a text have in common: its characters composed (NFC), its white space single."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _hash_id(kind: str, title: str, text: str) -> str:
    """An id from the text alone, so that the order of a file changes nothing."""
    content = f"{same_text(title)}\0{same_text(text)}".encode("utf-8", "surrogatepass")
    return f"{kind[0]}-{hashlib.sha256(content).hexdigest()[:12]}"


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return repr(plain if len(plain) <= 40 else f"{plain[:40]}...")


def _judged(
    judgments: Iterable[Judgment], documents: _Table, queries: _Table, notes: list[str]
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], str]]:
    """Grade and split of each (query row, document row); of several grades the highest."""
    grades: dict[tuple[int, int], int] = {}
    splits: dict[tuple[int, int], str] = {}
    lowered: set[tuple[int, int]] = set()
    for judgment in judgments:
        query, document = judgment.query, judgment.document
        pair = queries.row(query.id, "", query.text), documents.row(document.id, document.title, document.text)
        known = grades.setdefault(pair, judgment.grade)
        splits.setdefault(pair, judgment.split)
        if known != judgment.grade:
            grades[pair] = max(known, judgment.grade)
            lowered.add(pair)
        if judgment.split == "test":  # what is scored once trains nowhere
            splits[pair] = "test"
    if lowered:
        notes.append(f"{len(lowered)} pairs are judged twice with different scores; the highest counts")
    return grades, splits


def _split_queries(
    rows: Sequence[int], texts: Sequence[str], positive: set[int], shares: Mapping[str, float], seed: int
) -> dict[int, str]:
    """The split of each query row; of two groups or more, one is in test and one trains (where train has a share)."""
    groups = _groups([texts[row] for row in rows])
    keys: dict[int, str] = {}
    for group, row in zip(groups, rows, strict=True):
        text = normalised(texts[row]) or same_text(texts[row])
        keys[group] = min(keys.get(group, text), text)
    sizes = Counter(groups)
    with_positive = {group for group, row in zip(groups, rows, strict=True) if row in positive}
    places = {group: _place(seed, key) for group, key in keys.items()}
    split = {}
    for group, place in places.items():
        if place < shares["test"]:
            split[group] = "test"
        else:
            split[group] = "dev" if place < shares["test"] + shares["dev"] else "train"
        if sizes[group] * 2 > len(rows) and shares["train"] > 0:
            split[group] = "train"  # most queries are near-copies of each other: scoring them would leave no training
    order = sorted(
        with_positive, key=lambda group: (split[group] == "train" and sizes[group] * 2 > len(rows), places[group])
    )
    if order and not any(split[group] == "test" for group in order):
        split[order[0]] = "test"
    if len(order) > 1 and shares["train"] > 0 and not any(split[group] == "train" for group in order):
        split[order[-1]] = "train"
    usable = {split[group] for group in order}
    # A split whose queries have negatives only cannot be read.
    spare = "train" if "train" in usable else "test"
    return {row: split[group] if split[group] in usable else spare for group, row in zip(groups, rows, strict=True)}


def _groups(texts: Sequence[str]) -> list[int]:
    """For each text its group: near-copies, and near-copies of these."""
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for leak in near_copies(texts):
        low, high = sorted((root(leak.training), root(leak.scored)))
        parent[high] = low
    return [root(row) for row in range(len(texts))]


def _place(seed: int, key: str) -> float:
    """A number in [0, 1) that is the same everywhere."""
    digest = hashlib.sha256(f"{seed}|import|{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
