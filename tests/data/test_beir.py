from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksaga.data.beir import Counts, count_beir, read_beir, write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import DataError


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.corpus == other.corpus
    assert one.queries == other.queries
    assert one.qrels.keys() == other.qrels.keys()
    for split in one.qrels:
        for column in ("queries", "documents", "scores"):
            found = getattr(one.qrels[split], column)
            assert found.dtype == np.int32
            np.testing.assert_array_equal(found, getattr(other.qrels[split], column))


def test_written_and_read_back(tiny: Dataset, folder: Path) -> None:
    again = read_beir(folder)
    assert_same(again, tiny)
    assert again.name == "tiny"
    assert again.fingerprint == tiny.fingerprint
    assert read_beir(folder, "other").name == "other"


def test_layout_on_disk(folder: Path) -> None:
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[2]) == {"_id": "d3", "title": "Été", "text": "Chaleur à Paris 🌞"}
    assert (folder / "qrels" / "train.tsv").read_text() == "query-id\tcorpus-id\tscore\nq2\td1\t0\nq2\td2\t2\n"


ids = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]), min_size=1).filter(str.strip)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    documents = draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    queries = draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    column = st.lists(texts, min_size=len(documents), max_size=len(documents)).map(tuple)
    query_texts = draw(st.lists(texts.filter(str.strip), min_size=len(queries), max_size=len(queries)))
    pairs = st.tuples(st.integers(0, len(queries) - 1), st.integers(0, len(documents) - 1))
    qrels = {}
    for split in draw(st.sets(st.sampled_from(["train", "dev", "test"]), min_size=1)):
        grades = draw(st.dictionaries(pairs, st.integers(0, 5), max_size=8))
        grades[draw(pairs)] = 1  # a split needs a positive
        qrels[split] = Qrels.of([(query, document, grade) for (query, document), grade in grades.items()])
    corpus = Corpus(tuple(documents), draw(column), draw(column))
    return Dataset("drawn", corpus, Queries(tuple(queries), tuple(query_texts)), qrels)


@settings(max_examples=60, deadline=None)
@given(datasets())
def test_any_dataset_survives_a_round_trip(dataset: Dataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn"
        write_beir(dataset, path)
        assert_same(read_beir(path), dataset)
        splits = {name: (len(q.query_rows), len(q)) for name, q in dataset.qrels.items()}
        assert count_beir(path) == Counts(len(dataset.corpus), len(dataset.queries), splits)


def test_foreign_but_sound_files_are_read(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, blank lines, other fields and no titles are no reason to refuse."""
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_bytes(b'\xef\xbb\xbf{"_id": "1", "text": "a", "metadata": {}}\r\n\r\n')
    (tmp_path / "queries.jsonl").write_bytes(b'{"_id": "1", "text": "b", "title": null}\n')
    (tmp_path / "qrels" / "test.tsv").write_bytes(b"query-id\tcorpus-id\tscore\r\n1\t1\t1\r\n\r\n")
    dataset = read_beir(tmp_path)
    assert dataset.corpus == Corpus(("1",), ("",), ("a",))
    assert dataset.split("test").scores.tolist() == [1]
    assert count_beir(tmp_path) == Counts(1, 1, {"test": (1, 1)})


def test_negative_scores_count_as_not_relevant(folder: Path) -> None:
    """BEIR's TREC-COVID has two of them."""
    with (folder / "qrels" / "test.tsv").open("a") as stream:
        stream.write("q2\td3\t-1\n")
    assert read_beir(folder).split("test").scores.tolist() == [1, 1, 0]


def test_ids_that_cannot_be_written_are_refused_and_nothing_is_left(tiny: Dataset, tmp_path: Path) -> None:
    bad = Dataset("bad", tiny.corpus, Queries(("a\tb",), ("x",)), {})
    with pytest.raises(DataError, match=r"bad: the id 'a\\tb' is empty or has a tab"):
        write_beir(bad, tmp_path / "bad")
    half = Dataset("half", tiny.corpus, Queries(("a",), ("\ud800",)), {})
    with pytest.raises(DataError, match="half of a character"):
        write_beir(half, tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_whole_folder(tiny: Dataset, folder: Path) -> None:
    write_beir(replace(tiny, qrels={"dev": tiny.split("test")}), folder)
    assert sorted(read_beir(folder).qrels) == ["dev"]


SHARED = {  # documents, then (queries, judgments) a split, from the collections' README
    "scifact": (5183, {"train": (809, 919), "test": (300, 339)}),
    "nfcorpus": (3633, {"train": (2590, 110575), "dev": (324, 11385), "test": (323, 12334)}),
    "cosqa": (6267, {"dev": (500, 500), "test": (500, 500)}),
    "cranfield": (1400, {"test": (225, 1612)}),
    "cisi": (1460, {"test": (76, 3114)}),
    "cystic-fibrosis": (1239, {"test": (100, 4819)}),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED)
def test_real_collections(name: str, shared_datasets: Path) -> None:
    dataset = read_beir(shared_datasets / name)
    documents, splits = SHARED[name]
    assert len(dataset.corpus) == documents
    assert {split: (len(q.query_rows), len(q)) for split, q in dataset.qrels.items()} == splits
    assert count_beir(shared_datasets / name) == Counts(documents, len(dataset.queries), splits)


@pytest.mark.shared
def test_same_as_the_beir_package_reads(shared_datasets: Path) -> None:
    loader = pytest.importorskip("beir.datasets.data_loader")
    documents, queries, qrels = loader.GenericDataLoader(str(shared_datasets / "nfcorpus")).load(split="test")
    dataset = read_beir(shared_datasets / "nfcorpus")
    ours = dataset.split("test")
    rows = zip(ours.queries.tolist(), ours.documents.tolist(), ours.scores.tolist(), strict=True)
    triples = {(dataset.queries.ids[q], dataset.corpus.ids[d], score) for q, d, score in rows}
    assert triples == {(q, d, score) for q, judged in qrels.items() for d, score in judged.items()}
    assert {dataset.queries.ids[row]: dataset.queries.texts[row] for row in ours.query_rows} == queries
    assert dataset.corpus.titles == tuple(document["title"] for document in documents.values())
    assert dataset.corpus.texts == tuple(document["text"] for document in documents.values())
