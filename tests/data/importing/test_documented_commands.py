"""Every import command of docs/datasets.md works on small files of the kind that it names."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pandas  # type: ignore[import-untyped]
import pytest

from ranksaga import cli
from ranksaga.data.importing import importer
from ranksaga.data.importing.chunking import Tokens
from ranksaga.data.resolve import load_dataset

PAGE = Path(__file__).parents[3] / "docs" / "datasets.md"
COMMANDS = re.findall(r"`ranksaga (datasets import [^`]+)`", PAGE.read_text(encoding="utf-8").partition("## Splits")[0])
COMMANDS = [command for command in COMMANDS if "SOURCE" not in command]
ROWS = [("who swims?", "fish swim"), ("who flies?", "birds fly"), ("who barks?", "dogs bark")]


def frame(query: str, document: str) -> pandas.DataFrame:
    return pandas.DataFrame(ROWS, columns=[query, document])


def write_triplets(folder: Path) -> None:
    folder.mkdir()
    frame("anchor", "positive").assign(negative="stones lie").to_parquet(folder / "t.parquet")
    card = "---\nconfigs:\n- config_name: triplet\n  data_files:\n  - split: train\n    path: t.parquet\n---\n"
    (folder / "README.md").write_text(card)


def write_collection(folder: Path) -> None:
    ids = [str(number) for number in range(3)]
    parts = {
        "corpus": pandas.DataFrame({"_id": [f"d{i}" for i in ids], "text": [document for _, document in ROWS]}),
        "queries": pandas.DataFrame({"_id": [f"q{i}" for i in ids], "text": [query for query, _ in ROWS]}),
        "qrels": pandas.DataFrame(
            {"query-id": [f"q{i}" for i in ids], "corpus-id": [f"d{i}" for i in ids], "score": 1}
        ),
    }
    for name, part in parts.items():
        (folder / name).mkdir(parents=True)
        part.to_json(folder / name / "test.jsonl", orient="records", lines=True)


def write_trec(path: Path) -> None:
    numbered = list(enumerate(ROWS))
    path.write_text("\n".join(f"<DOC><DOCNO>{n}</DOCNO>{document}</DOC>" for n, (_, document) in numbered))
    topics = "\n".join(f"<top>\n<num> Number: {n}\n<title> {query}\n</top>" for n, (query, _) in numbered)
    path.with_name("topics.txt").write_text(topics)
    path.with_name("qrels.txt").write_text("".join(f"{n} 0 {n} 1\n" for n, _ in numbered))


def write_handbook(folder: Path) -> None:
    folder.mkdir()
    (folder / "animals.md").write_text("".join(f"# Part {n}\n{document}\n" for n, (_, document) in enumerate(ROWS)))
    rows = "".join(f"{query},animals.md,Part {n}\n" for n, (query, _) in enumerate(ROWS))
    folder.with_name("questions.csv").write_text(f"query,file,heading\n{rows}")


def write_llama(path: Path) -> None:
    numbered = list(enumerate(ROWS))
    value = {
        "queries": {f"q{n}": query for n, (query, _) in numbered},
        "corpus": {f"n{n}": document for n, (_, document) in numbered},
        "relevant_docs": {f"q{n}": [f"n{n}"] for n, _ in numbered},
    }
    path.write_text(json.dumps(value))


def write_lines(path: Path, records: list[object]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


SOURCES: dict[str, Callable[[Path], object]] = {
    "faq.csv": lambda path: frame("question", "answer").to_csv(path, index=False),
    "tickets.tsv": lambda path: frame("subject", "reply").assign(nr=[7, 8, 9]).to_csv(path, index=False, sep="\t"),
    "faq.xlsx": lambda path: frame("question", "answer").to_excel(path, index=False, sheet_name="Questions"),
    "squad.json": lambda path: path.write_text(
        json.dumps({"data": [{"question": query, "answers": {"text": [text]}} for query, text in ROWS]})
    ),
    "log.jsonl": lambda path: write_lines(path, [{"query": query, "passage": text} for query, text in ROWS]),
    "pairs.parquet": lambda path: frame("sentence1", "sentence2").to_parquet(path),
    "hf-triplets": write_triplets,
    "hf-collection": write_collection,
    "docs.sgml": write_trec,
    "qa_dataset.json": write_llama,
    "flag.jsonl": lambda path: write_lines(
        path, [{"query": query, "pos": [text], "neg": ["stones lie"]} for query, text in ROWS]
    ),
    "handbook": write_handbook,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_works(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shlex.split(command)
    source, target = arguments[2], arguments[arguments.index("--to") + 1]
    monkeypatch.chdir(tmp_path)
    library = {".xlsx": "openpyxl", "hf-triplets": "datasets"}.get(Path(source).suffix or source)
    if library:
        pytest.importorskip(library)
    if source.startswith("irds:"):  # its files would be downloaded; the reader itself is tested in test_sources
        monkeypatch.setattr(importer, "irds_source", lambda name: importer.understand("faq.csv", options()))
        SOURCES["faq.csv"](tmp_path / "faq.csv")
    else:
        SOURCES[source](tmp_path / source)
    monkeypatch.setattr("ranksaga.cli.dataset_commands._tokens_of", lambda model, limit: options().tokens())
    monkeypatch.setattr(sys, "argv", ["ranksaga", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert ended.value.code in (0, None), shown.err
    assert "3 examples:" in shown.out
    assert shown.out.endswith(f"{target}: good\n")
    dataset = load_dataset(target)
    judged = {
        (dataset.queries.texts[query], dataset.corpus.texts[document])
        for qrels in dataset.qrels.values()
        for query, document in zip(qrels.positives.queries, qrels.positives.documents, strict=True)
    }
    assert judged == set(ROWS)


def options() -> importer.Options:
    tokens = Tokens(100, lambda texts: [len(text.split()) for text in texts], lambda text: [len(text)])
    return importer.Options(tokens=lambda: tokens)


def test_every_source_has_a_command() -> None:
    assert {shlex.split(command)[2] for command in COMMANDS} == {*SOURCES, "irds:beir/scifact"}


def test_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    SOURCES["faq.csv"](tmp_path / "faq.csv")
    monkeypatch.setattr(sys, "argv", ["ranksaga", "datasets", "import", "faq.csv", "--to", "out", "--dry-run"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "who swims?" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["faq.csv"]


def test_a_folder_that_exists_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    SOURCES["faq.csv"](tmp_path / "faq.csv")
    monkeypatch.setattr(sys, "argv", ["ranksaga", "datasets", "import", "faq.csv", "--to", "."])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "ranksaga: .: exists already; name a new folder\n"


def test_a_library_that_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pdf").mkdir()
    (tmp_path / "pdf" / "a.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr("ranksaga.cli.dataset_commands._tokens_of", lambda model, limit: options().tokens())
    for source, library in (
        ("a.xlsx", "openpyxl"),
        ("pdf", "pypdf"),
        ("irds:x", "ir_datasets"),
        ("hf:a/b", "datasets"),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        name = source if ":" in source else str(tmp_path / source)
        monkeypatch.setattr(sys, "argv", ["ranksaga", "datasets", "import", name, "--dry-run"])
        with pytest.raises(SystemExit):
            cli.main()
        said = capsys.readouterr().err
        assert said.endswith(f'needs {library}, which is not installed: pip install "ranksaga[import]"\n')
        assert said.count("\n") == 1
