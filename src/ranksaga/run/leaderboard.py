"""Several runs in one table: every system of each, on the datasets that all of them measured alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranksaga.compare.results import BASELINE, PRIMARY
from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.evaluate.per_query import PER_QUERY
from ranksaga.report.tables import Cell, Column, Table, metric_label
from ranksaga.run.report_from_values import read_system

__all__ = ["Leaderboard", "Standing", "leaderboard"]


@dataclass(frozen=True)
class Standing:
    """One system of one run: its mean value on each dataset, in the board's order, and their mean."""

    run: str
    system: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the datasets, each counting alike."""
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class Leaderboard:
    """Systems by their mean, the best first. ``left_out`` are datasets that some run did not measure."""

    datasets: tuple[str, ...]
    standings: tuple[Standing, ...]
    left_out: tuple[str, ...]

    def table(self) -> Table:
        """One row a system."""
        columns = (Column("run", False), Column("system", False), Column("mean"), *map(Column, self.datasets))
        rows = tuple(
            (
                Cell(standing.run),
                Cell(standing.system),
                *(Cell(f"{value:.4f}", value) for value in (standing.mean, *standing.values)),
            )
            for standing in self.standings
        )
        return Table(f"{metric_label(PRIMARY)} of {len(self.standings)} systems", columns, rows)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        standings = [
            {"run": p.run, "system": p.system, "mean": p.mean, **dict(zip(self.datasets, p.values, strict=True))}
            for p in self.standings
        ]
        return {"metric": PRIMARY, "datasets": self.datasets, "left_out": self.left_out, "systems": standings}


def leaderboard(runs: Sequence[Path]) -> Leaderboard:
    """Rank the systems of several runs by their mean nDCG@10.

    A system that was not scored on every common dataset (a hybrid that was not mixed on one, say) is not ranked.

    Raises:
        DataError: a folder is no finished run, two runs have one name, they share no dataset, or two runs measured
            other documents, queries or judgments under one name.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise DataError(
            f"two runs have one name ({', '.join(names)}), so the table could not tell them apart; rename one"
        )
    measured = [_systems(run) for run in runs]
    common = [name for name in measured[0][BASELINE] if all(name in systems[BASELINE] for systems in measured)]
    everything = {name for systems in measured for name in systems[BASELINE]}
    if not common:
        raise DataError(f"{', '.join(names)} share no dataset, so nothing can be ranked")
    for name in common:
        _refuse_other_data(name, [(run, systems[BASELINE][name]) for run, systems in zip(names, measured, strict=True)])
    standings = [
        Standing(run, system, tuple(values[name].mean(PRIMARY) for name in common))
        for run, systems in zip(names, measured, strict=True)
        for system, values in systems.items()
        if all(name in values for name in common)
    ]
    ranked = sorted(standings, key=lambda standing: (-standing.mean, standing.run, standing.system))
    return Leaderboard(tuple(common), tuple(ranked), tuple(sorted(everything - set(common))))


def _systems(run: Path) -> dict[str, dict[str, Evaluation]]:
    """The evaluations of a run by system, then by dataset."""
    folders = sorted(path.name for path in (run / PER_QUERY).glob("*") if path.is_dir())
    if BASELINE not in folders:
        raise DataError(f"{run}: no {PER_QUERY}/{BASELINE} there, so it is no finished run; name a run's folder")
    return {system: {values.dataset: values for values in read_system(run, system)} for system in folders}


def _refuse_other_data(name: str, measured: Sequence[tuple[str, Evaluation]]) -> None:
    (first_run, first), *others = measured
    for run, values in others:
        origins = {origin.dataset for origin in (first.origin, values.origin) if origin is not None}
        if len(origins) > 1 or set(first.query_ids) != set(values.query_ids):
            raise DataError(
                f"{name}: {first_run} and {run} measured other documents, queries or judgments under that name; "
                "run both on the same data"
            )
