"""A recipe from its file, the environment and the command line; every mistake is one line with file and line."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ranksaga.config.old_recipes import GONE, in_todays_form
from ranksaga.config.presets import PRESETS, Misplaced, suggestion
from ranksaga.config.quickstart import QUICKSTART_VALUES
from ranksaga.config.recipe import Recipe
from ranksaga.config.training import VARIANTS
from ranksaga.errors import RecipeError
from ranksaga.untrusted.escape import cut, shown
from ranksaga.untrusted.input_files import read_bounded
from ranksaga.untrusted.yaml_input import DEEPEST, LARGEST, YamlError, read_yaml

__all__ = ["load_recipe"]

ENVIRONMENT_PREFIX = "RANKSAGA_RECIPE_"


def load_recipe(
    path: Path | None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Recipe:
    """Read a recipe; ``None`` is the quickstart. ``overrides`` are ``KEY=VALUE`` strings, values in YAML.

    Raises:
        RecipeError: the file is missing or broken, a key is unknown, a value does not fit.
    """
    origins: dict[tuple[str, ...], str] = {}
    if path is None:
        values = copy.deepcopy(dict(QUICKSTART_VALUES))
    else:
        values, origins = _read(path)
        values, origins = _translated(values, origins, path)
        values.setdefault("name", path.stem)
    environment = os.environ if environment is None else environment
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            source = f"environment variable {variable}"
            _set(values, origins, _system_key(key, values, source), environment[variable], source)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, as in --set systems.best.epochs=2")
        source = f"--set {cut(override)}"
        _set(values, origins, _system_key(key.strip(), values, source), value, source)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(error, str(path or "recipe"), origins)) from None


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The values, and where each is written: file and line."""
    try:
        document = read_yaml(read_bounded(path, LARGEST))
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: there is no such recipe; write one, or run without a recipe for the quickstart"
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error}); a recipe is a YAML file") from None
    except YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise RecipeError(f"{path}{line}: not valid YAML: {error.problem}; mend that line") from None
    values = document.value
    if not isinstance(values, dict):
        found = "an empty file" if values is None else f"a {type(values).__name__}"
        raise RecipeError(f"{path}:1: expected keys and values (model: ..., datasets: [...]), found {found}")
    return values, {place: f"{path}:{line}" for place, line in document.lines.items()}


def _translated(
    values: dict[str, Any], origins: dict[tuple[str, ...], str], path: Path
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """Both with ``systems`` as today's recipes have them, so that all of them can be set."""
    try:
        values = in_todays_form(values)
    except Misplaced as error:
        raise RecipeError(f"{_where(error.place, str(path), origins)}: {'.'.join(error.place)}: {error}") from None
    systems = values.setdefault("systems", {name: {} for name in PRESETS})
    if isinstance(systems, dict):
        values["systems"] = {name: {} if changes is None else changes for name, changes in systems.items()}
    return values, {("systems", *place[1:]) if place[0] == "training" else place: at for place, at in origins.items()}


def _system_key(key: str, values: Mapping[str, Any], source: str) -> str:
    """The key of a system's setting with the system's name as the recipe has it.

    Environment variables have no capitals and no hyphens. ``training.NAME.KEY`` is what earlier releases had.
    """
    first, _, rest = key.partition(".")
    if first not in ("systems", "training") or not rest or not isinstance(values["systems"], dict):
        return key
    name, dot, setting = rest.partition(".")
    alike = [str(one) for one in values["systems"] if _folded(str(one)) == _folded(name)]
    if first == "training" and not alike:
        raise RecipeError(f"{source}: there is no system {name!r}; {suggestion(name, map(str, values['systems']))}")
    return f"systems.{name if name in alike or not alike else alike[0]}{dot}{setting}"


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _set(values: dict[str, Any], origins: dict[tuple[str, ...], str], key: str, text: str, source: str) -> None:
    try:
        value = read_yaml(text).value
    except YamlError as error:
        raise RecipeError(f"{source}: the value is not valid YAML ({error.problem}); quote it") from None
    *parents, last = key.split(".")
    if len(parents) > DEEPEST:
        raise RecipeError(f"{source}: a key of {len(parents) + 1} parts; no setting lies so deep")
    place = values
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{source}: {parent} holds a value, so nothing can be set inside it")
        place = inner
    place[last] = value
    origins[(*parents, last)] = source


def _where(place: tuple[str, ...], recipe: str, origins: Mapping[tuple[str, ...], str]) -> str:
    """File and line of a key, or of what holds it."""
    return next((origins[place[:depth]] for depth in range(len(place), 0, -1) if place[:depth] in origins), recipe)


def _fields(place: tuple[str, ...], method: str | None) -> Mapping[str, FieldInfo]:
    """The settings that are known at a place of the recipe."""
    fields: Mapping[str, FieldInfo] = Recipe.model_fields
    if method is not None:
        fields, place = VARIANTS[method].model_fields, place[2:]
    for name in place:
        kinds = get_args(fields[name].annotation) or (fields[name].annotation,)
        fields = next(kind.model_fields for kind in kinds if hasattr(kind, "model_fields"))
    return fields


def _explain(error: ValidationError, recipe: str, origins: Mapping[tuple[str, ...], str]) -> str:
    """The first problem as one line: where, what was found, what to do."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    place, method = tuple(str(part) for part in first["loc"]), None
    if isinstance(cause, Misplaced):
        place = cause.place
    elif place[:1] == ("systems",) and len(place) > 2:
        method, place = place[2], place[:2] + place[3:]  # pydantic names the variant too
    where, key = _where(place, recipe, origins), ".".join(place)
    if first["type"] == "extra_forbidden":
        return f"{where}: {_unknown(place, method)}"
    if first["type"] == "missing":
        return f"{where}: the key {key!r} is missing; add it (datasets: [scifact, nfcorpus])"
    message = first["msg"].removeprefix("Value error, ")
    if place:
        message = f"{key}: {message[0].lower()}{message[1:]}"
    brief = place and not isinstance(cause, Misplaced) and not isinstance(first["input"], Mapping)
    return f"{where}: {message}; found {shown(first['input'])}" if brief else f"{where}: {message}"


def _unknown(place: tuple[str, ...], method: str | None) -> str:
    """Why a key cannot stand there: it is of the other method, it is gone, or it is written wrongly."""
    key, name = ".".join(place), place[-1]
    if method is not None and len(place) == 3:
        for other, variant in VARIANTS.items():
            if name in variant.model_fields:
                means = variant.model_fields[name].description
                return (
                    f"{key} means nothing with method: {method}, only with method: {other} ({means}); remove it, or "
                    f"change the method of {place[1]}"
                )
    gone = GONE.get(place[2], {}) if len(place) == 4 else GONE
    if method is not None and name in gone:
        return f"{key} is no setting any more; remove it (docs/training.md, From earlier releases, says what holds now)"
    return f"unknown key {key!r}; {suggestion(name, _fields(place[:-1], method))}"
