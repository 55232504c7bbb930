"""The command line: thin commands over the library. Results to stdout, progress to stderr."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ranksaga import __version__
from ranksaga.cli_datasets import datasets_import, generate_queries, init
from ranksaga.errors import Interrupted, RankSagaError, RegressionError, UsageError, machine_errors
from ranksaga.untrusted.escape import one_line, printable, without_secrets

if TYPE_CHECKING:
    from ranksaga.config.recipe import Recipe
    from ranksaga.data.dataset import Dataset

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """All commands. What stops one that a user can do something about is raised as an error of ours."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            with machine_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt:  # typer itself would end without a word
            raise Interrupted("interrupted; the same command continues from here") from None
        except OSError as error:
            if error.errno == errno.EPIPE or error.filename is None:
                raise
            raise UsageError(f"{error.filename}: {error.strerror or error}; mend that, or name another path") from None


app = typer.Typer(
    name="ranksaga",
    cls=Commands,
    help="Make an embedding model better at retrieval on every dataset it is given, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
datasets_app = typer.Typer(help="List, show, get, check, import and build datasets.", no_args_is_help=True)
app.add_typer(datasets_app, name="datasets")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Out = Annotated[Path, typer.Option("--out", help="Folder that receives the run.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe.")]


class _Formatter(logging.Formatter):
    """Log lines that foreign text can neither leave nor act in, and without tokens."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """One line, whatever the message holds."""
        record.message = one_line(without_secrets(record.message))
        return super().formatMessage(record)


def _echo(text: str, *, err: bool = False) -> None:
    """Print; foreign text in it cannot act on the terminal."""
    typer.echo(printable(text), err=err)


def _version(wanted: bool) -> None:
    if wanted:
        _echo(f"ranksaga {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the library's log on stderr.")] = False,
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.ERROR)


@app.command()
def run(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (YAML); none: the offline quickstart.")] = None,
    out: Out = Path("runs"),
    on: Annotated[
        str, typer.Option("--on", metavar="WHERE", help="local | torchrun:N | ray[:N|:ADDRESS] | modal[:GPU]")
    ] = "local",
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; the run goes on where it is (modal).")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Do this stage and the later ones again.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Reuse nothing.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the resolved recipe, and which stages are done and to do; do nothing."),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write where the time of this process went (profile.json) and show it.")
    ] = False,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Benchmark, fine-tune on all datasets, benchmark again, compare, report."""
    from ranksaga.backends.base import launch
    from ranksaga.config.load import load_recipe
    from ranksaga.config.recipe import dump_recipe
    from ranksaga.profile import profiled
    from ranksaga.run.pipeline import stages_done
    from ranksaga.run.profiling import write_profile
    from ranksaga.run.stages import check_stages

    resolved = load_recipe(recipe, set_ or [])
    check_stages(start, stop)
    if dry_run:
        _check_names(resolved, on, detach=detach)
        folder = out / resolved.name
        _echo(f"{dump_recipe(resolved)}# folder: {folder}")
        for stage, done in stages_done(resolved, folder):
            _echo(f"# {stage.name:10s} {'done' if done else 'to do':5s}  {stage.description}")
        return
    with profiled() if profile else nullcontext() as times:
        outcome = launch(resolved, out / resolved.name, on=on, detach=detach, start=start, stop=stop, fresh=fresh)
    if times is not None:
        _echo(f"{write_profile(times, resolved, out / resolved.name)}\n", err=as_json)
    if as_json:
        _echo(json.dumps(outcome.as_json(), indent=2))
    else:
        _echo(outcome.text())


def _check_names(recipe: Recipe, on: str, *, detach: bool) -> None:
    """Refuse a place, a model or a dataset that is not there; nothing is loaded or downloaded."""
    from ranksaga.backends.base import check_place
    from ranksaga.data.resolve import check_name
    from ranksaga.encode.models import locate
    from ranksaga.errors import ModelError

    check_place(on, detach=detach)
    model = locate(recipe.model)
    if not Path(model).is_dir() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is None:
        raise ModelError(f"{recipe.model}: neither a folder nor a hub id; name a saved model's folder or org/name")
    for name in (*recipe.datasets, *recipe.guards):
        check_name(name)


@app.command()
def finetune(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).")], out: Out = Path("runs"), set_: Set = None
) -> None:
    """Fine-tune only: the stages data to select of a run."""
    from ranksaga.run.stages import SELECT

    run(recipe=recipe, out=out, stop=SELECT.name, set_=set_)


@app.command()
def benchmark(
    model: Annotated[str, typer.Option("--model", "-m", help="Folder, hub id, or minilm.")],
    dataset: Annotated[list[str], typer.Option("--dataset", "-d", help="Dataset; repeat for more.")],
    split: Annotated[str, typer.Option(help="Split that is scored.")] = "test",
    precision: Annotated[str, typer.Option(help="auto | fp32 | bf16 | fp16")] = "auto",
    max_length: Annotated[int | None, typer.Option(min=8, help="Tokens per text; none: the model's own limit.")] = None,
    query_prompt: Annotated[
        str | None, typer.Option(help="Put before every query; none: what the model's config or family says.")
    ] = None,
    document_prompt: Annotated[str | None, typer.Option(help="Put before every document, likewise.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load weights that are not safetensors; a pickle can run code.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for MTEB-layout results and TREC runs.")] = None,
    as_json: Json = False,
) -> None:
    """Score a model on datasets: nDCG, MAP, recall, precision and MRR."""
    from ranksaga.run.console import Terminal
    from ranksaga.run.model_results import benchmark_model

    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise UsageError(f"--precision {precision}: expected auto, fp32, bf16 or fp16")
    results = benchmark_model(
        model,
        dataset,
        split=split,
        precision=precision,
        max_length=max_length,
        out=out,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        console=Terminal(),
    )
    if as_json:
        _echo(json.dumps({r.dataset: {key: r.mean(key) for key in r.values} for r in results}, indent=2))
        return
    for result in results:
        shown = ("ndcg_at_10", "map_at_100", "recall_at_100", "mrr_at_10")
        figures = "  ".join(f"{key} {result.mean(key):.4f}" for key in shown)
        _echo(f"{result.dataset:24s} {figures}  ({len(result.query_ids)} queries)")


@app.command()
def compare(
    baseline: Annotated[Path, typer.Argument(help="The first model: folder of benchmark --out, or a run.")],
    candidate: Annotated[Path, typer.Argument(help="The second model, likewise.")],
    fail_on_regression: Annotated[
        bool,
        typer.Option("--fail-on-regression", help="Exit 3 where a dataset got significantly worse, or may have."),
    ] = False,
    allow_other_settings: Annotated[
        bool,
        typer.Option("--allow-other-settings", help="Let --fail-on-regression pass where prompts or lengths differ."),
    ] = False,
    max_loss: Annotated[
        str | None,
        typer.Option("--max-loss", metavar="PERCENT", help="Exit 3 where a dataset lost more, proven or not."),
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="What is compared, such as recall_at_100.")] = "ndcg_at_10",
    form: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="text, json, markdown or junit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two measured models, query by query, with significance tests."""
    from ranksaga.run.model_comparison import Limits, compare_results

    form = form or ("json" if as_json else "text")
    if form not in ("text", "json", "markdown", "junit"):
        raise UsageError(f"--format {form}: expected text, json, markdown or junit")
    limits = Limits(_percentage(max_loss) if max_loss is not None else None, allow_other_settings)
    compared = compare_results(baseline, candidate, metric=metric)
    if form == "json":
        _echo(json.dumps(compared.as_json(), indent=2))
    elif form == "junit":
        _echo(compared.as_junit(limits))
    else:
        _echo(compared.as_text() if form == "text" else compared.as_markdown())
    if form in ("json", "junit"):
        for remark in compared.remarks:
            _echo(remark, err=True)
    failures = compared.failures(limits)
    if (fail_on_regression or max_loss is not None) and failures:
        raise RegressionError(
            "; ".join(f"{name}: {reason}" if name else reason for name, why in failures.items() for reason in why)
        )


def _percentage(text: str) -> float:
    """``2%`` or ``2`` as 2.0."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UsageError(f"--max-loss {text}: expected a percentage from 0 to 100, such as 2%")
    return value


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folder of a run, or of several.")],
    as_json: Json = False,
) -> None:
    """Make a finished run's report again from its files; of several runs, print one leaderboard."""
    if len(runs) > 1:
        from ranksaga.report.markdown import markdown_table
        from ranksaga.run.leaderboard import leaderboard

        board = leaderboard(runs)
        left_out = f"\nnot measured by every run: {', '.join(board.left_out)}" if board.left_out else ""
        _echo(json.dumps(board.as_json(), indent=2) if as_json else markdown_table(board.table()) + left_out)
        return
    (run_folder,) = runs
    from ranksaga.backends.base import launch
    from ranksaga.config.load import load_recipe
    from ranksaga.run.pipeline import is_finished
    from ranksaga.run.stages import REPORT

    source = run_folder / "recipe.yaml"
    if not source.is_file():
        raise UsageError(f"{run_folder}: no recipe.yaml there, so it is no run; name a folder that ranksaga run made")
    recipe = load_recipe(source, environment={})
    if not is_finished(recipe, run_folder):
        raise UsageError(
            f"{run_folder}: the run is not finished, or what it reads has changed since; "
            f"go on with: ranksaga run {source} --out {run_folder.parent}"
        )
    outcome = launch(recipe, run_folder, start=REPORT.name)
    _echo(json.dumps(outcome.as_json(), indent=2) if as_json else outcome.text())


@app.command()
def estimate(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (YAML); none: the offline quickstart.")] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="A card, such as A10G or H100; none: this machine.")] = None,
    price: Annotated[
        str | None, typer.Option("--price", metavar="USD_PER_HOUR", help="What an hour costs; none: the list price.")
    ] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Say what a run will take, in time and money per stage, without running it."""
    from ranksaga.config.load import load_recipe
    from ranksaga.run.gpu_prices import find_gpu, parse_price

    resolved = load_recipe(recipe, set_ or [])
    hourly = parse_price(price, "--price") if price is not None else None
    if gpu is not None:
        find_gpu(gpu)  # before torch is loaded
    from ranksaga.estimate.estimate import estimate as estimated
    from ranksaga.run.console import Terminal

    found = estimated(resolved, Terminal(), gpu=gpu, price=hourly)
    _echo(json.dumps(found.as_json(), indent=2) if as_json else found.text())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show what this machine offers: versions, devices, precision, folders."""
    from ranksaga.run.environment import describe_environment

    facts = describe_environment(probe=True)
    _echo(json.dumps(facts, indent=2) if as_json else "\n".join(f"{key:24s} {value}" for key, value in facts.items()))


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all cached vectors.")] = False, as_json: Json = False
) -> None:
    """Show the vectors that are kept on disk (RANKSAGA_HOME; at most RANKSAGA_CACHE_GB, 20), or delete them."""
    from dataclasses import asdict

    from ranksaga.encode.cache_folders import cached_models, clear_cache

    if clear:
        freed = clear_cache()
        _echo(json.dumps({"freed_bytes": freed}) if as_json else f"{freed / 1e6:.1f} MB freed")
        return
    models = cached_models()
    if as_json:
        _echo(json.dumps([asdict(model) for model in models], indent=2))
        return
    for model in models:
        _echo(f"{model.identity}  {model.texts:9d} texts  {model.size / 1e6:9.1f} MB  {model.label}")
    _echo(f"{sum(model.size for model in models) / 1e6:.1f} MB in all")


@datasets_app.command("list")
def datasets_list(as_json: Json = False) -> None:
    """All names that resolve: here, in the cache, and in the catalogue of public BEIR sets."""
    from ranksaga.data.catalog import catalog
    from ranksaga.data.resolve import available

    rows: list[dict[str, Any]] = [{"name": found.name, "where": found.where} for found in available()]
    rows += [{"name": name, "where": "catalogue"} for name in catalog() if name not in {row["name"] for row in rows}]
    _echo(json.dumps(rows, indent=2) if as_json else "\n".join(f"{row['name']:28s} {row['where']}" for row in rows))


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
        _echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if key == "splits":
            for split, counts in value.items():
                _echo(f"{split:12s} " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        elif key == "example":
            for part, text in value.items():
                _echo(f"{part:12s} {text}")
        else:
            _echo(f"{key:12s} {value}")


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
    _echo(json.dumps(counts, indent=2) if as_json else plain)


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
        _echo(json.dumps([{**asdict(f), "file": str(f.file)} for f in findings], indent=2))
    else:
        for finding in findings:
            line = f":{finding.line}" if finding.line else ""
            _echo(f"{finding.level}: {finding.file}{line}: {finding.message}")
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise UsageError(f"{path}: {errors} error{'s' * (errors > 1)}; mend the lines above")
    if not as_json:
        _echo(f"{path}: good")


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
    _echo(f"{target}: {len(dataset.corpus)} documents, {len(dataset.queries)} queries")


datasets_app.command("import")(datasets_import)
datasets_app.command("generate-queries")(generate_queries)
app.command()(init)


def main() -> None:
    """Entry point: errors that RankSaga raises on purpose become one line and an exit code."""
    try:
        app()
    except RankSagaError as error:
        _echo(f"ranksaga: {one_line(without_secrets(str(error)))}", err=True)
        sys.exit(error.exit_code)
