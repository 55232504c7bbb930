"""What a measurement is: per-query values by metric, from which every mean derives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Evaluation", "Origin"]


@dataclass(frozen=True)
class Origin:
    """What a measurement is of: the dataset's fingerprint, and an encoder's facts (``EncoderSpec.facts``) if one was
    at work."""

    dataset: str
    encoder: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Evaluation:
    """One system measured on one split of one dataset.

    ``query_ids`` holds every judged query in the dataset's order, also those without results.
    ``values`` maps a metric's key (``ndcg_at_10``, ``recall_at_100`` ...) to one float64 a query.
    ``origin`` is none where it was not recorded.
    """

    dataset: str
    split: str
    system: str
    query_ids: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    out_of_fold: bool = False
    origin: Origin | None = None

    def mean(self, metric: str) -> float:
        """Arithmetic mean over all judged queries."""
        return float(np.mean(self.values[metric]))
