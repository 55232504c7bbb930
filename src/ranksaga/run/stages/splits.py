"""The stage ``splits``: who trains, who selects and who is scored, and what leaks between them.

Drawing them takes little beside encoding, so that is done anew each time; what the audit found is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ranksaga.data import leakage, splits
from ranksaga.files import write_json
from ranksaga.run.context import Context
from ranksaga.run.leakage_audit import Audit
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import SPLITS
from ranksaga.run.store import Entry

__all__ = ["keep_audit"]


@dataclass(frozen=True)
class SplitsInputs(Inputs):
    """``datasets`` are (name, role, fingerprint); the names are in the output."""

    STAGE = SPLITS
    VERSION = 3

    datasets: tuple[tuple[str, str, str], ...]
    leakage: str
    folds: int
    seed: int
    constants: Mapping[str, float]


def keep_audit(context: Context, audit: Audit) -> Entry:
    """Keep on disk what the audit found."""
    recipe = context.recipe
    inputs = SplitsInputs(
        tuple((member.name, member.role, member.dataset.fingerprint) for member in context.datasets),
        recipe.leakage,
        recipe.folds,
        recipe.seed,
        _constants(),
    )
    return context.store.work("splits and leakage audit", inputs, partial(_keep, audit=audit))


def _constants() -> dict[str, float]:
    return {
        "JACCARD": leakage.JACCARD,
        "TRIGRAM": leakage.TRIGRAM,
        "SHARED": leakage.SHARED,
        "HELD_OUT": splits.HELD_OUT,
        "DEV_QUERIES": splits.DEV_QUERIES,
        "MOST_HELD_OUT": splits.MOST_HELD_OUT,
        "GUARD_DEV": splits.GUARD_DEV,
        "LARGEST_GROUP": splits.LARGEST_GROUP,
    }


def _keep(inputs: SplitsInputs, folder: Path, *, audit: Audit) -> Summary:
    """Ids and figures only: a run's folder may be shared, a dataset's texts may not."""
    write_json(folder / "leaks.json", [asdict(leak) for leak in audit.leaks])
    return {"leaks": len(audit.leaks), "dropped": {name: len(rows) for name, rows in audit.dropped.items()}}
