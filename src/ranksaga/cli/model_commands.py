"""Commands about measured models: benchmark them, compare them, show them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ranksaga.cli.output import Json, echo
from ranksaga.errors import RegressionError, UsageError

__all__ = ["benchmark", "compare", "report"]


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
        echo(json.dumps({r.dataset: {key: r.mean(key) for key in r.values} for r in results}, indent=2))
        return
    for result in results:
        shown = ("ndcg_at_10", "map_at_100", "recall_at_100", "mrr_at_10")
        figures = "  ".join(f"{key} {result.mean(key):.4f}" for key in shown)
        echo(f"{result.dataset:24s} {figures}  ({len(result.query_ids)} queries)")


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
        echo(json.dumps(compared.as_json(), indent=2))
    elif form == "junit":
        echo(compared.as_junit(limits))
    else:
        echo(compared.as_text() if form == "text" else compared.as_markdown())
    if form in ("json", "junit"):
        for remark in compared.remarks:
            echo(remark, err=True)
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
        echo(json.dumps(board.as_json(), indent=2) if as_json else markdown_table(board.table()) + left_out)
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
    echo(json.dumps(outcome.as_json(), indent=2) if as_json else outcome.text())
