"""What a report shows. The caller fills it in; the report computes no statistics and reads no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ranksaga.compare.recommendation import Answer
from ranksaga.compare.results import Comparison
from ranksaga.data.leakage import LeakageFinding
from ranksaga.report.drill_down import QueryDetail

__all__ = [
    "CurvePoint",
    "Facts",
    "ReportData",
    "Selection",
]


@dataclass(frozen=True)
class CurvePoint:
    """One candidate of the selection: an epoch and a weight of the fine-tuned model against the base.

    ``document_weight`` is that of the documents' tower, none where queries and documents share one.

    ``gains`` (trained datasets) and ``retention`` (guards) are changes on dev by dataset, in percent of the base model;
    ``gain`` and ``kept`` are the two figures the selection weighed: usually their means, in percent.
    """

    epoch: int
    weight: float
    document_weight: float | None
    gain: float
    kept: float | None
    gains: Mapping[str, float]
    retention: Mapping[str, float]
    qualifies: bool = True
    chosen: bool = False


@dataclass(frozen=True)
class Selection:
    """How one system's weights were chosen on dev, and why."""

    system: str
    points: tuple[CurvePoint, ...]
    reason: str


@dataclass(frozen=True)
class Facts:
    """A titled list of (name, value), such as versions, hardware, timings or cost."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows.

    ``answer`` holds the three comparisons and what they recommend, None where they were not made. ``headline`` is the
    candidate that the summary at the top is about; ``shipped`` is the system in the model folder, ``"baseline"`` where
    no candidate qualified, and ``shipped_reason`` says why. ``references`` are systems shown for orientation, such as
    BM25, not attempts to improve. ``query_texts`` maps (dataset, query id) to the text, and ``texts=False`` keeps every
    text of a dataset out of the files. ``details`` are all scored queries with every system's best documents, whose
    texts ``documents`` has by (dataset, id).
    """

    title: str
    comparison: Comparison
    headline: str
    shipped: str
    shipped_reason: str = ""
    answer: Answer | None = None
    references: tuple[str, ...] = ("bm25",)
    selections: tuple[Selection, ...] = ()
    leakage: tuple[LeakageFinding, ...] = ()
    notes: tuple[str, ...] = ()
    recipe: str = ""
    facts: tuple[Facts, ...] = ()
    query_texts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    details: tuple[QueryDetail, ...] = ()
    documents: Mapping[tuple[str, str], str] = field(default_factory=dict)
    texts: bool = True

    @property
    def contenders(self) -> tuple[str, ...]:
        """The candidates that are meant to improve: all but the references."""
        return tuple(system for system in self.comparison.systems if system not in self.references)
