"""Where a run executes. A back end gets a recipe and a folder and gives back the outcome."""

from __future__ import annotations

from pathlib import Path

from ranksaga.errors import UsageError
from ranksaga.recipe import Recipe
from ranksaga.run.pipeline import Outcome, run_recipe
from ranksaga.run.voice import Terminal

__all__ = ["launch"]


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
    if place != "local":
        raise UsageError(f"--on {on}: this version runs on local only; leave --on out")
    if detach:
        raise UsageError("--detach: a local run ends with its terminal; use your shell (nohup ... &), or --on modal")
    return run_recipe(recipe, folder, Terminal(), start=start, stop=stop, fresh=fresh)
