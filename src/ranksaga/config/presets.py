"""Systems by name: what a recipe may start from, and what each system is when it is "like NAME, but ...".

``like: NAME`` takes over the settings of another system of the recipe, or of a preset; the system's own settings then
replace some of them. With another ``method``, what both have in common is taken over, and the rest is as that starts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ranksaga.config.training import VARIANTS, Distilled, Documents, Labelled, Training

__all__ = ["EXAMPLE", "PRESETS", "Misplaced", "resolve_systems", "suggestion"]

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
    written = {name: _written(name, changes) for name, changes in systems.items()}
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


def _written(name: str, changes: Any) -> dict[str, Any]:
    """What a recipe says of a system; nothing is no change."""
    if isinstance(changes, Training):
        return changes.model_dump()
    if changes is not None and not isinstance(changes, Mapping):
        raise Misplaced(("systems", name), f"expected settings, as in {EXAMPLE}, found {changes!r}")
    settings = dict(changes or {})
    method = settings.get("method", "labelled")
    if method not in tuple(VARIANTS):
        raise Misplaced(("systems", name, "method"), f"there is no method {method!r}; {suggestion(method, VARIANTS)}")
    return settings


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
            common = {key: settings[key] for key in Training.model_fields}
            settings = {**STARTS[method].model_dump(), **common}
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


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some of them changed, inner ones too."""
    inner = {
        key: {**values[key], **change}
        if isinstance(change, Mapping) and isinstance(values.get(key), Mapping)
        else change
        for key, change in changes.items()
    }
    return {**values, **inner}
