"""Each kind of source goes to a dataset with exactly its queries, documents and judgments, by another reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas  # type: ignore[import-untyped]
import pytest
import pytrec_eval

from ranksaga.data.beir import read_beir
from ranksaga.data.check import check_beir
from ranksaga.data.dataset import Dataset
from ranksaga.data.importing.assemble import assemble
from ranksaga.data.importing.chunking import Tokens
from ranksaga.data.importing.columns import Columns
from ranksaga.data.importing.importer import Options, describe, read_chunks, understand, write_dataset

ROWS = [
    ("How do I reset my password?", "Open settings, then choose “Reset”.", "Passwords"),
    ("What does a month cost?", "Ten euros.\nA year costs 100.", "Prices"),
    ("Where is your office?", "Straße 5, Köln 🌞", "Contact"),
    ("Which languages are there?", 'We say "all": 日本語, français', "Languages"),
    ("What does a month cost?", "See the list of prices.", "Prices"),
]
Triples = set[tuple[str, str, int]]  # query, document as the encoder reads it, grade


def words(texts: list[str]) -> Tokens:
    return Tokens(1000, lambda many: [len(text.split()) for text in many], lambda text: list(range(1, len(text) + 1)))


OPTIONS = Options(tokens=lambda: words([]))


def imported(source: str | Path, target: Path, options: Options = OPTIONS) -> Dataset:
    write_dataset(assemble(understand(str(source), options), "imported"), target)
    assert [str(finding) for finding in check_beir(target) if finding.level == "error"] == []
    return read_beir(target)


def triples(dataset: Dataset) -> Triples:
    judged = {
        (dataset.queries.texts[query], dataset.corpus.documents[document], int(grade))
        for qrels in dataset.qrels.values()
        for query, document, grade in zip(qrels.queries, qrels.documents, qrels.scores, strict=True)
    }
    assert len(judged) == sum(map(len, dataset.qrels.values())), "no judgment twice, in no two splits"
    return judged


def by_id(dataset: Dataset) -> dict[str, dict[str, int]]:
    judged: dict[str, dict[str, int]] = {}
    for qrels in dataset.qrels.values():
        for query, document, grade in zip(qrels.queries, qrels.documents, qrels.scores, strict=True):
            judged.setdefault(dataset.queries.ids[query], {})[dataset.corpus.ids[document]] = int(grade)
    return judged


def frame() -> pandas.DataFrame:
    return pandas.DataFrame(ROWS, columns=["question", "answer", "title"])


TABLES: dict[str, tuple[Callable[[Path], object], Callable[[Path], pandas.DataFrame]]] = {
    "faq.csv": (lambda path: frame().to_csv(path, index=False), pandas.read_csv),
    "semicolon.csv": (
        lambda path: frame().to_csv(path, index=False, sep=";"),
        lambda path: pandas.read_csv(path, sep=";"),
    ),
    "faq.csv.gz": (lambda path: frame().to_csv(path, index=False), pandas.read_csv),
    "faq.tsv": (
        lambda path: frame().to_csv(path, index=False, sep="\t"),
        lambda path: pandas.read_csv(path, sep="\t"),
    ),
    "faq.xlsx": (lambda path: frame().to_excel(path, index=False), pandas.read_excel),
    "faq.json": (lambda path: frame().to_json(path, orient="records"), pandas.read_json),
    "columns.json": (lambda path: path.write_text(json.dumps(frame().to_dict("list"))), pandas.read_json),
    "faq.jsonl": (
        lambda path: frame().to_json(path, orient="records", lines=True),
        lambda path: pandas.read_json(path, lines=True),
    ),
    "faq.parquet": (lambda path: frame().to_parquet(path), pandas.read_parquet),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_by_pandas(name: str, tmp_path: Path) -> None:
    if name.endswith("xlsx"):
        pytest.importorskip("openpyxl")
    write, read = TABLES[name]
    write(tmp_path / name)
    dataset = imported(tmp_path / name, tmp_path / "out")
    table = read(tmp_path / name)
    expected = {(row.question, f"{row.title} {row.answer}", 1) for row in table.itertuples()}
    assert triples(dataset) == expected
    assert len(expected) == 5
    assert len(dataset.queries) == 4
    assert len(dataset.corpus) == 5


def test_columns_are_named(tmp_path: Path) -> None:
    frame().rename(columns={"question": "F", "answer": "A", "title": "T"}).assign(nr=range(5)).to_csv(
        tmp_path / "x.csv", index=False
    )
    named = Columns(query="F", document="a", title="T", id="nr")
    dataset = imported(tmp_path / "x.csv", tmp_path / "out", Options(tokens=OPTIONS.tokens, named=named))
    assert dataset.corpus.ids == ("0", "1", "2", "3", "4")
    assert triples(dataset) == {(query, f"{title} {answer}", 1) for query, answer, title in ROWS}


def test_flag_embedding_keeps_given_negatives(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"query": "one?", "pos": ["p1", "p2"], "neg": ["n1", "p3"], "pos_scores": [0.9, 0.8], "prompt": "x"},
        {"query": "two?", "pos": ["p3"], "neg": ["n1"]},
    ]
    (tmp_path / "flag.jsonl").write_text("\n".join(map(json.dumps, records)))
    dataset = imported(tmp_path / "flag.jsonl", tmp_path / "out")
    expected = {(record["query"], text, 1) for record in records for text in record["pos"]}
    expected |= {(record["query"], text, 0) for record in records for text in record["neg"]}
    assert triples(dataset) == expected
    assert sorted(dataset.corpus.texts) == ["n1", "p1", "p2", "p3"]


def test_triplets_and_numbered_negatives(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {
            "anchor": ["one?", "two?", "one?"],
            "positive": ["p1", "p2", "p3"],
            "negative_1": ["p3", "n", "n"],
            "negative_2": ["n", None, "p1"],  # p1 and p3 are relevant to "one?" in another row: the higher grade counts
        }
    )
    table.to_csv(tmp_path / "triplets.csv", index=False)
    dataset = imported(tmp_path / "triplets.csv", tmp_path / "out")
    assert triples(dataset) == {
        *{("one?", "p1", 1), ("one?", "p3", 1), ("one?", "n", 0)},
        *{("two?", "p2", 1), ("two?", "n", 0)},
    }


def test_a_negative_is_the_titled_document_of_its_text(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"query": "one?", "positive": "p1", "title": "T1", "negative": "p2"},
        {"query": "two?", "positive": "p2", "title": "T2", "negative": "p1"},
    ]
    (tmp_path / "x.json").write_text(json.dumps({"data": records}))
    dataset = imported(tmp_path / "x.json", tmp_path / "out")
    assert sorted(dataset.corpus.documents) == ["T1 p1", "T2 p2"]
    assert triples(dataset) == {("one?", "T1 p1", 1), ("one?", "T2 p2", 0), ("two?", "T2 p2", 1), ("two?", "T1 p1", 0)}


def test_llama_index(tmp_path: Path) -> None:
    value: dict[str, Any] = {
        "queries": {"q1": "one?", "q2": "two?", "q3": "one?"},
        "corpus": {"n1": "text one", "n2": "text two", "n3": "text three"},
        "relevant_docs": {"q1": ["n1"], "q2": ["n2", "n1"], "q3": ["n3"]},
        "mode": "text",
    }
    (tmp_path / "qa.json").write_text(json.dumps(value))
    dataset = imported(tmp_path / "qa.json", tmp_path / "out")
    queries, corpus = value["queries"], value["corpus"]
    relevant = value["relevant_docs"]
    assert triples(dataset) == {(queries[q], corpus[d], 1) for q, many in relevant.items() for d in many}
    assert dataset.queries.ids == ("q1", "q2"), "the same question is one query"
    assert dataset.corpus.ids == ("n1", "n2", "n3")


DOCUMENTS = """<DOC>
<DOCNO> A-1 </DOCNO>
<HEADLINE>Wings</HEADLINE>
<TEXT>
Lift &amp; drag
of a wing.
</TEXT>
</DOC>
<DOC><DOCNO>A-2</DOCNO><TEXT>Boundary layers</TEXT></DOC>
<DOC><DOCNO>A-3</DOCNO><TEXT>Heat</TEXT></DOC>
"""
TOPICS = """<top>
<num> Number: 301
<title> lift of wings
<desc> Description:
What lifts?
</top>
<top><num>302</num><title>heat</title></top>
"""
QRELS = "301 0 A-1 2\n301 0 A-2 0\n302 0 A-3 1\n302 Q0 A-1 -1\n302 0 gone 1\n"


@pytest.fixture
def trec(tmp_path: Path) -> Path:
    folder = tmp_path / "trec"
    folder.mkdir()
    for name, text in {"docs.sgml": DOCUMENTS, "topics.txt": TOPICS, "qrels.txt": QRELS}.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_trec_by_pytrec_eval(trec: Path, tmp_path: Path, whole: bool) -> None:
    topics, qrels = trec / "topics.txt", (trec / "qrels.txt",)
    options = OPTIONS if whole else Options(tokens=OPTIONS.tokens, topics=topics, qrels=qrels)
    source = trec if whole else trec / "docs.sgml"
    dataset = imported(source, tmp_path / "out", options)
    with (trec / "qrels.txt").open() as stream:
        expected = pytrec_eval.parse_qrel(stream)
    del expected["302"]["gone"]
    expected["302"]["A-1"] = 0  # below 0 is 0, as the loader counts it
    assert by_id(dataset) == expected
    assert dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True)) == {"301": "lift of wings", "302": "heat"}
    assert dataset.corpus.documents == ("Wings Lift & drag of a wing.", "Boundary layers", "Heat")
    assert understand(str(source), options).left_out == {"judgments of a document that is not there": 1}


def test_trec_with_a_file_of_judgments_a_split_keeps_the_splits(trec: Path, tmp_path: Path) -> None:
    (trec / "qrels.txt").unlink()
    (trec / "qrels-train.txt").write_text("301 0 A-1 1\n")
    (trec / "qrels-test.txt").write_text("302 0 A-3 1\n")
    dataset = imported(trec, tmp_path / "out")
    assert {split: len(judged) for split, judged in dataset.qrels.items()} == {"train": 1, "test": 1}


def test_irds_by_ir_datasets(trec: Path, tmp_path: Path) -> None:
    ir_datasets = pytest.importorskip("ir_datasets")
    from ir_datasets.datasets.base import Dataset as IrDataset
    from ir_datasets.formats import TrecQrels, TsvDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    (trec / "docs.tsv").write_text("A-1\tLift of a wing\nA-2\tBoundary layers\nA-3\tHeat\n")
    (trec / "qrels.txt").write_text("301 0 A-1 2\n301 0 A-2 0\n302 0 A-3 1\n")
    documents = TsvDocs(LocalDownload(trec / "docs.tsv"))
    (trec / "topics.tsv").write_text("301\tlift of wings\n302\theat\n")
    queries = TsvQueries(LocalDownload(trec / "topics.tsv"))
    judged = TrecQrels(LocalDownload(trec / "qrels.txt"), {2: "very", 1: "relevant", 0: "not"})
    registry = ir_datasets.registry
    registry.register("ranksaga-tiny", IrDataset(documents, queries, judged))
    registry.register("ranksaga-split", IrDataset(documents))
    registry.register("ranksaga-split/train", IrDataset(documents, queries, judged))
    registry.register("ranksaga-split/test", IrDataset(documents, queries, judged))
    try:
        dataset = imported("irds:ranksaga-tiny", tmp_path / "out")
        there = ir_datasets.load("ranksaga-tiny")
        assert by_id(dataset) == there.qrels_dict()
        assert dataset.corpus.documents == tuple(document.default_text() for document in there.docs_iter())
        assert dataset.queries.texts == tuple(query.default_text().strip() for query in there.queries_iter())
        source = understand("irds:ranksaga-split", OPTIONS)
        assert sorted({judgment.split for judgment in source.judgments}) == ["test", "train"]
    finally:
        for name in ("ranksaga-tiny", "ranksaga-split", "ranksaga-split/train", "ranksaga-split/test"):
            del registry._registered[name]


def test_a_folder_of_tables_with_splits(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# A dataset\n")
    frame()[:3].to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    frame()[3:4].to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    dataset = imported(folder, tmp_path / "out")
    assert triples(dataset) == {(query, f"{title} {answer}", 1) for query, answer, title in ROWS[:4]}
    assert {split: len(judged) for split, judged in dataset.qrels.items()} == {"train": 3, "test": 1}


COLLECTION = {
    "corpus": pandas.DataFrame({"_id": ["d1", "d2"], "title": ["T", ""], "text": ["one", "two"]}),
    "queries": pandas.DataFrame({"_id": ["q1", "q2"], "text": ["first?", "second?"]}),
    "qrels": pandas.DataFrame({"query-id": ["q1", "q2"], "corpus-id": ["d1", "d2"], "score": [1.0, 2.0]}),
}


def test_a_folder_of_a_collection_in_tables(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    for part, table in COLLECTION.items():
        (folder / part).mkdir(parents=True)
        table.to_parquet(folder / part / ("test.parquet" if part == "qrels" else f"{part}.parquet"))
    dataset = imported(folder, tmp_path / "out")
    assert by_id(dataset) == {"q1": {"d1": 1}, "q2": {"d2": 2}}
    assert list(dataset.qrels) == ["test"]
    assert dataset.corpus.documents == ("T one", "two")


def test_a_card_with_configurations_is_read_by_datasets(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "hf"
    folder.mkdir()
    card = ["---", "configs:"]
    for part, table in {
        **COLLECTION,
        "triplet": pandas.DataFrame({"anchor": ["a?"], "positive": ["p"], "negative": ["n"]}),
    }.items():
        table.to_parquet(folder / f"{part}.parquet")
        split = "test" if part == "qrels" else "train"
        card += [f"- config_name: {part}", "  data_files:", f"  - split: {split}", f"    path: {part}.parquet"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    dataset = imported(folder, tmp_path / "out")
    expected = {"q1": {"d1": 1}, "q2": {"d2": 2}}
    assert by_id(dataset) == expected
    triplet = imported(folder, tmp_path / "triplet", Options(tokens=OPTIONS.tokens, config="triplet"))
    assert triples(triplet) == {("a?", "p", 1), ("a?", "n", 0)}


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {"train": datasets.Dataset.from_pandas(frame()[:3]), "test": datasets.Dataset.from_pandas(frame()[3:4])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    dataset = imported(tmp_path / "saved", tmp_path / "out")
    assert triples(dataset) == {(query, f"{title} {answer}", 1) for query, answer, title in ROWS[:4]}
    assert {split: len(judged) for split, judged in dataset.qrels.items()} == {"train": 3, "test": 1}


MARKDOWN = """---
title: Install
---
# Install
Intro.

## Windows
Run it.

```
# no heading
```

Linux
-----
Use apt.
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "install.md").write_text(MARKDOWN)
    (folder / "note.txt").write_text("Plain text.")
    (folder / "sub" / "page.html").write_text(
        "<title>Page</title><nav>menu</nav><h1>Guide</h1><p>Tom &amp; Jerry <b>run</b>\n fast.</p>"
        "<h2>End</h2><p>Bye&#33;</p>"
    )
    (folder / "logo.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("# not this")
    return folder


def test_a_folder_of_texts_with_questions(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "questions.csv").write_text(
        "query,file,heading\nHow on Windows?,install.md,Windows\nWhat note?,note.txt,\nWho runs?,page.html,Guide\n"
    )
    options = Options(tokens=OPTIONS.tokens, queries=tmp_path / "questions.csv")
    dataset = imported(texts, tmp_path / "out", options)
    windows = "Install > Windows Run it.\n\n```\n# no heading\n```"
    runs, bye = "Guide Tom & Jerry run fast.", "Guide > End Bye!"
    assert dataset.corpus.documents == ("Install Intro.", windows, "Install > Linux Use apt.", "Plain text.", runs, bye)
    assert triples(dataset) == {
        *{("How on Windows?", windows, 1), ("What note?", "Plain text.", 1)},
        *{("Who runs?", runs, 1), ("Who runs?", bye, 1)},
    }
    chunks = read_chunks(tmp_path / "out")
    assert [chunk.id for chunk in chunks] == list(dataset.corpus.ids)
    assert [chunk.headings for chunk in chunks][:3] == [("Install",), ("Install", "Windows"), ("Install", "Linux")]
    sources = [(texts / chunk.file).read_text()[chunk.start : chunk.end] for chunk in chunks]
    assert sources[:4] == list(dataset.corpus.texts[:4]), "the map leads to the text itself"
    assert sources[4:] == ["Tom &amp; Jerry <b>run</b>\n fast.", "Bye&#33;"]
    assert "left out: files of another kind (.png): 1" in describe(understand(str(texts), options))


def test_a_folder_of_texts_alone_is_a_corpus(texts: Path, tmp_path: Path) -> None:
    write_dataset(assemble(understand(str(texts), OPTIONS), "docs"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["chunks.jsonl", "corpus.jsonl"]


def pdf(words: str) -> bytes:
    """One page with one line of text, as the format's standard describes it."""
    drawn = f"BT /F1 12 Tf 72 720 Td ({words}) Tj ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
    ]
    content, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n{len(content)}\n%%EOF\n"
    return f"{content}xref\n0 5\n0000000000 65535 f \n{table}{trailer}".encode()


def test_a_folder_of_pdf(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "pumps.pdf").write_bytes(pdf("A page about pumps and valves."))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    source = understand(str(folder), OPTIONS)
    assert [document.text for document in source.documents] == ["A page about pumps and valves."]
    assert source.left_out == {"files that cannot be read": 1}
