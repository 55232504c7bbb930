"""What the stages of one run share: recipe, store, datasets, base model, console and workers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ranksaga.config.recipe import Recipe
from ranksaga.config.training import Training
from ranksaga.data.dataset import Dataset
from ranksaga.data.resolve import load_dataset, refuse_twins
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.encode.towers import in_two_towers, state_in_two_towers
from ranksaga.run.console import Console
from ranksaga.run.store import Store
from ranksaga.run.workers import LocalRunWorkers, RunWorkers

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Context", "RunDataset", "base_state", "copy_of_base"]


@dataclass(frozen=True)
class RunDataset:
    """A dataset and its part in the run; ``name`` is what the recipe calls it."""

    name: str
    dataset: Dataset
    role: Literal["trained", "guard"]


class Context:
    """Loads datasets and the base model once, when first asked for."""

    def __init__(self, recipe: Recipe, store: Store, console: Console, workers: RunWorkers | None = None) -> None:
        self.recipe = recipe
        self.store = store
        self.console = console
        self.workers = workers or LocalRunWorkers()

    @cached_property
    def datasets(self) -> tuple[RunDataset, ...]:
        """All datasets of the recipe, trained ones first.

        Raises:
            DataError: one cannot be loaded or has no split ``test`` to be scored on, or two are the same.
        """
        trained = [RunDataset(name, load_dataset(name), "trained") for name in self.recipe.datasets]
        datasets = (*trained, *(RunDataset(name, load_dataset(name), "guard") for name in self.recipe.guards))
        for member in datasets:
            member.dataset.split("test")
        refuse_twins([(member.name, member.dataset) for member in datasets])
        return datasets

    @cached_property
    def encoder(self) -> Encoder:
        """The base model with its prompts, length and precision.

        Raises:
            ModelError: it cannot be loaded, scored, or trained as the recipe's systems say.
        """
        recipe = self.recipe
        encoder = load_encoder(
            recipe.model,
            precision=recipe.precision,
            max_length=recipe.max_length,
            query_prompt=recipe.query_prompt,
            document_prompt=recipe.document_prompt,
            trust_remote_code=recipe.trust_remote_code,
            allow_pickle=recipe.allow_pickle,
            cached=True,
            workers=self.workers,
        )
        for settings in recipe.systems.values():
            encoder.check_trainable(two_towers=settings.trains != "shared")
        return encoder


def copy_of_base(base: Encoder, settings: Training) -> SentenceTransformer:
    """A copy of the base model in float32, in as many towers as the settings say, to be trained or overwritten."""
    return copy.deepcopy(base.model) if settings.trains == "shared" else in_two_towers(base.model)


def base_state(base: Encoder, settings: Training) -> dict[str, torch.Tensor]:
    """The weights of :func:`copy_of_base` by name, not copied: both towers' are the base model's own."""
    return base.model.state_dict() if settings.trains == "shared" else state_in_two_towers(base.model)
