"""Everything a run is told, declared once.

A recipe is a YAML file; every key can also be set on the command line
(``--set training.best.epochs=2``) and in the environment
(``RANKSAGA_RECIPE_TRAINING__BEST__EPOCHS=2``). Precedence: defaults, file, environment,
command line. Unknown keys are refused with the nearest known one.
"""

from __future__ import annotations

import copy
import difflib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ranksaga.errors import RecipeError
from ranksaga.untrusted.escape import cut, shown
from ranksaga.untrusted.input_files import read_bounded
from ranksaga.untrusted.yaml_input import DEEPEST, LARGEST, YamlError, dump_yaml, read_yaml

__all__ = ["PRESETS", "QUICKSTART", "Distillation", "Documents", "Recipe", "Training", "dump_recipe", "load_recipe"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
ENVIRONMENT_PREFIX = "RANKSAGA_RECIPE_"


class Settings(BaseModel):
    """Frozen, strict about keys, and every number finite: YAML has .inf and .nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Distillation(Settings):
    """A teacher that needs no labels: the base model's scores, corrected, on pseudo-queries from the corpus."""

    pseudo_queries: int = Field(2000, ge=64, description="taken from each corpus: titles, sentences, docstrings, names")
    queries: int = Field(96, ge=2, description="pseudo-queries per step")
    labelled: int = Field(64, ge=0, description="training queries per step")
    documents: int = Field(64, ge=2, description="documents per step that the model reads anew")
    words: float = Field(
        3.0,
        ge=0,
        description="what BM25's best document adds to the teacher's similarity, in standard deviations of the base "
        "model's own, where no training query is there to choose it",
    )
    feedback: float = Field(0.4, ge=0, description="the same for the step towards the first documents")
    hubness: float = Field(
        0.1, ge=0, description="the same for what is taken off documents that are near to everything"
    )
    labels: float = Field(1.0, ge=0, description="weight of the training queries' labels beside the teacher")
    bank: float = Field(
        1.0, ge=0, description="weight of the loss against the whole corpus as the base model encoded it"
    )
    anchor: float = Field(
        0.05,
        ge=0,
        description="weight of staying near the base model's document vectors, against the same standard deviation",
    )


class Documents(Settings):
    """A second phase: documents learn, by the same distillation, from a queries' tower that no longer changes."""

    epochs: int = Field(1, ge=1, description="passes over the pseudo-queries")
    learning_rate: float = Field(5e-5, gt=0, lt=1, description="peak learning rate of AdamW")
    query_weight: float = Field(
        0.75, gt=0, le=1, description="weight against the base of the queries' tower that documents learn from"
    )
    weights: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5, 0.75),
        min_length=1,
        description="weights of the documents' tower against the base, chosen on dev together with the queries'; "
        "0: documents stay, and every index of them",
    )

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= weight <= 1 for weight in value):
            raise ValueError("weights lie between 0 (documents stay) and 1")
        return value


class Lora(Settings):
    """Low-rank updates of the linear layers in place of all weights (Hu et al. 2021)."""

    rank: int = Field(16, ge=1, description="columns of the two narrow matrices")
    alpha: float = Field(32.0, gt=0, description="the update counts alpha / rank times")


class Training(Settings):
    """How one model is fine-tuned. The presets ``v1``, ``v2`` and ``best`` are values of this type."""

    splits: Literal["train", "all"] = Field(
        "all",
        description="train: datasets with a train split only; all: every dataset, test-only sets by cross-fitting",
    )
    epochs: int = Field(4, ge=1, description="passes over the training pairs")
    learning_rate: float = Field(3e-5, gt=0, lt=1, description="peak learning rate of AdamW")
    search: int = Field(
        0, ge=0, description="other learning rates and epochs to try, drawn by the seed; the best on dev goes on"
    )
    seeds: int = Field(
        1, ge=1, description="trainings with seeds (and pseudo-queries) of their own, whose weights are averaged"
    )
    warmup_steps: int | None = Field(None, ge=0, description="linear warm-up in steps; none: a tenth of the run")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    batch_size: int = Field(32, ge=2, description="pairs per step; in-batch negatives grow with it")
    scale: float | None = Field(
        None,
        gt=0,
        description="inverse temperature of the loss; none: 20, or with distillation as sharp on each dataset as the "
        "spread of the base model's similarities asks",
    )
    max_steps: int | None = Field(None, ge=1, description="cap on optimizer steps, stated in the report")
    max_length: int | None = Field(None, ge=8, description="tokens per training text; none: the encoder's own limit")
    titles: bool = Field(True, description="train on title + text, as scored; false: text only, as the first study did")
    prompts: bool = Field(True, description="train with the encoder's prompts, as scored; false: without")
    batches: Literal["per_dataset", "mixed"] = Field(
        "per_dataset", description="mixed: pairs of all datasets in one shuffled list"
    )
    mask_false_negatives: bool = Field(
        True, description="no document counts as a negative of a query it is judged relevant to"
    )
    dataset_temperature: float = Field(
        1.0,
        ge=0,
        le=1,
        description="datasets drawn in proportion to size ** temperature; 1: as large as they are, 0: equally",
    )
    positives_per_query: int | None = Field(
        None, ge=1, description="cap on a query's positives per epoch, drawn anew each epoch"
    )
    hard_negatives: int = Field(0, ge=0, description="mined negatives per pair")
    negative_margin: float = Field(
        0.95, gt=0, le=1, description="a negative scores at most this share of the positive's score"
    )
    dropout: bool | None = Field(
        None, description="none: off, on every device; true: the model's own rates, on attention's slow path"
    )
    towers: Literal["shared", "query", "document"] = Field(
        "shared",
        description="shared: one model for queries and documents; query: queries get weights of their own and "
        "documents stay; document: the other way round. The last two need distillation",
    )
    documents: Documents | None = Field(
        None,
        description="then train documents too, with towers: query; none: documents stay, and every index of them",
    )
    cross_fitted: Literal["labels", "corpus"] = Field(
        "labels",
        description="what a dataset with a test split only lends to training: labels: a model for each fold; "
        "corpus: its documents alone (with distillation), one training for all folds, which select by its queries",
    )
    lora: Lora | None = Field(
        None, description="learn low-rank updates of the linear layers, and nothing else; none: all weights"
    )
    freeze_embeddings: bool = Field(
        False, description="leave the token embeddings as they are: rare words keep their place"
    )
    distillation: Distillation | None = Field(None, description="none: labelled pairs only")
    merge_weights: tuple[float, ...] = Field(
        (1.0,), description="weights of the fine-tuned model against the base, chosen on dev"
    )
    tolerance: float = Field(
        0.0, ge=0, description="largest relative loss on any dataset's or guard's dev that selection accepts"
    )
    standard_errors: float = Field(
        1.0,
        ge=0,
        description="a larger loss is refused where it exceeds the tolerance by more than so many of its standard "
        "errors; 0: at once, however few the dev queries",
    )

    @field_validator("merge_weights")
    @classmethod
    def _weights(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < weight <= 1 for weight in value):
            raise ValueError(
                "weights lie above 0 and up to 1, at least one of them; the base model (0) is always a choice"
            )
        return value

    @model_validator(mode="after")
    def _two_towers(self) -> Training:
        if self.towers != "shared" and self.distillation is None:
            raise ValueError(f"towers: {self.towers} needs distillation (labels alone do not hold two towers together)")
        if self.documents is not None and self.towers != "query":
            raise ValueError(f"documents are trained after queries: expected towers: query, found {self.towers}")
        return self


PRESETS: Mapping[str, Training] = {
    # The two recipes of the first study, faults included (plain shuffled pairs, no titles, no
    # prompts, no guard against false negatives), so that its tables can be measured again.
    "v1": Training(
        splits="train",
        epochs=3,
        learning_rate=2e-5,
        warmup_steps=100,
        batch_size=16,
        titles=False,
        prompts=False,
        batches="mixed",
        mask_false_negatives=False,
    ),
    "v2": Training(
        epochs=5,
        learning_rate=1e-5,
        warmup_steps=500,
        batch_size=32,
        titles=False,
        prompts=False,
        batches="mixed",
        mask_false_negatives=False,
    ),
    # Queries learn first, against documents as they are; then documents, less and gently.
    "best": Training(
        epochs=5,
        seeds=2,
        learning_rate=1e-4,
        weight_decay=0.0,
        max_length=128,
        dataset_temperature=0.0,
        towers="query",
        cross_fitted="corpus",
        freeze_embeddings=True,
        documents=Documents(),
        distillation=Distillation(pseudo_queries=4000),
        merge_weights=(0.5, 0.75, 1.0),
    ),
}


def _changed(values: dict[str, Any], changes: dict[str, Any] | Training) -> dict[str, Any]:
    """Settings with some of them changed, inner ones too."""
    if isinstance(changes, Training):
        return changes.model_dump()
    inner = {
        key: {**values[key], **change} if isinstance(change, dict) and isinstance(values.get(key), dict) else change
        for key, change in changes.items()
    }
    return {**values, **inner}


class Recipe(Settings):
    """One run: a base model, the datasets it is to become better on, and how."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="name of the run's folder"
    )
    model: str = Field("minilm", min_length=1, description="a sentence-transformers model: folder, hub id, or minilm")
    datasets: tuple[str, ...] = Field(min_length=1, description="datasets that are trained on and scored")
    guards: tuple[str, ...] = Field((), description="datasets that are scored and never trained on")
    presets: tuple[Literal["v1", "v2", "best"], ...] = Field(
        ("best",), min_length=1, description="what is trained and compared; the last one ships"
    )
    training: Mapping[str, Training] = Field(
        default_factory=dict, description="changes to a preset, by its name", validate_default=True
    )
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

    @model_validator(mode="before")
    @classmethod
    def _merge_presets(cls, value: Any) -> Any:
        """``training.best.epochs: 2`` changes that one setting of the preset, not the others."""
        if not isinstance(value, dict):
            return value
        changes = value.get("training") or {}
        if not isinstance(changes, dict):
            raise ValueError("training: expected a mapping of preset names to settings")
        for name, change in changes.items():
            if name not in PRESETS:
                near = difflib.get_close_matches(str(name), PRESETS, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"training.{name}: there is no such preset{hint} (known: {', '.join(PRESETS)})")
            if not isinstance(change, dict | Training):
                raise ValueError(f"training.{name}: expected settings, found {change!r}")
        merged = {name: _changed(preset.model_dump(), changes.get(name) or {}) for name, preset in PRESETS.items()}
        return {**value, "training": merged}

    @model_validator(mode="after")
    def _apart(self) -> Recipe:
        both = sorted(set(self.datasets) & set(self.guards))
        if both:
            raise ValueError(
                f"{', '.join(both)}: in datasets and in guards; a guard is never trained on, so it can only be one"
            )
        for field in ("datasets", "guards", "presets"):
            values = getattr(self, field)
            twice = sorted(value for value, count in Counter(values).items() if count > 1)
            if twice:
                raise ValueError(f"{field}: {', '.join(twice)} is named twice")
        return self


# Real text that nobody here wrote, on every machine, without a download. Sized for minutes on two cores without bf16.
_QUICKSTART: Mapping[str, Any] = {
    "name": "quickstart",
    "datasets": [
        "python:stdlib?limit=450",
        "python:scipy?limit=400",
        "python:sklearn?limit=400",
        "python:transformers?limit=400",
    ],
    "max_length": 128,
    "training": {
        "best": {
            "epochs": 2,
            "seeds": 1,
            "distillation": {"pseudo_queries": 1500, "documents": 32},
            "merge_weights": [0.5, 1.0],
            "documents": {"weights": [0.0, 0.5]},
        }
    },
}
QUICKSTART = Recipe.model_validate(_QUICKSTART)


def load_recipe(
    path: Path | None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Recipe:
    """Read a recipe; ``None`` is the quickstart. ``overrides`` are ``KEY=VALUE`` strings, values in YAML.

    Raises:
        RecipeError: the file is missing or broken, a key is unknown, a value does not fit.
    """
    origins: dict[tuple[str, ...], str] = {}
    if path is None:
        values = copy.deepcopy(dict(_QUICKSTART))
    else:
        values, origins = _read(path)
        values.setdefault("name", path.stem)
    environment = os.environ if environment is None else environment
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _set(values, origins, key, environment[variable], f"environment variable {variable}")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, as in --set training.best.epochs=2")
        _set(values, origins, key.strip(), value, f"--set {cut(override)}")
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(error, str(path or "recipe"), origins)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as resolved, as YAML; only presets that run are shown."""
    values = recipe.model_dump(mode="json")
    values["training"] = {name: values["training"][name] for name in recipe.presets}
    return dump_yaml(values)


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The values, and where each is written: file and line."""
    try:
        document = read_yaml(read_bounded(path, LARGEST))
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: there is no such recipe; write one, or run without a recipe for the quickstart"
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error}); a recipe is a YAML file") from None
    except YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise RecipeError(f"{path}{line}: not valid YAML: {error.problem}; mend that line") from None
    values = document.value
    if not isinstance(values, dict):
        found = "an empty file" if values is None else f"a {type(values).__name__}"
        raise RecipeError(f"{path}:1: expected keys and values (model: ..., datasets: [...]), found {found}")
    return values, {place: f"{path}:{line}" for place, line in document.lines.items()}


def _set(values: dict[str, Any], origins: dict[tuple[str, ...], str], key: str, text: str, source: str) -> None:
    try:
        value = read_yaml(text).value
    except YamlError as error:
        raise RecipeError(f"{source}: the value is not valid YAML ({error.problem}); quote it") from None
    *parents, last = key.split(".")
    if len(parents) > DEEPEST:
        raise RecipeError(f"{source}: a key of {len(parents) + 1} parts; no setting lies so deep")
    place = values
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{source}: {parent} holds a value, so nothing can be set inside it")
        place = inner
    place[last] = value
    origins[(*parents, last)] = source


def _fields(place: tuple[str, ...]) -> Mapping[str, Any]:
    """The settings that are known at a place of the recipe."""
    fields: Mapping[str, Any] = Recipe.model_fields
    if place[:1] == ("training",):
        fields, place = Training.model_fields, place[2:]
    for name in place:
        kinds = get_args(fields[name].annotation) or (fields[name].annotation,)
        fields = next(kind.model_fields for kind in kinds if hasattr(kind, "model_fields"))
    return fields


def _explain(error: ValidationError, recipe: str, origins: Mapping[tuple[str, ...], str]) -> str:
    """The first problem as one line: where, what was found, what to do."""
    first = error.errors()[0]
    place = tuple(str(part) for part in first["loc"])
    where = next((origins[place[:depth]] for depth in range(len(place), 0, -1) if place[:depth] in origins), recipe)
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        known = _fields(place[:-1])
        near = difflib.get_close_matches(place[-1], known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{where}: unknown key {key!r}; {hint}"
    if first["type"] == "missing":
        return f"{where}: the key {key!r} is missing; add it (datasets: [scifact, nfcorpus])"
    message = first["msg"].removeprefix("Value error, ")
    if not place:
        return f"{where}: {message}"
    return f"{where}: {key}: {message[0].lower()}{message[1:]}; found {shown(first['input'])}"
