"""Systems by name: what a recipe may start from, and what each system is when it is "like NAME, but ...".

``like: NAME`` takes over the settings of another system of the recipe, or of a preset; the system's own settings then
replace some of them. With another ``method`` only what both methods have in common is taken over.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ranksaga.config.training import VARIANTS, Distilled, Documents, Labelled, Training

__all__ = ["GONE", "PRESETS", "Misplaced", "in_todays_form", "resolve_systems", "suggestion"]

PRESETS: Mapping[str, Training] = {
    # Queries learn first, against documents as they are; then documents, less and gently.
    "best": Distilled(
        epochs=5,
        seeds=2,
        learning_rate=1e-4,
        weight_decay=0.0,
        max_length=128,
        dataset_temperature=0.0,
        towers="query",
        cross_fitted="corpus",
        freeze_embeddings=True,
        documents=Documents(),
    ),
}
# What a system starts from that names a method and is like no other.
STARTS: Mapping[str, Training] = {"labelled": Labelled(), "distilled": PRESETS["best"]}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RESERVED = ("baseline", "bm25", "hybrid", "baseline_hybrid")  # systems that every report has
# Settings that earlier releases had and wrote into every run's recipe, with the values that change nothing: they are
# gone and fixed at these, or belong to the other method. Any other value is refused.
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
EXAMPLE = "{best: {}, gentle: {like: best, learning_rate: 5e-5}}"
METHODS = " or ".join(f"method: {name}" for name in VARIANTS)


class Misplaced(ValueError):
    """What is wrong with one key of a recipe; ``place`` is that key, part by part."""

    def __init__(self, place: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.place = place


def suggestion(name: object, known: Iterable[str]) -> str:
    """For the end of a message: the nearest known name, or all of them."""
    known = tuple(dict.fromkeys(known))
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def in_todays_form(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with ``systems`` in place of what earlier releases had: names in ``presets``, and changes to each in
    ``training``. The values of others are returned as they are.

    Raises:
        Misplaced: a name in them is unknown.
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
    for place, name in (
        *((("presets",), name) for name in names),
        *((("training", str(name)), name) for name in changes),
    ):
        if name in ("v1", "v2"):
            raise Misplaced(
                place,
                f"{name} is no preset any more; copy its settings from studies/first-study.yaml to systems.{name}",
            )
        if name not in tuple(PRESETS):
            raise Misplaced(place, f"there is no preset {name!r}; {suggestion(name, PRESETS)}")
    if len(names) > len(set(names)):
        raise Misplaced(("presets",), f"{names[0]} is named twice")
    return {**rest, "systems": {name: _without(_written(name, changes, "training"), GONE) for name in names}}


def resolve_systems(systems: Any) -> dict[str, dict[str, Any]]:
    """The settings of each system in full, in the order of the recipe.

    Args:
        systems: by name what the recipe says of each: ``like``, ``method``, and settings.

    Raises:
        Misplaced: a name cannot be used, or a system starts from one that is unknown, or from itself.
    """
    if not isinstance(systems, Mapping) or not systems:
        raise Misplaced(("systems",), f"expected names and their settings ({EXAMPLE}), found {systems!r}")
    seen: dict[str, str] = {}
    for name in systems:
        _check_name(name)
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise Misplaced(("systems", name), f"{other} and {name} can be one file; rename one")
    written = {name: _written(name, systems) for name in systems}
    return {name: _settings_of(name, written) for name in written}


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise Misplaced(("systems", str(name)), f"a system's name is text; put it in quotes, found {name!r}")
    if name.lower() in RESERVED:
        raise Misplaced(("systems", name), f"{name} is what the report calls another system; choose another name")
    if not NAME.fullmatch(name):
        raise Misplaced(
            ("systems", name),
            f"{name!r} names files too; use up to 64 letters, digits, hyphens and underscores, a letter or digit first",
        )


def _written(name: str, systems: Mapping[str, Any], key: str = "systems") -> dict[str, Any]:
    """What a recipe says of a system; nothing is no change."""
    changes = systems.get(name)
    if isinstance(changes, Training):
        return changes.model_dump()
    if changes is not None and not isinstance(changes, Mapping):
        raise Misplaced((key, name), f"expected settings, as in {EXAMPLE}, found {changes!r}")
    changes = dict(changes or {})
    if changes.get("method", "labelled") not in tuple(VARIANTS):
        method = changes["method"]
        raise Misplaced((key, name, "method"), f"there is no method {method!r}; {suggestion(method, VARIANTS)}")
    # As earlier releases said it: without a teacher there are labels only, and all that belongs to one is off.
    if "distillation" in changes and changes["distillation"] is None:
        off = {"distillation": None, "towers": "shared", "documents": None, "cross_fitted": "labels"}
        changes = {"method": "labelled", **_without(changes, off)}
    return changes


def _settings_of(name: str, written: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A system's settings in full: what the last one that it is like starts from, and the changes of each in turn."""
    chain = [name]
    while (like := written[chain[-1]].get("like")) in tuple(written) and not (like == chain[-1] and like in PRESETS):
        if like in chain:
            circle = " like ".join((*chain[chain.index(like) :], like))
            raise Misplaced(("systems", chain[-1], "like"), f"no system starts from itself ({circle}); change one")
        chain.append(like)
    settings = _start_of(chain[-1], written)
    for each in reversed(chain):
        changes = {key: change for key, change in written[each].items() if key != "like"}
        method = changes.get("method", settings["method"])
        if method != settings["method"]:
            settings = {key: value for key, value in settings.items() if key in VARIANTS[method].model_fields}
        settings = _changed(settings, changes)
    return settings


def _start_of(name: str, written: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of a system that is like no other of the recipe."""
    like, method = written[name].get("like"), written[name].get("method")
    if like is None and name in PRESETS:
        like = name
    if like in tuple(PRESETS):
        return PRESETS[like].model_dump()
    if like is not None:
        known = suggestion(like, (*(other for other in written if other != name), *PRESETS))
        raise Misplaced(("systems", name, "like"), f"there is no system {like!r}; {known}")
    if method is None:
        raise Misplaced(("systems", name), f"say what it starts from: like: {next(iter(PRESETS))}, {METHODS}")
    return STARTS[method].model_dump()


def _without(changes: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Changes but for those to exactly these values, inner ones too."""
    kept = {key: change for key, change in changes.items() if key not in values or change != values[key]}
    return {
        key: _without(change, values[key])
        if isinstance(change, Mapping) and isinstance(values.get(key), Mapping)
        else change
        for key, change in kept.items()
    }


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some of them changed, inner ones too."""
    inner = {
        key: {**values[key], **change}
        if isinstance(change, Mapping) and isinstance(values.get(key), Mapping)
        else change
        for key, change in changes.items()
    }
    return {**values, **inner}
