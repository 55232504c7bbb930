"""Single queries under every system: what stood in the top ten before and after, for the page to filter and show.

The page holds them as JSON inside its own script; the size is bounded, and the page says how many are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ranksaga.compare.results import BASELINE

__all__ = ["CAP", "TOP", "DrillDown", "QueryDetail", "SystemDetail", "drill_down"]

CAP = 2_000_000  # bytes of JSON in a page
TOP = 10  # documents shown of each ranking
_QUERY, _DOCUMENT = 300, 140  # characters shown of a text


@dataclass(frozen=True)
class SystemDetail:
    """What one system did with a query: its value of the primary metric and the ids of its best documents."""

    system: str
    value: float
    top: tuple[str, ...]


@dataclass(frozen=True)
class QueryDetail:
    """A scored query: its text, the ids of its relevant documents, and every system's results, the baseline's first."""

    dataset: str
    query_id: str
    text: str
    gold: tuple[str, ...]
    systems: tuple[SystemDetail, ...]

    @property
    def largest_change(self) -> float:
        """The largest absolute change against the baseline under any system."""
        base = next((one.value for one in self.systems if one.system == BASELINE), 0.0)
        return max((abs(one.value - base) for one in self.systems), default=0.0)


@dataclass(frozen=True)
class DrillDown:
    """The queries that a page holds, as JSON that can stand in a script, of ``total``."""

    json: str
    shown: int
    total: int
    datasets: tuple[str, ...]
    systems: tuple[str, ...]


def drill_down(
    details: Sequence[QueryDetail], documents: Mapping[tuple[str, str], str], *, texts: bool = True, cap: int = CAP
) -> DrillDown:
    """The queries whose values changed most, as many as the cap allows, each with its documents.

    Args:
        details: all scored queries.
        documents: texts of documents by (dataset, id).
        texts: whether texts are shown; ids always are.
        cap: most bytes of JSON.
    """
    datasets = tuple(dict.fromkeys(one.dataset for one in details))
    systems = tuple(dict.fromkeys(one.system for detail in details for one in detail.systems))
    queries: list[str] = []
    shown: dict[str, str] = {}
    size = len(_script_json([datasets, systems])) + 64
    for detail in sorted(details, key=lambda one: -one.largest_change):
        query = _script_json(_query(detail, datasets, systems, texts=texts))
        new: dict[str, str] = {}
        for name in dict.fromkeys(name for one in detail.systems for name in one.top[:TOP]):
            key = f"{datasets.index(detail.dataset)} {name}"
            text = documents.get((detail.dataset, name), "") if texts else ""
            if text and key not in shown:
                new[key] = f"{_script_json(key)}:{_script_json(_cut(text, _DOCUMENT))}"
        size += len(query) + 1 + sum(len(part) + 1 for part in new.values())
        if size > cap:
            break
        queries.append(query)
        shown |= new
    content = (
        f'{{"datasets":{_script_json(datasets)},"systems":{_script_json(systems)},'
        f'"queries":[{",".join(queries)}],"documents":{{{",".join(shown.values())}}}}}'
    )
    return DrillDown(content, len(queries), len(details), datasets, systems)


def _query(detail: QueryDetail, datasets: Sequence[str], systems: Sequence[str], *, texts: bool) -> list[Any]:
    results = {systems.index(one.system): [round(one.value, 4), one.top[:TOP]] for one in detail.systems}
    text = _cut(detail.text, _QUERY) if texts else ""
    return [datasets.index(detail.dataset), detail.query_id, text, detail.gold[:50], results]


def _cut(text: str, length: int) -> str:
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _script_json(value: Any) -> str:
    """JSON in ASCII that nothing in a page's script can read as a tag or as the end of the script."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
