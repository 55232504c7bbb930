"""Commands about datasets, and the first recipe for those that lie here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ranksaga.cli.output import Json, echo
from ranksaga.errors import UsageError
from ranksaga.files import write_text

if TYPE_CHECKING:
    from ranksaga.data.beir_files import Finding
    from ranksaga.data.dataset import Dataset
    from ranksaga.data.importing.chunking import Tokens

__all__ = ["datasets_app", "init"]

datasets_app = typer.Typer(help="List, show, get, check, import and build datasets.", no_args_is_help=True)


@datasets_app.command("list")
def datasets_list(as_json: Json = False) -> None:
    """All names that resolve: here, in the cache, and in the catalogue of public BEIR sets."""
    from ranksaga.data.catalog import catalog
    from ranksaga.data.resolve import available

    rows: list[dict[str, Any]] = [{"name": found.name, "where": found.where} for found in available()]
    rows += [{"name": name, "where": "catalogue"} for name in catalog() if name not in {row["name"] for row in rows}]
    echo(json.dumps(rows, indent=2) if as_json else "\n".join(f"{row['name']:28s} {row['where']}" for row in rows))


@datasets_app.command("show")
def datasets_show(name: str, as_json: Json = False) -> None:
    """Counts, splits and a first example of a dataset."""
    from ranksaga.data.resolve import load_dataset

    dataset = load_dataset(name)
    facts: dict[str, Any] = {
        "name": dataset.name,
        "documents": len(dataset.corpus),
        "queries": len(dataset.queries),
        "splits": {
            split: {"queries": len(judged.query_rows), "judgments": len(judged), "positives": len(judged.positives)}
            for split, judged in dataset.qrels.items()
        },
        "fingerprint": dataset.fingerprint,
        "example": _example(dataset),
    }
    if as_json:
        echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if key == "splits":
            for split, counts in value.items():
                echo(f"{split:12s} " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        elif key == "example":
            for part, text in value.items():
                echo(f"{part:12s} {text}")
        else:
            echo(f"{key:12s} {value}")


def _example(dataset: Dataset) -> dict[str, str]:
    """The first query that has a relevant document, and that document, each by id and how its text begins."""
    for judged in dataset.qrels.values():
        if len(judged.positives):
            query, document = int(judged.positives.queries[0]), int(judged.positives.documents[0])
            texts = {
                "query": (dataset.queries.ids[query], dataset.queries.texts[query]),
                "relevant": (dataset.corpus.ids[document], dataset.corpus.documents[document]),
            }
            return {part: f"{name}: {shorten(text, 200)}" for part, (name, text) in texts.items()}
    return {}


@datasets_app.command("get")
def datasets_get(name: str, as_json: Json = False) -> None:
    """Download a dataset into the cache (or find it there) and check it."""
    from ranksaga.data.resolve import load_dataset

    dataset = load_dataset(name)
    counts = {"name": dataset.name, "documents": len(dataset.corpus), "queries": len(dataset.queries)}
    plain = "{name}: {documents} documents, {queries} queries".format(**counts)
    echo(json.dumps(counts, indent=2) if as_json else plain)


@datasets_app.command("check")
def datasets_check(
    path: Path,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Also say what this model cuts off of the documents.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List every problem of a BEIR folder with file and line. Exit code 2 where there is an error."""
    from dataclasses import asdict

    from ranksaga.data.check import check_beir

    findings = check_beir(path)
    if model is not None and not any(finding.level == "error" for finding in findings):
        from ranksaga.run.model_results import check_lengths

        findings += check_lengths(model, path)
    if as_json:
        echo(json.dumps([{**asdict(f), "file": str(f.file)} for f in findings], indent=2))
    _say(findings, path, quiet=as_json)


def _say(findings: Sequence[Finding], path: Path, *, quiet: bool = False) -> None:
    """One line a problem, and whether the dataset can be used; ``quiet``: only what stops it."""
    if not quiet:
        for finding in findings:
            echo(f"{finding.level}: {finding}")
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise UsageError(f"{path}: {errors} error{'s' * (errors > 1)}; mend the lines above")
    if not quiet:
        echo(f"{path}: good")


@datasets_app.command("build")
def datasets_build(
    source: Annotated[str, typer.Argument(help="python:NAME, or a folder of Python source.")],
    target: Annotated[Path, typer.Argument(help="BEIR folder to write.")],
) -> None:
    """Build a dataset from Python source: docstring summaries as queries, functions as documents."""
    from ranksaga.data.beir import write_beir
    from ranksaga.data.build import build_python
    from ranksaga.data.resolve import load_dataset

    if os.path.lexists(target):
        raise UsageError(f"{target}: exists already; name a new folder")
    dataset = load_dataset(source) if source.startswith("python:") else build_python(Path(source))
    write_beir(dataset, target)
    echo(f"{target}: {len(dataset.corpus)} documents, {len(dataset.queries)} queries")


@datasets_app.command("import")
def datasets_import(
    source: Annotated[
        str,
        typer.Argument(
            help="CSV, TSV, XLSX, JSON, JSON lines or Parquet file; a folder of texts, of tables, or of a TREC "
            "collection; irds:ID; an id on the Hugging Face hub (hf:ORG/NAME)."
        ),
    ],
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="BEIR folder to write.")] = None,
    query: Annotated[str, typer.Option(metavar="COLUMN", help="Column of queries; none: found by its name.")] = "",
    document: Annotated[str, typer.Option(metavar="COLUMN", help="Of relevant documents (lists, too).")] = "",
    title: Annotated[str, typer.Option(metavar="COLUMN", help="Of the documents' titles.")] = "",
    identifier: Annotated[str, typer.Option("--id", metavar="COLUMN", help="Of the documents' ids.")] = "",
    query_id: Annotated[str, typer.Option(metavar="COLUMN", help="Of the queries' ids.")] = "",
    negative: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Of documents that are not relevant; repeat for more.")
    ] = None,
    score: Annotated[str, typer.Option(metavar="COLUMN", help="Of grades: 0 is not relevant.")] = "",
    split: Annotated[str, typer.Option(metavar="COLUMN", help="Of splits: train, dev or test.")] = "",
    config: Annotated[str | None, typer.Option(help="Configuration of a Hugging Face dataset.")] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of a workbook; none: the first.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of text files; none: found for each.")] = None,
    topics: Annotated[Path | None, typer.Option(help="Topics of a TREC collection; SOURCE is its documents.")] = None,
    qrels: Annotated[list[Path] | None, typer.Option(help="Its judgments; repeat for train, dev and test.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Of a folder of texts: a table of questions, each with a file and a heading.")
    ] = None,
    model: Annotated[str, typer.Option(help="Of a folder of texts: the model whose tokens count.")] = "minilm",
    tokens: Annotated[
        int | None, typer.Option(min=8, help="Of a folder of texts: most tokens of a document; none: the model's own.")
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(metavar="SHARES", help="Where the source has no test split: train=0.6,dev=0.15,test=0.25"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is understood, and write nothing.")] = False,
) -> None:
    """Make a checked dataset of your own files: tables, collections, or a folder of texts."""
    from ranksaga.data.importing.assemble import assemble, parse_shares
    from ranksaga.data.importing.columns import Columns
    from ranksaga.data.importing.importer import Options, describe, describe_result, understand, write_dataset

    if to is None and not dry_run:
        raise UsageError("--to is missing: name the folder to write, or give --dry-run to see what is understood")
    if to is not None and os.path.lexists(to):
        raise UsageError(f"{to}: exists already; name a new folder")
    shares = parse_shares(splits)
    named = Columns(query, document, title, identifier, query_id, tuple(negative or ()), score, split)
    options = Options(
        tokens=lambda: _tokens_of(model, tokens),
        named=named,
        config=config,
        sheet=sheet,
        encoding=encoding,
        topics=topics,
        qrels=tuple(qrels or ()),
        queries=queries,
    )
    understood = understand(source, options)
    echo(describe(understood))
    assembled = assemble(understood, to.name if to is not None else "dataset", shares=shares, seed=seed)
    echo(describe_result(assembled))
    if dry_run:
        echo("nothing is written (--dry-run)")
        return
    assert to is not None
    write_dataset(assembled, to)
    _check(to, has_queries=bool(assembled.dataset.queries.ids))


@datasets_app.command("generate-queries")
def generate_queries(
    corpus: Annotated[Path, typer.Argument(help="Folder with corpus.jsonl, such as an imported folder of texts.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="BEIR folder to write.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible API, such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option(help="Model that writes, as the endpoint calls it.")],
    documents: Annotated[int, typer.Option(min=1, help="Documents that are asked about, at most.")] = 500,
    per_document: Annotated[int, typer.Option(min=1, max=20, help="Queries a document.")] = 2,
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="US dollars of a million tokens, to the model and from it.")
    ] = None,
    filter_: Annotated[
        str, typer.Option("--filter", help="Who must bring the document back: bm25, a model (minilm), or none.")
    ] = "bm25",
    depth: Annotated[int, typer.Option(min=1, help="Among so many best documents.")] = 10,
    splits: Annotated[str | None, typer.Option(metavar="SHARES", help="train=0.6,dev=0.15,test=0.25")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of documents and of the splits.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and ask nothing.")] = False,
) -> None:
    """Let a language model write queries for documents. The key is read from RANKSAGA_API_KEY or OPENAI_API_KEY."""
    from ranksaga.data.importing.assemble import parse_shares
    from ranksaga.data.importing.chat import Chat
    from ranksaga.data.importing.importer import describe_result, write_dataset
    from ranksaga.run.console import Terminal
    from ranksaga.run.generated_queries import choose_documents, estimate_cost, generate, read_corpus, round_trip

    if os.path.lexists(to):
        raise UsageError(f"{to}: exists already; name a new folder")
    shares, prices = parse_shares(splits), _prices(price)
    chat = Chat(endpoint, model)
    texts = read_corpus(corpus)
    rows = choose_documents(texts, documents, seed)
    echo(str(estimate_cost(texts, rows, chat, per_document, prices)))
    if dry_run:
        echo("nothing is asked (--dry-run)")
        return
    keep = None
    if filter_ == "bm25":
        keep = round_trip(depth)
    elif filter_ != "none":
        from ranksaga.encode.encoder import load_encoder

        keep = round_trip(depth, load_encoder(filter_, cached=True))  # before anything is paid for
    made = generate(corpus, texts, rows, chat, Terminal(), count=per_document, keep=keep, shares=shares, seed=seed)
    echo(f"{made.written} queries written, {made.doubled} double, {made.lost} whose document did not come back")
    echo(describe_result(made.assembled))
    write_dataset(made.assembled, to)
    echo("test queries are generated, too: figures say how well such questions are answered, not those of people")
    _check(to, has_queries=True)


def _prices(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        before, after = (float(part) for part in text.split(","))
    except ValueError:
        before = after = -1.0
    if not (0 <= before < float("inf") and 0 <= after < float("inf")):
        raise UsageError(f"--price {text}: expected two prices of a million tokens in US dollars, such as 0.15,0.60")
    return before, after


def init(
    recipe: Annotated[Path, typer.Argument(help="Recipe file to write (YAML).")] = Path("recipe.yaml"),
    quick: Annotated[
        bool, typer.Option("--quick", help="About ten minutes on two cores: parts of large datasets, fewer steps.")
    ] = False,
) -> None:
    """Look at the files here and write a commented recipe; tables are imported into ./datasets on the way."""
    from ranksaga.run.first_recipe import look, make_datasets, recipe_text

    if os.path.lexists(recipe):
        raise UsageError(f"{recipe}: exists already; name another file")
    if recipe.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{recipe}: a recipe is a YAML file; name it {recipe.with_suffix('.yaml')}")
    here = Path()
    seen = make_datasets(here, look(here), quick=quick)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", here.resolve().name).lstrip("._-") or "run"
    text = recipe_text(seen, name=name, file=str(recipe), quick=quick)
    write_text(recipe, text)
    echo(f"{text}\n# {recipe} is written; see what it does: ranksaga run {recipe} --dry-run")


def _tokens_of(model: str, limit: int | None) -> Tokens:
    from ranksaga.encode.document_tokens import document_tokens
    from ranksaga.encode.encoder import load_encoder

    return document_tokens(load_encoder(model, precision="fp32", device="cpu"), limit)


def _check(folder: Path, *, has_queries: bool) -> None:
    """End with what ``datasets check`` says."""
    from ranksaga.data.check import check_beir

    if not has_queries:
        echo(
            f"{folder}: documents only, without queries yet; import again with --queries TABLE (query, file, "
            "heading), or let a language model write some: ranksaga datasets generate-queries"
        )
        return
    _say(check_beir(folder), folder)
