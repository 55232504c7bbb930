"""The pipeline: the stages of a run in order. Names are defined here and nowhere else; no stage is imported."""

from __future__ import annotations

import difflib

from ranksaga.errors import UsageError
from ranksaga.run.stage import Stage

__all__ = [
    "BASELINE",
    "COMPARE",
    "DATA",
    "PIPELINE",
    "RENAMED",
    "REPORT",
    "SCORE",
    "SELECT",
    "SPLITS",
    "STAGES",
    "TRAIN",
    "check_stages",
    "stages_from",
]

DATA = Stage("data", "load the datasets and count what is in them")
BASELINE = Stage("baseline", "encode every dataset with the base model and rank it, and rank it with BM25")
SPLITS = Stage("splits", "record who trains, who selects and who is scored, and what the leakage audit found")
TRAIN = Stage("train", "fine-tune the base model, once for each system, view of the splits and seed")
SELECT = Stage("select", "choose epoch and weights on dev queries")
SCORE = Stage("score", "rank every dataset with the chosen models, mix with BM25, and evaluate the test queries")
COMPARE = Stage("compare", "test every system against the baseline")
REPORT = Stage("report", "write tables, charts, rankings and the shipped model")

PIPELINE = (DATA, BASELINE, SPLITS, TRAIN, SELECT, SCORE, COMPARE, REPORT)
STAGES = tuple(stage.name for stage in PIPELINE)
RENAMED = {"pairs": SPLITS.name, "optimized": SCORE.name}  # what earlier releases called them


def check_stages(start: str | None, stop: str | None) -> None:
    """Refuse unknown stages, and an end before the beginning.

    Raises:
        UsageError: as said.
    """
    for option, name in (("--from", start), ("--to", stop)):
        if name in RENAMED:
            raise UsageError(
                f"{option} {name}: this stage is now called {RENAMED[name]}; write {option} {RENAMED[name]}"
            )
        if name is not None and name not in STAGES:
            near = difflib.get_close_matches(name, STAGES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{option} {name}: there is no such stage{hint} (stages: {', '.join(STAGES)})")
    if start and stop and STAGES.index(start) > STAGES.index(stop):
        raise UsageError(f"--from {start} --to {stop}: {stop} comes before {start}; swap them")


def stages_from(start: str | None) -> tuple[str, ...]:
    """The stage of this name and all later ones; none for no name."""
    return STAGES[STAGES.index(start) :] if start else ()
