"""Which models are supported: what cannot be scored, or cannot learn, is refused in one line and before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranksaga.encode.text_input import TextInput
from ranksaga.encode.towers import towers
from ranksaga.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["check_model", "check_trainable", "saved_folder"]

SIMILARITIES = ("cosine", "dot")
KIND = "SentenceTransformer"


def saved_folder(where: str) -> Path | None:
    """The folder that a model was loaded from: a local one, or that of the hub's cache."""
    from sentence_transformers.util import load_file_path

    if Path(where).is_dir():
        return Path(where)
    try:
        names = ("config_sentence_transformers.json", "modules.json", "config.json")
        found = next(filter(None, (load_file_path(where, name, local_files_only=True) for name in names)), None)
    except Exception:  # the hub's client has many ways to say that it does not know; then nothing is known
        return None
    return Path(found).parent if found else None


def check_model(name: str, model: SentenceTransformer, folder: Path | None) -> None:
    """Refuse what gives other things than one vector a text, or scores them in a way that is not supported.

    Raises:
        ModelError: a model of another kind, or a similarity other than cosine and dot.
    """
    kind = _kind(folder) if folder is not None else KIND
    if kind != KIND:
        raise ModelError(f"{name}: this is a {kind}; expected a {KIND}, which gives one dense vector a text")
    for module in model.modules():
        family = type(module).__module__.removeprefix("sentence_transformers.").split(".")[0]
        if family in ("sparse_encoder", "multi_vector_encoder", "cross_encoder"):
            raise ModelError(
                f"{name}: {type(module).__name__} is a module of a {family.replace('_', ' ')}; expected a {KIND}, "
                "which gives one dense vector a text"
            )
    if model.similarity_fn_name not in SIMILARITIES:
        raise ModelError(
            f"{name}: its similarity is {model.similarity_fn_name}; supported are {' and '.join(SIMILARITIES)} "
            "(set similarity_fn_name in its config_sentence_transformers.json if that is how its vectors compare)"
        )


def check_trainable(
    name: str, model: SentenceTransformer, text_inputs: tuple[TextInput, TextInput], *, pads: bool, two_towers: bool
) -> None:
    """Refuse to train what could only be scored.

    Args:
        name: of the model.
        model: to be trained.
        text_inputs: how it reads queries and documents.
        pads: whether its padding leaves its vectors alone.
        two_towers: whether it will be split in two.

    Raises:
        ModelError: it is none that training supports.
    """
    for tower, text_input in zip(towers(model), text_inputs, strict=True):
        first: Any = tower[0]
        reason = ""
        if text_input.form == "texts" or not hasattr(getattr(first, "auto_model", None), "config"):
            reason = f"{type(first).__name__} is no transformer that reads token ids alone"
        elif not hasattr(first.auto_model.config, "num_hidden_layers") or not hasattr(
            first.auto_model.config, "hidden_size"
        ):
            reason = f"{type(first.auto_model).__name__} is no plain transformer of text"
        elif not pads:
            reason = "its vectors change with the padding of a batch"
        elif two_towers and any((tower.module_kwargs or {}).values()):
            reason = "its modules ask for the task, which no model with two towers tells them; use towers: shared"
        if reason:
            raise ModelError(f"{name}: this model cannot be trained ({reason}); it can be benchmarked")


def _kind(folder: Path) -> str:
    """What sentence-transformers saved here, as it names it."""
    try:
        config = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return KIND
    return str(config.get("model_type", KIND)) if isinstance(config, dict) else KIND
