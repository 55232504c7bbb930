"""The stages of a run, in order."""

from __future__ import annotations

import difflib

from ranksaga.errors import UsageError

__all__ = ["STAGES", "check_stages", "runs_to"]

STAGES = ("data", "baseline", "pairs", "train", "select", "optimized", "compare", "report")


def check_stages(start: str | None, stop: str | None) -> None:
    """Refuse unknown stages, and an end before the beginning.

    Raises:
        UsageError: as said.
    """
    for option, name in (("--from", start), ("--to", stop)):
        if name is not None and name not in STAGES:
            near = difflib.get_close_matches(name, STAGES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{option} {name}: there is no such stage{hint} (stages: {', '.join(STAGES)})")
    if start and stop and STAGES.index(start) > STAGES.index(stop):
        raise UsageError(f"--from {start} --to {stop}: {stop} comes before {start}; swap them")


def runs_to(stop: str | None, stage: str) -> bool:
    """Whether a run that stops after ``stop`` reaches a stage."""
    return stop is None or STAGES.index(stage) <= STAGES.index(stop)
