"""What a stage is, and what decides the result of its work."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ranksaga.files import hash_json

__all__ = ["Inputs", "Stage", "Summary"]

Summary = dict[str, Any]  # what a piece of work reports, as JSON


@dataclass(frozen=True)
class Stage:
    """One step of a run, by the name that the command line knows; ``description`` is for people."""

    name: str
    description: str


@dataclass(frozen=True)
class Inputs:
    """All that decides what a piece of work gives; its hash is the identity of the work.

    A subclass has a field for each such value: fingerprints of data and weights, identities of earlier work, settings,
    and every constant that can be tuned, read from the module that owns it when the inputs are made. Fields hold plain
    JSON values. Paths, names of files and numbers of workers are no inputs.

    What is too large for a field (a dataset, a model, the folder of earlier work) is given to the function beside the
    inputs, and a field holds its fingerprint: equal fingerprints are equal content, so the hash knows of it all the
    same. Consoles, bars and workers change no result and are in no field.
    """

    STAGE: ClassVar[Stage]
    VERSION: ClassVar[int]  # raised when the code gives another result for the same inputs

    def as_json(self) -> dict[str, Any]:
        """The fields with stage and version."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"stage": self.STAGE.name, "version": self.VERSION, **values}

    @property
    def identity(self) -> str:
        """Hash of all of it, 16 hex digits."""
        return hash_json(self.as_json())
