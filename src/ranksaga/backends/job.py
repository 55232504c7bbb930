"""A run as data, for back ends whose far side is another machine: what to do, and where its inputs and outputs live.

``pack`` turns a recipe into a job whose names mean the same over there; ``perform`` is what the far side does with it:
the same ``run_recipe``, in folders that outlive the machine. It may be called again after a kill and goes on.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ranksaga.config.recipe import Recipe
from ranksaga.data.build import PREFIX
from ranksaga.data.download import dataset_cache
from ranksaga.data.resolve import locate
from ranksaga.errors import RankSagaError, RecipeError
from ranksaga.files import atomic_dir, read_json_if_sound, write_json
from ranksaga.run.console import Terminal
from ranksaga.run.folder import MODEL, check_owner, mark
from ranksaga.run.gpu_prices import PRICE_VARIABLE
from ranksaga.run.pipeline import Outcome, run_recipe
from ranksaga.run.stages import BASELINE, REPORT

__all__ = ["Away", "Job", "Places", "pack", "perform"]

# Between two checkpoints of a long training, so that a killed machine loses minutes.
SECONDS_BETWEEN_SAVES = 120.0


@dataclass(frozen=True)
class Places:
    """Folders on the far side. ``cache``, ``runs`` and ``models`` outlive the machine, ``scratch`` does not."""

    cache: str = "/cache"
    runs: str = "/runs"
    models: str = "/models"
    scratch: str = "/tmp/ranksaga"  # vectors: large, quickly made again, and no two machines may append to one file


@dataclass(frozen=True)
class Job:
    """One execution. ``model`` names the shipped model where it is kept, ``price`` is what an hour over there costs in
    US dollars, and a retry has the same ``identity``."""

    recipe: Mapping[str, Any]
    model: str
    start: str | None = None
    stop: str | None = None
    fresh: bool = False
    price: float | None = None
    places: Places = field(default_factory=Places)
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def run(self) -> str:
        """Name of the run, and of its folder below ``places.runs``."""
        return str(self.recipe["name"])

    def as_json(self) -> dict[str, Any]:
        """Plain values only."""
        return {**asdict(self), "recipe": dict(self.recipe)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The inverse of :meth:`as_json`."""
        return cls(**{**values, "places": Places(**values["places"])})


@dataclass(frozen=True)
class Away(Outcome):
    """The outcome of a run whose stages stay on the far side; ``note`` stands in for all else."""

    note: str = ""

    def text(self) -> str:
        """For the terminal."""
        return self.note or (super().text() if self.stopped_after == REPORT.name else self._stopped())

    def _stopped(self) -> str:
        where = f"stopped after {self.stopped_after}; its stages stay where it ran"
        return f"{self.table}\n{where}" if self.table else where


def pack(recipe: Recipe, *, places: Places, model: str | None = None, **options: Any) -> tuple[Job, dict[str, Path]]:
    """A job, and the local folders it needs by their place below ``places.cache``.

    Datasets of the catalogue and ``python:`` sets are made over there; folders of this machine travel.

    Raises:
        RecipeError: two folders have the same name.
    """
    home = f"uploads/{recipe.name}"
    uploads: dict[str, Path] = {}

    def place(name: str) -> str:
        folder = None if name.startswith(PREFIX) else locate(name)
        if folder is None or folder.absolute().is_relative_to(dataset_cache().absolute()):
            return name
        short = folder.resolve().name if folder == Path(name).expanduser() else name
        if uploads.setdefault(f"{home}/datasets/{short}", folder) != folder:
            raise RecipeError(f"{name}: another dataset's folder is called {short!r} too; rename one of them")
        return short

    values = recipe.model_dump(mode="json")
    values["datasets"] = [place(name) for name in recipe.datasets]
    values["guards"] = [place(name) for name in recipe.guards]
    if (folder := Path(recipe.model).expanduser()).is_dir():
        uploads[f"{home}/model"] = folder
        values["model"] = f"{places.cache}/{home}/model"
    packed = Recipe.model_validate(values)  # the names must still be different
    return Job(packed.model_dump(mode="json"), model or recipe.name, places=places, **options), uploads


def perform(job: Job, save: Callable[[], None]) -> dict[str, Any]:
    """Execute a job; ``save`` makes what is in its places durable and is called after each piece of work.

    A mistake of the user comes back as an error's JSON: trying again would not mend it.
    """
    places = job.places
    folder = Path(places.runs) / job.run
    marker = folder / "job.json"
    stored = read_json_if_sound(marker)
    again = isinstance(stored, dict) and stored.get("identity") == job.identity
    try:
        check_owner(folder)
        mark(folder, "run")
        write_json(marker, job.as_json())
        with _environment(job):
            recipe = Recipe.model_validate(job.recipe)
            # What was to be done anew is done anew once: a second attempt continues the first.
            start, fresh = (None, False) if again else (job.start, job.fresh)
            outcome = run_recipe(recipe, folder, Saving(save), start=start, stop=job.stop, fresh=fresh)
            table = outcome.table
            if job.stop == BASELINE.name:
                from ranksaga.run.report_from_values import baseline_figures

                table = baseline_figures(recipe, folder)
            if job.stop in (None, REPORT.name):
                _keep_model(folder, Path(places.models) / job.model)
            return {**asdict(outcome), "folder": str(folder), "table": table}
    except RankSagaError as error:
        return error.as_json()
    finally:
        save()


class Saving(Terminal):
    """Speaks like a terminal and saves: when a piece of work is done, and every two minutes of a long one."""

    def __init__(self, save: Callable[[], None]) -> None:
        super().__init__()
        self._save = save
        self._last = time.monotonic()

    def stage(self, stage: str, label: str, reused: bool) -> None:
        """The next piece starts, so the one before it is done."""
        self._now()
        super().stage(stage, label, reused)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[..., None]]:
        """As a terminal's, saving now and then."""
        with super().progress(label, total) as advance:

            def step(count: int, note: str = "") -> None:
                advance(count, note=note)
                if time.monotonic() - self._last >= SECONDS_BETWEEN_SAVES:
                    self._now()

            yield step

    def _now(self) -> None:
        self._save()
        self._last = time.monotonic()


def _keep_model(run: Path, target: Path) -> None:
    """Copy the shipped model, and into its folder the plain models of its towers, where it has two."""
    with atomic_dir(target) as folder:
        shutil.copytree(run / MODEL, folder, dirs_exist_ok=True)
        for tower in run.glob(f"{MODEL}_*/"):
            shutil.copytree(tower, folder / tower.name)


@contextmanager
def _environment(job: Job) -> Iterator[None]:
    """Datasets in the lasting cache, vectors on the machine's own disk."""
    cache, scratch = Path(job.places.cache), Path(job.places.scratch)
    (cache / "datasets").mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    if not (scratch / "datasets").exists():
        (scratch / "datasets").symlink_to((cache / "datasets").absolute())
    wanted = {"RANKSAGA_HOME": str(scratch), "RANKSAGA_DATASETS": str(cache / "uploads" / job.run / "datasets")}
    if job.price is not None:
        wanted[PRICE_VARIABLE] = str(job.price)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
