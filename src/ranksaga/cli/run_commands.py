"""Commands that run a recipe, or say what that would take."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ranksaga.cli.output import Json, Out, Set, echo

if TYPE_CHECKING:
    from ranksaga.config.recipe import Recipe

__all__ = ["estimate", "finetune", "run"]


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
        echo(f"{dump_recipe(resolved)}# folder: {folder}")
        for stage, done in stages_done(resolved, folder):
            echo(f"# {stage.name:10s} {'done' if done else 'to do':5s}  {stage.description}")
        return
    with profiled() if profile else nullcontext() as times:
        outcome = launch(resolved, out / resolved.name, on=on, detach=detach, start=start, stop=stop, fresh=fresh)
    if times is not None:
        echo(f"{write_profile(times, resolved, out / resolved.name)}\n", err=as_json)
    if as_json:
        echo(json.dumps(outcome.as_json(), indent=2))
    else:
        echo(outcome.text())


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


def finetune(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).")], out: Out = Path("runs"), set_: Set = None
) -> None:
    """Fine-tune only: the stages data to select of a run."""
    from ranksaga.run.stages import SELECT

    run(recipe=recipe, out=out, stop=SELECT.name, set_=set_)


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
    echo(json.dumps(found.as_json(), indent=2) if as_json else found.text())
