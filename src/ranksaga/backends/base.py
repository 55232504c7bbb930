"""Where a run executes. A back end gets a recipe and a folder and gives back the outcome."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ranksaga.errors import UsageError
from ranksaga.recipe import Recipe
from ranksaga.run.pipeline import Outcome, run_recipe
from ranksaga.run.voice import Terminal

__all__ = ["collect", "launch"]


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
        UsageError: the place is unknown, or is not available in this version.
    """
    place = on.split(":")[0]
    if place not in ("local", "torchrun", "ray", "modal"):
        raise UsageError(f"--on {on}: expected local, torchrun:N, ray[:ADDRESS] or modal[:GPU]")
    if place == "modal":
        return _on_modal(recipe, folder, on.partition(":")[2], detach=detach, start=start, stop=stop, fresh=fresh)
    if place != "local":
        raise UsageError(f"--on {on}: this version runs on local and modal; leave --on out")
    if detach:
        raise UsageError("--detach: a local run ends with its terminal; use your shell (nohup ... &), or --on modal")
    return run_recipe(recipe, folder, Terminal(), start=start, stop=stop, fresh=fresh)


def collect(run: str, folder: Path) -> None:
    """Fetch what a run on Modal has so far, waiting for what is under way.

    Raises:
        RankSagaError: Modal is not installed or cannot be used, or the run failed.
    """
    _needs_modal()
    from ranksaga.backends.modal_cloud import collect as from_modal

    from_modal(run, folder)


def _on_modal(recipe: Recipe, folder: Path, gpu: str, **options: Any) -> Outcome:
    _needs_modal()
    from ranksaga.backends.modal_cloud import GPU, parse_gpu, run_on_modal

    return run_on_modal(recipe, folder, gpu=parse_gpu(gpu or GPU), **options)


def _needs_modal() -> None:
    if importlib.util.find_spec("modal") is None:
        raise UsageError(
            'the package modal is not installed, which Modal needs; install: pip install "ranksaga[modal]"'
        )
