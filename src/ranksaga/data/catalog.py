"""The public BEIR sets: size, licence, and where to get them.

Counts are those of ir_datasets 0.6.3 (MacAvaney et al. 2021), checksums those published in
BEIR's README; licences as MTEB 2.26 states them, None where nobody does.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ranksaga.data.beir import Counts
from ranksaga.errors import DataError
from ranksaga.files import read_json

__all__ = ["CatalogEntry", "catalog", "catalog_entry"]


@dataclass(frozen=True)
class CatalogEntry:
    """One BEIR set.

    ``counts`` is what its BEIR folder holds, None for sets that are not public. ``archive`` is
    the zip's name without its ending (CQADupStack's twelve sets share one), None where there is
    none to download; ``archive_bytes`` and ``archive_md5`` describe the zip. ``hub`` lists its
    data sets on Hugging Face.
    """

    name: str
    title: str
    task: str
    licence: str | None
    counts: Counts | None
    archive: str | None
    archive_bytes: int | None
    archive_md5: str | None
    hub: tuple[str, ...]

    @property
    def public(self) -> bool:
        """Whether it can be downloaded."""
        return self.archive is not None


@cache
def catalog() -> Mapping[str, CatalogEntry]:
    """All sets of BEIR by name, the four that are not public included."""
    raw = read_json(Path(__file__).with_name("catalog.json"))
    return MappingProxyType({name: _entry(name, fields) for name, fields in raw.items()})


def catalog_entry(name: str) -> CatalogEntry:
    """The set of this name.

    Raises:
        DataError: there is none; the message has the nearest names.
    """
    if name in catalog():
        return catalog()[name]
    group = [known for known in catalog() if known.startswith(f"{name}/")]
    if group:
        raise DataError(f"{name} is a group of {len(group)} datasets; name one of them: {', '.join(group)}")
    near = difflib.get_close_matches(name.lower(), catalog(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"BEIR has: {', '.join(catalog())}"
    raise DataError(f"there is no BEIR dataset {name!r}; {hint}")


def _entry(name: str, fields: dict[str, Any]) -> CatalogEntry:
    counts = None
    if fields["archive"] is not None:
        splits = {split: (size["queries"], size["judgments"]) for split, size in fields["splits"].items()}
        counts = Counts(fields["documents"], fields["queries"], splits)
    return CatalogEntry(
        name=name,
        title=fields["title"],
        task=fields["task"],
        licence=fields["licence"],
        counts=counts,
        archive=fields["archive"],
        archive_bytes=fields["archive_bytes"],
        archive_md5=fields["archive_md5"],
        hub=tuple(fields["hub"]),
    )
