"""Save a model so that plain sentence-transformers loads it and gives the vectors that were scored.

A base model in half precision is shipped in it: trained weights are rounded to what its files hold before they are
scored, so that what is saved is what was measured.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranksaga.encode.text_input import limit_length, own_limit
from ranksaga.encode.towers import DOCUMENT, QUERY, towers
from ranksaga.encode.weight_files import floating_dtype
from ranksaga.files import read_json, write_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["note_dtypes", "round_weights", "save_model", "tower_models"]

# Where a transformer module remembers what its files held; not a part of its configuration, which is saved.
STORED = "stored_dtype"
CUSTOM = "transformers_modules."


def note_dtypes(model: SentenceTransformer, folder: Path | None) -> None:
    """Have each transformer of a model remember the precision of its files, of which float32 was made."""
    if folder is None:
        return
    for module, where in _folders(model, folder):
        if hasattr(module, "auto_model") and (dtype := _dtype(where)) is not None:
            setattr(module, STORED, dtype)


def round_weights(model: SentenceTransformer) -> None:
    """Round the weights, which stay float32, to what the model's files can hold."""
    for transformer, dtype in _halves(model):
        for parameter in transformer.parameters():
            parameter.data.copy_(parameter.data.to(dtype))


def save_model(model: SentenceTransformer, folder: Path, prompts: Mapping[str, str], max_length: int) -> None:
    """Save the model, which gets these prompts beside its own and reads ``max_length`` tokens, into an empty folder."""
    model.prompts = {**model.prompts, **prompts}
    for tower, task in zip(towers(model), (QUERY, DOCUMENT), strict=True):
        limit_length(tower, task, max_length)
        if callable(getattr(tower, "tokenizer", None)):
            # It is saved with what it was last asked for, which would depend on what this process has done before.
            tower.tokenizer("", truncation=True, max_length=max_length, padding=False)
    with _in_stored_precision(model):
        model.save_pretrained(str(folder), create_model_card=False)
    _keep_code(model, folder)


def tower_models(model: SentenceTransformer) -> dict[str, SentenceTransformer]:
    """Each tower as a model of its own, whose ``encode`` puts the right prompt; none of a model that is one."""
    query, document = towers(model)
    if query is document:
        return {}
    plain = {QUERY: query, DOCUMENT: document}
    for task, tower in plain.items():
        if query[0] is not document[0]:  # ``encode`` is told no task, so it knows no limit of a task's own
            limit_length(tower, task, own_limit(tower, task))
        tower.default_prompt_name = task if tower.prompts.get(task) else None
    return plain


def _folders(model: Any, folder: Path) -> Iterator[tuple[Any, Path]]:
    """Modules and the folders that they were loaded from, those of Routers too."""
    if not (folder / "modules.json").is_file():
        yield model[0], folder
        return
    for module, entry in zip(model, read_json(folder / "modules.json"), strict=True):
        yield from _inside(module, folder / entry["path"])


def _inside(module: Any, folder: Path) -> Iterator[tuple[Any, Path]]:
    yield module, folder
    if hasattr(module, "sub_modules"):
        config = next(folder / name for name in ("router_config.json", "config.json") if (folder / name).is_file())
        for route, names in read_json(config)["structure"].items():
            for one, name in zip(module.sub_modules[route], names, strict=True):
                yield from _inside(one, folder / str(name))


def _dtype(folder: Path) -> Any:
    """The precision that transformers would load a folder's weights in; None where the folder does not say."""
    import torch

    kinds = {"float16": torch.float16, "bfloat16": torch.bfloat16, "F16": torch.float16, "BF16": torch.bfloat16}
    config = folder / "config.json"
    values = read_json(config) if config.is_file() else {}
    told = values.get("dtype") or values.get("torch_dtype")
    if told is not None:
        return kinds.get(str(told))
    for path in sorted(folder.glob("[!.]*.safetensors")):
        if (dtype := floating_dtype(path)) is not None:
            return kinds.get(dtype)
    return None


def _halves(model: SentenceTransformer) -> list[tuple[Any, Any]]:
    """Transformers whose files are in half precision, and which."""
    return [
        (module.auto_model, getattr(module, STORED))
        for module in model.modules()
        if getattr(module, STORED, None) is not None
    ]


@contextmanager
def _in_stored_precision(model: SentenceTransformer) -> Iterator[None]:
    """Parameters in the precision of the model's files; buffers, which may need their digits, as they are."""
    halves = _halves(model)
    before = [transformer.config.dtype for transformer, _ in halves]
    for transformer, dtype in halves:
        for parameter in transformer.parameters():
            parameter.data = parameter.data.to(dtype)
    try:
        yield
    finally:
        for (transformer, _), dtype in zip(halves, before, strict=True):
            transformer.config.dtype = dtype
            for parameter in transformer.parameters():
                parameter.data = parameter.data.float()


def _keep_code(model: SentenceTransformer, folder: Path) -> None:
    """Put code that the model brings where the loaders look for it: beside ``modules.json``, whatever uses it."""
    from transformers.dynamic_module_utils import get_relative_import_files

    files = [path for path in folder.rglob("*.py") if path.parent != folder]
    for module in model.modules():
        code = type(module).__module__
        if code.startswith(CUSTOM) and hasattr(module, "save") and (source := sys.modules[code].__file__):
            files += [Path(source), *map(Path, get_relative_import_files(source))]
    for path in files:
        if not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)
    # A Router names classes as this process does; the loaders know them by file and class.
    for config in folder.rglob("router_config.json"):
        values = json.loads(config.read_text(encoding="utf-8"))
        values["types"] = {
            place: ".".join(kind.split(".")[-2:]) if kind.startswith(CUSTOM) else kind
            for place, kind in values["types"].items()
        }
        write_json(config, values)
