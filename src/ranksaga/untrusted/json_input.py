"""JSON that someone else may have written: what RFC 8259 leaves open is refused, never guessed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ranksaga.untrusted.input_files import decoded, read_bounded

__all__ = ["LARGEST", "load_json", "parse_json"]

LARGEST = 1 << 30  # bytes
_DIGITS = 4300  # Python converts no longer ones


def parse_json(text: str, *, nan_is_null: bool = False) -> Any:
    """The value that a JSON text stands for.

    ``nan_is_null`` reads NaN as null: many programs write it for a cell of a table that is empty.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or has a key twice, a number that is not finite or one of more
            than 4,300 digits. The message is one short line.
    """
    try:
        return (_DECODER_OF_TABLES if nan_is_null else _DECODER).decode(text)
    except RecursionError:
        raise ValueError("maximum recursion depth exceeded, it is nested too deeply") from None


def load_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: there is no such file, or it is no regular one, or has more than :data:`LARGEST` bytes.
        ValueError: it is not UTF-8, or see :func:`parse_json`.
    """
    return parse_json(decoded(read_bounded(path, LARGEST)))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return values


def _not_finite(name: str) -> Any:
    raise ValueError(f"{name} is no JSON; write a finite number or null")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is beyond all floating-point numbers")
    return value


def _short(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _null(name: str) -> Any:
    return None if name == "NaN" else _not_finite(name)


_DECODER, _DECODER_OF_TABLES = (
    json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=constant, parse_float=_finite, parse_int=_short)
    for constant in (_not_finite, _null)
)
