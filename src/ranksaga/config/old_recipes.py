"""Recipes of earlier releases, which had ``presets`` and ``training`` in place of ``systems``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranksaga.config.presets import EXAMPLE, PRESETS, Misplaced, suggestion

__all__ = ["GONE", "in_todays_form"]

# Settings that they had and wrote into every run's recipe, with the values that change nothing: they are gone and fixed
# at these, or belong to the other method. Any other value is refused.
GONE: Mapping[str, Any] = {
    "search": 0,
    "scale": None,
    "negative_margin": 0.95,
    "dropout": None,
    "splits": "all",
    "batch_size": 32,
    "batches": "per_dataset",
    "titles": True,
    "prompts": True,
    "mask_false_negatives": True,
    "positives_per_query": None,
    "hard_negatives": 0,
    "documents": {"query_weight": 0.75},
    "distillation": {"words": 3.0, "feedback": 0.4, "hubness": 0.1, "labels": 1.0, "bank": 1.0, "anchor": 0.05},
}
# What they said where there was no teacher.
UNTAUGHT: Mapping[str, Any] = {
    "distillation": None,
    "towers": "shared",
    "documents": None,
    "cross_fitted": "labels",
}


def in_todays_form(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with ``systems`` in place of the names in ``presets`` and the changes to each in ``training``.

    The values of others are returned as they are.

    Raises:
        Misplaced: a name is unknown, or something else stands there.
    """
    rest = {key: value for key, value in values.items() if key not in ("presets", "training")}
    if len(rest) == len(values):
        return rest
    if "systems" in rest:
        key = next(key for key in ("presets", "training") if key in values)
        raise Misplaced((key,), f"systems has taken its place; write all there: systems: {EXAMPLE}")
    names, changes = values.get("presets", list(PRESETS)), values.get("training") or {}
    if not isinstance(names, list | tuple) or not names:
        raise Misplaced(("presets",), f"expected names; write systems: {EXAMPLE}")
    if not isinstance(changes, Mapping):
        raise Misplaced(("training",), f"expected a mapping of names to settings; write systems: {EXAMPLE}")
    for name in names:
        _check(("presets",), name)
    for name in changes:
        _check(("training", str(name)), name)
    if len(names) > len(set(names)):
        raise Misplaced(("presets",), f"{names[0]} is named twice")
    return {**rest, "systems": {name: _system(changes.get(name)) for name in names}}


def _check(place: tuple[str, ...], name: object) -> None:
    if name in ("v1", "v2"):
        file = "studies/first-study.yaml of the repository"
        raise Misplaced(place, f"{name} is no preset any more; copy its settings from {file} to systems.{name}")
    if name not in tuple(PRESETS):
        raise Misplaced(place, f"there is no preset {name!r}; {suggestion(name, PRESETS)}")


def _system(changes: Any) -> Any:
    if not isinstance(changes, Mapping):
        return changes
    kept = _without(changes, GONE)
    if "distillation" in kept and kept["distillation"] is None:
        return {"method": "labelled", **_without(kept, UNTAUGHT)}
    return kept


def _without(changes: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Changes but for those to exactly these values, inner ones too."""
    kept = {key: change for key, change in changes.items() if key not in values or change != values[key]}
    return {
        key: _without(change, values[key])
        if isinstance(change, Mapping) and isinstance(values.get(key), Mapping)
        else change
        for key, change in kept.items()
    }
