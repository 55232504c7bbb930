"""Everything a run is told, declared once.

A recipe is a YAML file; every key can also be set on the command line (``--set systems.best.epochs=2``) and in the
environment (``RANKSAGA_RECIPE_SYSTEMS__BEST__EPOCHS=2``). Precedence: defaults, file, environment, command line.
Unknown keys are refused with the nearest known one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from ranksaga.config.old_recipes import in_todays_form
from ranksaga.config.presets import PRESETS, Misplaced, resolve_systems, suggestion
from ranksaga.config.training import AnyTraining, Settings, Training
from ranksaga.untrusted.yaml_input import dump_yaml

__all__ = ["Recipe", "dump_recipe"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Recipe(Settings):
    """One run: a base model, the datasets it is to become better on, and how.

    Validated from what a user wrote; ``systems`` then hold every setting.
    """

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="name of the run's folder"
    )
    model: str = Field("minilm", min_length=1, description="a sentence-transformers model: folder, hub id, or minilm")
    datasets: tuple[str, ...] = Field(min_length=1, description="datasets that are trained on and scored")
    guards: tuple[str, ...] = Field((), description="datasets that are scored and never trained on")
    systems: Mapping[str, AnyTraining] = Field(description="what is trained and compared, by name")
    ships: str | None = Field(None, description="the system that ships; none: the last one")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random choice")
    precision: Precision = Field("auto", description="of encoding and training; auto: what is faster on the device")
    max_length: int | None = Field(None, ge=8, description="tokens per text; none: the model's own limit")
    query_prompt: str | None = Field(None, description="put before every query; none: the model's own or its family's")
    document_prompt: str | None = Field(
        None, description="put before every document; none: the model's own or its family's"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    allow_pickle: bool = Field(False, description="load weights that are not safetensors")
    leakage: Literal["drop", "report", "fail"] = Field(
        "drop", description="training queries that nearly equal a scored query"
    )
    folds: int = Field(3, ge=2, le=10, description="folds of cross-fitting for datasets with a test split only")
    depth: int = Field(1000, ge=100, le=10000, description="documents kept per ranking")

    @property
    def shipped(self) -> str:
        """Name of the system that ships."""
        return self.ships or list(self.systems)[-1]

    @property
    def shipped_training(self) -> Training:
        """How the system that ships is trained."""
        return self.systems[self.shipped]

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = in_todays_form(value)
        return {**value, "systems": resolve_systems(value.get("systems", {name: {} for name in PRESETS}))}

    @model_validator(mode="after")
    def _apart(self) -> Recipe:
        both = sorted(set(self.datasets) & set(self.guards))
        if both:
            raise ValueError(
                f"{', '.join(both)}: in datasets and in guards; a guard is never trained on, so it can only be one"
            )
        for field in ("datasets", "guards"):
            values = getattr(self, field)
            twice = sorted(value for value, count in Counter(values).items() if count > 1)
            if twice:
                raise ValueError(f"{field}: {', '.join(twice)} is named twice")
        if self.shipped not in self.systems:
            raise Misplaced(("ships",), f"there is no system {self.ships!r}; {suggestion(self.ships, self.systems)}")
        return self


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as resolved, as YAML."""
    return dump_yaml(recipe.model_dump(mode="json"))
