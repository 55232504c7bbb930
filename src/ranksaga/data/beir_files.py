"""Files of the BEIR layout line by line, and the findings about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["BeirFile", "Finding", "Report", "kind_of"]

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset.

    ``error``: the dataset cannot be used as it is. ``warning``: it can, and ``message`` says
    what happens. ``file`` is relative to the dataset's folder, ``line`` counts from 1 (None:
    the file as a whole).
    """

    level: Literal["error", "warning"]
    code: str
    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


Report = Callable[[Finding], None]


class BeirFile:
    """Lines of one file of a dataset, and the findings about them."""

    def __init__(self, folder: Path, name: str, report: Report) -> None:
        self.path = folder / name
        self.name = name
        self._report = report

    def error(self, code: str, message: str, line: int | None = None) -> None:
        """Report what makes the dataset unusable."""
        self._report(Finding("error", code, self.name, line, message))

    def warning(self, code: str, message: str, line: int | None = None) -> None:
        """Report what may surprise."""
        self._report(Finding("warning", code, self.name, line, message))

    def lines(self) -> Iterator[tuple[int, str]]:
        """Number and text of each line that is not blank. Lines end at ``\\n`` only: U+2028 and such are text."""
        if not self.path.is_file():
            self.error("missing-file", "there is no such file; a dataset needs corpus.jsonl and queries.jsonl")
            return
        with self.path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                try:
                    line = (raw.removeprefix(_BOM) if number == 1 else raw).decode("utf-8")
                except UnicodeDecodeError as problem:
                    byte = f"{raw[problem.start]:#04x} at position {problem.start}"
                    self.error("encoding", f"byte {byte} is not UTF-8; save the file as UTF-8", number)
                    continue
                if not line.isspace():
                    yield number, line

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and JSON object of each line that has one."""
        for number, line in self.lines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as problem:
                self.error("json", f"broken JSON ({problem}); write one JSON object a line", number)
                continue
            if type(record) is not dict:
                self.error("json", f"found {kind_of(record)}, expected one JSON object with an _id a line", number)
                continue
            yield number, record

    def text(self, record: dict[str, Any], field: str, number: int, *, optional: bool = False) -> str:
        """A field's text; "" where it is absent and optional, or wrong and reported."""
        value = record.get(field)
        if type(value) is str:
            return value
        if value is not None:
            self.error("type", f"{field} is {kind_of(value)}, expected text; write it in double quotes", number)
        elif not optional:
            self.error("missing-field", f"there is no {field}; add it", number)
        return ""


def kind_of(value: object) -> str:
    """What a JSON value is, for a message."""
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), "a number")
