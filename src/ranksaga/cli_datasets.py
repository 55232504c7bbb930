"""Commands that begin with a person's own files: into a dataset, and into a first recipe."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ranksaga.errors import UsageError
from ranksaga.files import write_text

if TYPE_CHECKING:
    from ranksaga.data.importing.chunking import Tokens

__all__ = ["datasets_import", "generate_queries", "init"]


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
    from ranksaga.data.importing.columns import Named
    from ranksaga.data.importing.importer import Options, describe, describe_result, understand, write_dataset

    if to is None and not dry_run:
        raise UsageError("--to is missing: name the folder to write, or give --dry-run to see what is understood")
    if to is not None and os.path.lexists(to):
        raise UsageError(f"{to}: exists already; name a new folder")
    shares = parse_shares(splits)
    named = Named(query, document, title, identifier, query_id, tuple(negative or ()), score, split)
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
    typer.echo(describe(understood))
    assembled = assemble(understood, to.name if to is not None else "dataset", shares=shares, seed=seed)
    typer.echo(describe_result(assembled))
    if dry_run:
        typer.echo("nothing is written (--dry-run)")
        return
    assert to is not None
    write_dataset(assembled, to)
    _check(to, has_queries=bool(assembled.dataset.queries.ids))


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
    typer.echo(estimate_cost(texts, rows, chat, per_document, prices))
    if dry_run:
        typer.echo("nothing is asked (--dry-run)")
        return
    keep = None
    if filter_ == "bm25":
        keep = round_trip(depth)
    elif filter_ != "none":
        from ranksaga.encode.encoder import load_encoder

        keep = round_trip(depth, load_encoder(filter_, cached=True))  # before anything is paid for
    made = generate(corpus, texts, rows, chat, Terminal(), count=per_document, keep=keep, shares=shares, seed=seed)
    typer.echo(f"{made.written} queries written, {made.doubled} double, {made.lost} whose document did not come back")
    typer.echo(describe_result(made.assembled))
    write_dataset(made.assembled, to)
    typer.echo("test queries are generated, too: figures say how well such questions are answered, not those of people")
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
    typer.echo(f"{text}\n# {recipe} is written; see what it does: ranksaga run {recipe} --dry-run")


def _tokens_of(model: str, limit: int | None) -> Tokens:
    from ranksaga.encode.document_tokens import document_tokens
    from ranksaga.encode.encoder import load_encoder

    return document_tokens(load_encoder(model, precision="fp32", device="cpu"), limit)


def _check(folder: Path, *, has_queries: bool) -> None:
    """End with what ``datasets check`` says."""
    from ranksaga.data.check import check_beir

    if not has_queries:
        typer.echo(
            f"{folder}: documents only, without queries yet; import again with --queries TABLE (query, file, "
            "heading), or let a language model write some: ranksaga datasets generate-queries"
        )
        return
    findings = check_beir(folder)
    for finding in findings:
        typer.echo(f"{finding.level}: {finding}")
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise UsageError(f"{folder}: {errors} error{'s' * (errors > 1)}; mend the lines above")
    typer.echo(f"{folder}: good")
