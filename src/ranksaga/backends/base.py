"""Where a run executes. A back end gets a recipe and a folder and gives back the outcome."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ranksaga.config.recipe import Recipe
from ranksaga.errors import UsageError
from ranksaga.run.console import Terminal
from ranksaga.run.folder import check_owner, check_run_folder
from ranksaga.run.pipeline import Outcome, finished, run_recipe

__all__ = ["check_place", "collect", "launch"]


def launch(
    recipe: Recipe,
    folder: Path,
    *,
    on: str = "local",
    detach: bool = False,
    start: str | None = None,
    stop: str | None = None,
    fresh: bool = False,
) -> Outcome:
    """Execute a recipe.

    Raises:
        UsageError: the place is unknown, a package it needs is not installed, or the folder is not a run's.
    """
    place = check_place(on, detach=detach)
    # Here as well as in the run itself: no other process or machine is started in vain.
    check_run_folder(folder, recipe.model, (*recipe.datasets, *recipe.guards))
    if place == "modal":
        return _on_modal(recipe, folder, on.partition(":")[2], detach=detach, start=start, stop=stop, fresh=fresh)
    if place == "local":
        return run_recipe(recipe, folder, Terminal(), start=start, stop=stop, fresh=fresh)
    run = _on_torchrun if place == "torchrun" else _on_ray
    execute = run(on.partition(":")[2])
    # Before anything is started: there may be nothing to do.
    if not fresh and start is None and stop is None and (done := finished(recipe, folder)) is not None:
        return done
    return execute(recipe, folder, start=start, stop=stop, fresh=fresh)


def check_place(on: str, *, detach: bool = False) -> str:
    """The back end's name in ``--on``; nothing is started or loaded.

    Raises:
        UsageError: the place is unknown, or a package it needs is not installed.
    """
    place, _, where = on.partition(":")
    if place not in ("local", "torchrun", "ray", "modal") or (place == "local" and where):
        raise UsageError(f"--on {on}: expected local, torchrun:N, ray[:N|:ADDRESS] or modal[:GPU]")
    if place == "modal":
        _needs_modal()
    elif detach:
        raise UsageError("--detach: this run ends with its terminal; use your shell (nohup ... &), or --on modal")
    if place == "ray":
        _needs_ray()
    if place == "torchrun":
        from ranksaga.backends.torchrun import parse_count

        parse_count(where)
    return place


def collect(run: str, folder: Path) -> None:
    """Fetch what a run on Modal has so far, waiting for what is under way.

    Raises:
        RankSagaError: Modal is not installed or cannot be used, the run failed, or the folder is not a run's.
    """
    check_owner(folder)
    _needs_modal()
    from ranksaga.backends.modal_cloud import collect as from_modal

    from_modal(run, folder)


def _on_modal(recipe: Recipe, folder: Path, gpu: str, **options: Any) -> Outcome:
    _needs_modal()
    from ranksaga.backends.modal_cloud import GPU, parse_gpu, run_on_modal

    return run_on_modal(recipe, folder, gpu=parse_gpu(gpu or GPU), **options)


def _on_torchrun(where: str) -> Callable[..., Outcome]:
    from ranksaga.backends.torchrun import parse_count, run_on_torchrun

    return partial(run_on_torchrun, count=parse_count(where))


def _on_ray(where: str) -> Callable[..., Outcome]:
    _needs_ray()
    from ranksaga.backends.ray_cluster import parse_place, run_on_ray

    return partial(run_on_ray, place=parse_place(where))


def _needs_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise UsageError('the package ray is not installed, which Ray needs; install: pip install "ranksaga[ray]"')


def _needs_modal() -> None:
    if importlib.util.find_spec("modal") is None:
        raise UsageError(
            'the package modal is not installed, which Modal needs; install: pip install "ranksaga[modal]"'
        )
