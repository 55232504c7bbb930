"""What a run really took, in time and, where an hour has a price, in money; each piece of work counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ranksaga.report.data import Facts
from ranksaga.run.store import Store, Timing

__all__ = ["Spent", "cost_facts", "costs_json", "spent_by_stage"]

REST = "rest"


@dataclass(frozen=True)
class Spent:
    """A stage's pieces of work: the sum of their wall times in seconds, which is more than the stage's own where some
    went on side by side, and their US dollars; ``None`` where a piece has no price."""

    stage: str
    pieces: int
    seconds: float
    usd: float | None


def spent_by_stage(timings: Sequence[Timing]) -> tuple[Spent, ...]:
    """Stages in the order they were met. Work that several folds share was done once and counts once."""
    stages: dict[str, list[Timing]] = {}
    for timing in _once(timings):
        stages.setdefault(timing.stage, []).append(timing)
    return tuple(
        Spent(stage, len(found), sum(one.seconds for one in found), _dollars([one.usd for one in found]))
        for stage, found in stages.items()
    )


def costs_json(store: Store) -> dict[str, Any]:
    """For run.json: by stage, and in all."""
    rows = _rows(store)
    return {
        "seconds": sum(row.seconds for row in rows),
        "usd": _dollars([row.usd for row in rows]),
        "usd_per_hour": store.price,
        "stages": [asdict(row) for row in rows],
    }


def cost_facts(store: Store) -> tuple[Facts, Facts]:
    """For the report: time (and cost) per stage, and of every piece of work."""
    rows = _rows(store)
    total = Spent("total", 0, sum(row.seconds for row in rows), _dollars([row.usd for row in rows]))
    stages = [(row.stage, _text(row.seconds, row.usd)) for row in (*rows, total)]
    shared: dict[str, list[str]] = {}
    for timing in store.timings:
        labels = shared.setdefault(timing.identity, [])
        if timing.label not in labels:
            labels.append(timing.label)
    pieces = [
        (
            f"{timing.stage} {', '.join(shared[timing.identity])}",
            _text(timing.seconds, timing.usd) + (" (done before)" if timing.reused else ""),
        )
        for timing in _once(store.timings)
    ]
    return Facts("Time and cost" if total.usd is not None else "Time", tuple(stages)), Facts(
        "Time by piece of work", tuple(pieces)
    )


def _rows(store: Store) -> tuple[Spent, ...]:
    """The stages, and what this execution spent beside them: loading, mixing with BM25, comparing."""
    rest = store.seconds_beside
    usd = None if store.price is None else rest * store.price / 3600
    return (*spent_by_stage(store.timings), Spent(REST, 1, rest, usd))


def _once(timings: Sequence[Timing]) -> list[Timing]:
    """The first mention of each piece of work: where it was done, if it was done now."""
    found: dict[str, Timing] = {}
    for timing in timings:
        found.setdefault(timing.identity, timing)
    return list(found.values())


def _dollars(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _text(seconds: float, usd: float | None) -> str:
    minutes, rest = divmod(seconds, 60)
    time = f"{seconds:.1f} s" if seconds < 60 else f"{minutes:.0f} min {rest:.0f} s"
    return time if usd is None else f"{time}, ${usd:.4f}"
