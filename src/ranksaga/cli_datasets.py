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

__all__ = ["datasets_import", "init"]


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
            f"{folder}: documents only, without queries yet; import again with --queries TABLE (query, file, heading)"
        )
        return
    findings = check_beir(folder)
    for finding in findings:
        typer.echo(f"{finding.level}: {finding}")
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise UsageError(f"{folder}: {errors} error{'s' * (errors > 1)}; mend the lines above")
    typer.echo(f"{folder}: good")
