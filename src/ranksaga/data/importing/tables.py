"""Tables of any common format as records: CSV, TSV, XLSX, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranksaga.data.importing.rows import needs_import_extra, unknown_name
from ranksaga.data.importing.text_files import read_text, suffix_of
from ranksaga.errors import DataError
from ranksaga.untrusted.input_files import most_unpacked
from ranksaga.untrusted.json_input import parse_json

__all__ = ["JSON_SUFFIXES", "TABLE_SUFFIXES", "Table", "flat", "read_json_value", "read_table", "table_of"]

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".xlsx", ".xlsm", *JSON_SUFFIXES, ".parquet")
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Records with named columns.

    Attributes:
        name: of the file, for messages.
        format: what it is, in words.
        columns: names, in the order of the file.
        records: by column; a value that is absent is none.
        places: what each record is called in a message (a line or row number).
        empty: how many records had no value at all, and were left out.
    """

    name: str
    format: str
    columns: tuple[str, ...]
    records: Sequence[Record]
    places: Sequence[str]
    empty: int = 0


def read_table(path: Path, *, encoding: str | None = None, sheet: str | None = None) -> Table:
    """Read a table; its ending says what it is.

    Args:
        path: of the file; a text format may be compressed (``.gz``).
        encoding: of a text format; none: see :func:`ranksaga.data.importing.text_files.read_text`.
        sheet: of a workbook; none: the first.

    Raises:
        DataError: the file is missing, broken or empty. The message names the line where there is one.
        UsageError: there is no such sheet or encoding, or a library is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    suffix = suffix_of(path)
    if suffix in (".xlsx", ".xlsm"):
        return _read_workbook(path, sheet)
    if suffix == ".parquet":
        return _read_parquet(path)
    text, words = read_text(path, encoding)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; expected a table with a header and rows")
    if suffix in JSON_SUFFIXES:
        return table_of(str(path), f"{'JSON' if suffix == '.json' else 'JSON lines'}, {words}", *_read_json(path, text))
    return _read_delimited(path, text, words, tab=suffix in (".tsv", ".tab"))


def table_of(name: str, form: str, values: Iterable[Any], places: Iterable[str]) -> Table:
    """A table of JSON-like objects, one level of nested objects as columns (``answers.text``).

    Raises:
        DataError: a value is no object, or there is none with a value.
    """
    columns: dict[str, None] = {}
    records: list[Record] = []
    kept: list[str] = []
    empty = 0
    for value, place in zip(values, places, strict=True):
        if not isinstance(value, Mapping):
            raise DataError(
                f"{name}:{place}: found {type(value).__name__}, expected one object with named fields a row"
            )
        record = flat(value)
        columns.update(dict.fromkeys(record))
        if all(is_blank(cell) for cell in record.values()):
            empty += 1
            continue
        records.append(record)
        kept.append(place)
    if not records:
        raise DataError(f"{name}: there is no row with a value; expected at least one")
    return Table(name, form, tuple(columns), records, kept, empty)


def flat(record: Mapping[Any, Any]) -> dict[str, Any]:
    """A record whose nested objects are columns of their own, named ``outer.inner``."""
    cells: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            cells |= {f"{key}.{inner}": cell for inner, cell in value.items()}
        else:
            cells[str(key)] = value
    return cells


def is_blank(cell: Any) -> bool:
    """Whether a cell holds nothing: none, NaN, white space, or a list of such."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    if isinstance(cell, str):
        return not cell.strip()
    return isinstance(cell, (list, tuple)) and all(is_blank(part) for part in cell)


def read_json_value(path: Path, encoding: str | None = None) -> tuple[Any, str]:
    """What a JSON file holds (a list of objects where it is JSON lines), and its encoding in words.

    Raises:
        DataError: it is missing or broken.
    """
    text, words = read_text(path, encoding)
    try:
        return parse_json(text, nan_is_null=True), words
    except ValueError:
        return list(_json_lines(path, text)[0]), words


def _read_json(path: Path, text: str) -> tuple[list[Any], list[str]]:
    try:
        value = parse_json(text, nan_is_null=True)
    except ValueError as problem:
        lines = text.lstrip()
        if suffix_of(path) == ".json" and (lines.startswith("[") or not _is_lines(lines)):
            line = getattr(problem, "lineno", 1)
            raise DataError(f"{path}:{line}: broken JSON ({problem}); mend it or write one object a line") from problem
        return _json_lines(path, text)
    if isinstance(value, list):
        return value, [f"item {number}" for number in range(1, len(value) + 1)]
    if not isinstance(value, dict):
        raise DataError(f"{path}: found {type(value).__name__}, expected a list of objects with named fields")
    lists = {key: column for key, column in value.items() if isinstance(column, list)}
    tables = {key: column for key, column in lists.items() if column and all(isinstance(row, dict) for row in column)}
    if len(tables) == 1:  # {"data": [{...}, ...]}
        rows = next(iter(tables.values()))
        return rows, [f"item {number}" for number in range(1, len(rows) + 1)]
    if len(value) > 1 and len(lists) == len(value) and len({len(column) for column in lists.values()}) == 1:
        rows = [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]
        return rows, [f"item {number}" for number in range(1, len(rows) + 1)]
    if value and all(isinstance(row, dict) for row in value.values()):
        return [{"id": key, **row} for key, row in value.items()], [f"key {key!r}" for key in value]
    return [value], ["item 1"]


def _is_lines(text: str) -> bool:
    """Whether the first line is a JSON value of its own."""
    try:
        parse_json(text.partition("\n")[0], nan_is_null=True)
    except ValueError:
        return False
    return True


def _json_lines(path: Path, text: str) -> tuple[list[Any], list[str]]:
    values, places = [], []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 is text
        if not line.strip():
            continue
        try:
            values.append(parse_json(line, nan_is_null=True))
        except ValueError as problem:
            raise DataError(f"{path}:{number}: broken JSON ({problem}); write one JSON object a line") from problem
        places.append(str(number))
    return values, places


def _read_delimited(path: Path, text: str, words: str, *, tab: bool) -> Table:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    delimiter = "\t" if tab else _delimiter_of(text)
    if (told := re.match(r"sep=(.)\r?\n", text)) and told[1] in _DELIMITERS:  # Excel's own way to say it
        delimiter, text = told[1], text[told.end(1) :]
    kind = f"{'TSV' if tab else 'CSV'}, {words}, {_DELIMITERS[delimiter]} between cells"
    try:
        rows = _cells(text, delimiter, quoting=csv.QUOTE_MINIMAL)
        wide = _too_wide(rows)
    except csv.Error as problem:
        rows, wide = [], str(problem)
    if wide:
        # Many tools write tabs without any quoting, so that a quotation mark is text.
        plain = _cells(text, delimiter, quoting=csv.QUOTE_NONE) if tab else []
        if not plain or any(len(cells) not in (0, len(plain[0][1])) for _, cells in plain):
            raise DataError(_broken(path, wide, rows, delimiter))
        rows, kind = plain, f"{kind}, quotation marks as text"
    (_, names), *body = rows
    columns = _names(path, names)
    records, places, empty = [], [], 0
    for number, cells in body:
        if not any(cell.strip() for cell in cells):
            empty += 1
            continue
        records.append({column: cells[index] for index, column in columns if index < len(cells)})
        places.append(str(number))
    if not records:
        raise DataError(f"{path}: there is a header and no row below it; add rows, or the header if the row is data")
    return Table(str(path), kind, tuple(column for _, column in columns), records, places, empty)


def _cells(text: str, delimiter: str, *, quoting: Any) -> list[tuple[int, list[str]]]:
    """Line number at which each row begins, and its cells; blank lines before the header are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[tuple[int, list[str]]] = []
    begin = 1
    try:
        for cells in reader:
            if rows or any(cell.strip() for cell in cells):
                rows.append((begin, cells))
            begin = reader.line_num + 1
    except csv.Error as problem:
        raise csv.Error(f"{begin}: {problem}") from problem
    return rows


def _too_wide(rows: Sequence[tuple[int, list[str]]]) -> str | None:
    width = len(rows[0][1])
    for number, cells in rows[1:]:
        if len(cells) > width and any(cell.strip() for cell in cells[width:]):
            return f"{number}: {len(cells)} cells, and the header has {width}"
    return None


def _broken(path: Path, problem: str, rows: Sequence[Any], delimiter: str) -> str:
    if rows:
        return f"{path}:{problem}; put quotation marks around a cell with a {_DELIMITERS[delimiter]} in it"
    return f"{path}:{problem}; close each quotation mark, and double those inside a quoted cell"


def _delimiter_of(text: str) -> str:
    """The one that cuts the first rows into the same number of cells, the most of them; a comma where none does."""
    sample = text[:65536]
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        try:
            rows = list(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter))[:30]
        except csv.Error:
            continue
        if len(sample) < len(text) and len(rows) > 1:
            rows.pop()  # may be cut
        rows = [cells for cells in rows if any(cell.strip() for cell in cells)]
        width = len(rows[0]) if rows else 0
        if width > most and sum(len(cells) == width for cells in rows) >= 0.8 * len(rows):
            best, most = delimiter, width
    return best


def _names(path: Path, header: Sequence[Any]) -> list[tuple[int, str]]:
    """Index and name of each column; those without a name are called by their number."""
    names = ["" if name is None else str(name).strip() for name in header]
    while names and not names[-1]:
        names.pop()
    columns = [name or f"column {number}" for number, name in enumerate(names, 1)]
    doubled = next((name for index, name in enumerate(columns) if name in columns[:index]), None)
    if doubled is not None:
        raise DataError(f"{path}: two columns are called {doubled!r}; give each a name of its own")
    return list(enumerate(columns))


def _read_workbook(path: Path, sheet: str | None) -> Table:
    with needs_import_extra("a workbook (.xlsx)"):
        import openpyxl
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
        if size > most_unpacked(path.stat().st_size):
            raise ValueError(f"it unpacks to {size} bytes, too many for its size")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as problem:  # zip, XML and value errors, whatever the library meets first
        raise DataError(
            f"{path}: no workbook that can be read ({_first_line(problem)}); save it as .xlsx anew"
        ) from problem
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise unknown_name(str(path), "sheet", sheet, book.sheetnames)
        chosen = book[sheet] if sheet is not None else book.worksheets[0]
        chosen.reset_dimensions()  # some tools write a wrong extent
        rows = [(number, list(row)) for number, row in enumerate(chosen.iter_rows(values_only=True), 1)]
        title, count = chosen.title, len(book.sheetnames)
    except (ValueError, KeyError, IndexError, AttributeError) as problem:
        raise DataError(
            f"{path}: the sheet cannot be read ({_first_line(problem)}); save it as .xlsx anew"
        ) from problem
    finally:
        book.close()
    while rows and all(is_blank(cell) for cell in rows[0][1]):
        rows.pop(0)
    if len(rows) < 2:
        raise DataError(f"{path}: sheet {title!r} has no header with rows below it; choose another with --sheet")
    columns = _names(path, rows[0][1])
    filled = [(number, cells) for number, cells in rows[1:] if not all(is_blank(cell) for cell in cells)]
    if not filled:
        raise DataError(f"{path}: sheet {title!r} has a header and no row below it; choose another with --sheet")
    records = [{name: cells[index] for index, name in columns if index < len(cells)} for _, cells in filled]
    form = f"XLSX, sheet {title!r}{f' (of {count}; another with --sheet)' if count > 1 and sheet is None else ''}"
    names = tuple(name for _, name in columns)
    # Rows below the last filled one are the sheet's formatting, not empty rows.
    empty = sum(number < filled[-1][0] for number, _ in rows[1:]) + 1 - len(filled)
    return Table(str(path), form, names, records, [f"row {number}" for number, _ in filled], empty)


def _read_parquet(path: Path) -> Table:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            values = [row for batch in file.iter_batches() for row in batch.to_pylist()]
    except (pyarrow.ArrowException, OSError, ValueError) as problem:
        raise DataError(
            f"{path}: no Parquet file that can be read ({_first_line(problem)}); write it anew"
        ) from problem
    if not names or not values:
        raise DataError(f"{path}: the file has no rows; expected at least one")
    return table_of(str(path), "Parquet", values, _row_numbers(len(values)))


def _row_numbers(count: int) -> Iterator[str]:
    return (f"row {number}" for number in range(1, count + 1))


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).strip().splitlines()), "") or type(problem).__name__
