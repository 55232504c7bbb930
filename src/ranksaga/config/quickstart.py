"""The recipe that runs where none is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranksaga.config.recipe import Recipe

__all__ = ["QUICKSTART", "QUICKSTART_VALUES"]

# Real text that nobody here wrote, on every machine, without a download. Sized for minutes on two cores without bf16.
QUICKSTART_VALUES: Mapping[str, Any] = {
    "name": "quickstart",
    "datasets": [
        "python:stdlib?limit=450",
        "python:scipy?limit=400",
        "python:sklearn?limit=400",
        "python:transformers?limit=400",
    ],
    "max_length": 128,
    "systems": {
        "best": {
            "epochs": 2,
            "seeds": 1,
            "distillation": {"pseudo_queries": 1500, "documents": 32},
            "merge_weights": [0.5, 1.0],
            "documents": {"weights": [0.0, 0.5]},
        }
    },
}
QUICKSTART = Recipe.model_validate(dict(QUICKSTART_VALUES))
