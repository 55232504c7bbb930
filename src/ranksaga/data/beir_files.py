"""Files of the BEIR layout line by line, and the findings about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ranksaga.untrusted.input_files import bounded_lines, decoded, open_regular
from ranksaga.untrusted.json_input import parse_json

__all__ = ["BeirFile", "Finding", "Report", "kind_of"]


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
        number = 0
        try:
            with open_regular(self.path) as stream:
                for number, raw in enumerate(bounded_lines(stream), 1):
                    line = self._decoded(raw, number)
                    if line is not None and not line.isspace():
                        yield number, line
        except FileNotFoundError:
            self.error("missing-file", "there is no such file; a dataset needs corpus.jsonl and queries.jsonl")
        except OSError as problem:
            self.error("unreadable-file", f"{problem.strerror or problem}; mend that, or give another file")
        except ValueError as problem:
            self.error("long-line", str(problem), number + 1)

    def _decoded(self, raw: bytes, number: int) -> str | None:
        try:
            return decoded(raw) if number == 1 else raw.decode("utf-8")
        except UnicodeDecodeError as problem:
            byte = f"{raw[problem.start]:#04x} at position {problem.start}"
            self.error("encoding", f"byte {byte} is not UTF-8; save the file as UTF-8", number)
        except ValueError as problem:  # of another encoding, as its first bytes say
            self.error("encoding", str(problem), number)
        return None

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and JSON object of each line that has one."""
        for number, line in self.lines():
            try:
                record = parse_json(line)
            except ValueError as problem:
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
