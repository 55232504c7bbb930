"""The main job: data, baseline, pairs, train, select, optimized, compare, report.

Each stage is a plain function whose work is kept under the hash of what changes it, so a second run
does nothing, a changed learning rate reuses the baseline, and a killed run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranksaga.files import read_json_if_sound, remove, write_json, write_text
from ranksaga.recipe import Recipe, dump_recipe
from ranksaga.run.context import Context, Voice
from ranksaga.run.folder import check_run_folder, held
from ranksaga.run.gpus import known_price
from ranksaga.run.stages import STAGES, check_stages, runs_to
from ranksaga.run.stamp import stamp
from ranksaga.run.store import Store
from ranksaga.run.team import Team

__all__ = ["Outcome", "finished", "is_finished", "run_recipe"]

MARKER = Path("stages", "finished.json")


@dataclass(frozen=True)
class Outcome:
    """What a run left behind. ``table`` is for people; ``summary`` is its content as JSON."""

    folder: Path
    stopped_after: str
    reused: bool
    seconds: float
    table: str
    summary: Mapping[str, Any]

    def text(self) -> str:
        """For the terminal."""
        if self.stopped_after != "report":
            return f"stopped after {self.stopped_after}; stages are in {self.folder / 'stages'}"
        head = "nothing to do: this recipe has been run and nothing it reads has changed\n\n" if self.reused else ""
        return f"{head}{self.table}\nreport: {self.folder / 'report.html'}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"folder": str(self.folder), "stopped_after": self.stopped_after, "reused": self.reused, **self.summary}


def run_recipe(
    recipe: Recipe,
    folder: Path,
    voice: Voice,
    *,
    start: str | None = None,
    stop: str | None = None,
    fresh: bool = False,
    team: Team | None = None,
) -> Outcome:
    """Run a recipe in a folder, doing only what is not done.

    Args:
        recipe: what to do.
        folder: of this run; stages, results, model and report go there.
        voice: is told what happens.
        start: do this stage and all later ones again.
        stop: end after this stage. Of a finished run the recipe and the mark that it is finished stay as they are:
            they belong to its report.
        fresh: do everything again.
        team: does the work; none: this process.

    Raises:
        RankSagaError: with a message for the user; a folder that is not a run's is left as it is.
    """
    check_stages(start, stop)
    price = known_price()  # a mistake in it is better known before the work
    check_run_folder(folder, recipe.model, (*recipe.datasets, *recipe.guards))
    if not fresh and start is None and stop is None and (done := finished(recipe, folder)) is not None:
        return done
    with held(folder, "run"):
        return _run(recipe, folder, voice, start, stop, fresh, team, price)


def _run(
    recipe: Recipe,
    folder: Path,
    voice: Voice,
    start: str | None,
    stop: str | None,
    fresh: bool,
    team: Team | None,
    price: float | None,
) -> Outcome:
    """Run a recipe in a folder that is held."""
    began = time.perf_counter()
    if fresh:
        remove(folder / "stages")
    for stage in STAGES[STAGES.index(start) :] if start else ():
        remove(folder / "stages" / stage)
    state = stamp(recipe)
    if runs_to(stop, "report") or not (folder / MARKER).is_file():
        (folder / MARKER).unlink(missing_ok=True)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
    context = Context(recipe, Store(folder, on_start=voice.stage, price=price), voice, team)
    from ranksaga.run.flow import execute

    result = execute(context, folder, stop)
    seconds = time.perf_counter() - began
    if result is None:
        return Outcome(folder, stop or STAGES[-1], False, seconds, "", {})
    if runs_to(stop, "report"):
        write_json(
            folder / "run.json", {**result.record, "seconds": seconds, "table": result.table, "summary": result.summary}
        )
        # The marker comes last: a run without it is not finished.
        write_json(folder / MARKER, {"state": state, "files": _sizes(folder)})
    return Outcome(folder, stop or STAGES[-1], False, seconds, result.table, result.summary)


def finished(recipe: Recipe, folder: Path) -> Outcome | None:
    """The outcome of a run that is complete and up to date; answered without loading data or torch."""
    record = read_json_if_sound(folder / "run.json")
    if record is None or not is_finished(recipe, folder) or _sizes(folder) != _marker(folder).get("files"):
        return None
    return Outcome(folder, STAGES[-1], True, 0.0, record["table"], record["summary"])


def is_finished(recipe: Recipe, folder: Path) -> bool:
    """Whether the run came to its end, and nothing that it reads has changed since."""
    state = _marker(folder).get("state")
    return state is not None and state == stamp(recipe)


def _marker(folder: Path) -> dict[str, Any]:
    """What was written when the run came to its end; empty where it did not, or the file is damaged."""
    stored = read_json_if_sound(folder / MARKER)
    return stored if isinstance(stored, dict) else {}


def _sizes(folder: Path) -> dict[str, int]:
    """Sizes of the files that a finished run must have, in bytes; -1 where one is missing."""
    names = ["run.json", "report.html", "comparison_report.md", "comparison_table.csv", "model/modules.json"]
    names += sorted(path.relative_to(folder).as_posix() for path in (folder / "model").rglob("*.safetensors"))
    return {name: (folder / name).stat().st_size if (folder / name).is_file() else -1 for name in names}
