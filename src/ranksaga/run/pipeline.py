"""A run from its recipe: what is done already, what is to do, and the files it leaves in its folder.

Each stage's work is kept under the hash of what decides it, so a second run does nothing, a changed learning rate
reuses the baseline, and a killed run goes on where it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ranksaga.config.recipe import Recipe, dump_recipe
from ranksaga.data.build import PREFIX
from ranksaga.data.resolve import locate
from ranksaga.errors import machine_errors
from ranksaga.files import (
    file_record,
    first_changed,
    read_checked_json,
    read_json,
    read_json_if_sound,
    remove,
    write_checked_json,
    write_json,
    write_text,
)
from ranksaga.run.console import Console, Silent
from ranksaga.run.context import Context
from ranksaga.run.costs import costs_json
from ranksaga.run.fingerprint import fingerprint
from ranksaga.run.folder import check_run_folder, held
from ranksaga.run.gpu_prices import known_price
from ranksaga.run.stage import Stage
from ranksaga.run.stages import COMPARE, PIPELINE, REPORT, check_stages, stages_from
from ranksaga.run.store import NOT_OUTPUTS, Entry, NotDone, Store, Survey
from ranksaga.run.workers import RunWorkers

__all__ = ["Outcome", "finished", "is_finished", "run_recipe", "stages_done"]

logger = logging.getLogger(__name__)

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
        if self.stopped_after != REPORT.name:
            return f"stopped after {self.stopped_after}; stages are in {self.folder / 'stages'}"
        head = "nothing to do: this recipe has been run and nothing it reads has changed\n\n" if self.reused else ""
        return f"{head}{self.table}\nreport: {self.folder / 'report.html'}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"folder": str(self.folder), "stopped_after": self.stopped_after, "reused": self.reused, **self.summary}


def run_recipe(
    recipe: Recipe,
    folder: Path,
    console: Console | None = None,
    *,
    start: str | None = None,
    stop: str | None = None,
    fresh: bool = False,
    workers: RunWorkers | None = None,
) -> Outcome:
    """Run a recipe in a folder, doing only what is not done.

    Args:
        recipe: what to do.
        folder: of this run; stages, results, model and report go there.
        console: is told what happens; none: silent.
        start: do this stage and all later ones again.
        stop: end after this stage. Of a finished run the recipe and the mark that it is finished stay as they are:
            they belong to its report.
        fresh: do everything again.
        workers: do the work; none: this process.

    Raises:
        RankSagaError: with a message for the user; a folder that is not a run's is left as it is.
    """
    with machine_errors():
        return _run_recipe(recipe, folder, console or Silent(), start, stop, fresh, workers)


def _run_recipe(
    recipe: Recipe,
    folder: Path,
    console: Console,
    start: str | None,
    stop: str | None,
    fresh: bool,
    workers: RunWorkers | None,
) -> Outcome:
    check_stages(start, stop)
    price = known_price()  # a mistake in it is better known before the work
    check_run_folder(folder, recipe.model, (*recipe.datasets, *recipe.guards))
    if not fresh and start is None and stop is None and (done := finished(recipe, folder)) is not None:
        return done
    with held(folder, "run"):
        if fresh:
            remove(folder / "stages")
        for stage in stages_from(start):
            remove(folder / "stages" / stage)
        context = Context(recipe, Store(folder, on_start=console.stage, price=price), console, workers)
        return _run(context, folder, stop or REPORT.name)


def _run(context: Context, folder: Path, stop: str) -> Outcome:
    """Run a recipe in a folder that is held."""
    from ranksaga.run.execute import execute
    from ranksaga.run.stages.compare import comparison_summary, comparison_table, read_answer, read_comparison

    began = time.perf_counter()
    state = fingerprint(context.recipe)
    if stop == REPORT.name or not (folder / MARKER).is_file():
        (folder / MARKER).unlink(missing_ok=True)
        write_text(folder / "recipe.yaml", dump_recipe(context.recipe))
    table, summary = "", {}
    for stage, entry in execute(context):
        if stage is COMPARE and entry is not None:
            comparison, answer = read_comparison(entry), read_answer(entry)
            table, summary = comparison_table(comparison, answer), comparison_summary(comparison, answer)
        if stage is REPORT and entry is not None:
            published = _publish(context.store, entry, folder, {"table": table, "summary": summary}, began)
            # The marker comes last: a run without it is not finished.
            files = {name: file_record(folder / name) for name in (*published, "run.json", "recipe.yaml")}
            write_checked_json(folder / MARKER, {"state": state, "files": files})
        if stage.name == stop:
            break
    return Outcome(folder, stop, False, time.perf_counter() - began, table, summary)


def _publish(store: Store, report: Entry, folder: Path, shown: Mapping[str, Any], began: float) -> tuple[str, ...]:
    """Copy the report into the run's folder and write ``run.json``; the files that were copied."""
    from ranksaga.run.shipped_model import publish
    from ranksaga.run.stages.report import RECORD

    published = publish(report.folder, folder, leave=(*NOT_OUTPUTS, RECORD))
    timings = {"timings": [asdict(timing) for timing in store.timings], "spent": costs_json(store)}
    record = {**read_json(report.folder / RECORD), **timings}
    write_json(folder / "run.json", {**record, "seconds": time.perf_counter() - began, **shown})
    return published


def stages_done(recipe: Recipe, folder: Path) -> tuple[tuple[Stage, bool], ...]:
    """Every stage, and whether a run in this folder would find it done; nothing is computed or downloaded.

    Raises:
        RankSagaError: a dataset or the model cannot be loaded, or the audited splits refuse the recipe.
    """
    if is_finished(recipe, folder):
        return tuple((stage, True) for stage in PIPELINE)
    done = 0
    names = [name for name in (*recipe.datasets, *recipe.guards) if not name.startswith(PREFIX)]
    if (folder / "stages").is_dir() and None not in map(locate, names):
        from ranksaga.run.execute import execute

        try:
            for _ in execute(Context(recipe, Survey(folder), Silent())):
                done += 1
        except NotDone:
            pass
    return tuple((stage, number < done) for number, stage in enumerate(PIPELINE))


def finished(recipe: Recipe, folder: Path) -> Outcome | None:
    """The outcome of a run that is complete and up to date, each file that it left in its folder being as it was
    written; answered without loading data or torch."""
    if not is_finished(recipe, folder):
        return None
    changed = first_changed(folder, _marker(folder).get("files"))
    record = read_json_if_sound(folder / "run.json")
    if changed is not None or record is None:
        logger.warning("%s: missing or damaged, so it is made again", folder / (changed or "run.json"))
        return None
    return Outcome(folder, REPORT.name, True, 0.0, record["table"], record["summary"])


def is_finished(recipe: Recipe, folder: Path) -> bool:
    """Whether the run came to its end, and nothing that it reads has changed since."""
    state = _marker(folder).get("state")
    return state is not None and state == fingerprint(recipe)


def _marker(folder: Path) -> dict[str, Any]:
    """What was written when the run came to its end; empty where it did not, or the file is damaged."""
    return read_checked_json(folder / MARKER) or {}
