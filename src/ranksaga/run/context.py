"""What the stages of one execution share: recipe, store, datasets, encoder, and a voice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

from ranksaga.data.dataset import Dataset
from ranksaga.data.resolve import load, refuse_twins
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.encode.towers import in_two_towers, state_in_two_towers
from ranksaga.recipe import Recipe, Training
from ranksaga.run.store import Store
from ranksaga.run.team import Alone, Team

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Context", "Subject", "Voice"]


class Voice(Protocol):
    """How a run tells a person what it does. The command line draws it; a library user may stay silent."""

    def stage(self, stage: str, label: str, reused: bool) -> None:
        """A piece of work starts, or is found done."""

    def say(self, text: str) -> None:
        """One line of information."""

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[..., None]]:
        """A bar; the callable advances it by a count, with an optional ``note``."""


@dataclass(frozen=True)
class Subject:
    """A dataset and its part in the run."""

    name: str
    dataset: Dataset
    role: Literal["trained", "guard"]


class Context:
    """Loads datasets and the base model once, when first asked for."""

    def __init__(self, recipe: Recipe, store: Store, voice: Voice, team: Team | None = None) -> None:
        self.recipe = recipe
        self.store = store
        self.voice = voice
        self.team = team or Alone()

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """All datasets of the recipe, trained ones first.

        Raises:
            DataError: one cannot be loaded or has no split ``test`` to be scored on, or two are the same.
        """
        trained = [Subject(name, load(name), "trained") for name in self.recipe.datasets]
        subjects = (*trained, *(Subject(name, load(name), "guard") for name in self.recipe.guards))
        for subject in subjects:
            subject.dataset.split("test")
        refuse_twins([(subject.name, subject.dataset) for subject in subjects])
        return subjects

    @cached_property
    def encoder(self) -> Encoder:
        """The base model with its prompts, length and precision.

        Raises:
            ModelError: it cannot be loaded, scored, or trained as the recipe's presets say.
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
            workers=self.team,
        )
        for preset in recipe.presets:
            encoder.check_trainable(two_towers=recipe.training[preset].towers != "shared")
        return encoder

    def fresh_model(self, settings: Training) -> SentenceTransformer:
        """A copy of the base model in float32, in as many towers as the settings say, to be trained or overwritten."""
        model = self.encoder.model
        return copy.deepcopy(model) if settings.towers == "shared" else in_two_towers(model)

    def base_state(self, settings: Training) -> dict[str, torch.Tensor]:
        """The weights of ``fresh_model`` by name, not copied: both towers' are the base model's own."""
        model = self.encoder.model
        return model.state_dict() if settings.towers == "shared" else state_in_two_towers(model)
