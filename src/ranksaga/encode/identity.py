"""What a model is, by content: two models of one revision give every text the same vector.

A revision is of the loaded model, so it is the same for safetensors and pickles, for one file and many, and for a
model that was trained in this process and the same one after it was saved. Paths, names and cards do not enter.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranksaga.encode.fingerprint import fingerprint
from ranksaga.files import hash_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["revision_of", "software"]

FORMAT = "ranksaga-model-3"
# Settings that no vector and no training depends on: where a model comes from, how it is stored, what other tasks read.
VOLATILE = {
    "architecture",
    "architectures",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "name_or_path",
    "output_attentions",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "unpad_inputs",
    "use_cache",
}
# Likewise of a tokenizer: what an encoder is told anew at every call, or what only turns tokens into text.
VOLATILE_IN_TOKENIZER = VOLATILE | {
    "clean_up_tokenization_spaces",
    "decoder",
    "max_length",
    "model_max_length",
    "padding",
    "truncation",
}
# Packages whose code a revision takes as given; the environment of a run is recorded beside it.
INSTALLED = {"builtins", "peft", "sentence_transformers", "tokenizers", "torch", "transformers"}


@cache
def software() -> dict[str, str]:
    """Releases of the packages that turn a text into a vector; how each was built (``+cpu``, ``+cu126``) is no release.

    They enter the identity of vectors and, by way of the base model's, that of all that is measured or trained with
    them: another release gives other bits, and figures of two must not be set side by side as if of one.
    """
    names = ("sentence-transformers", "tokenizers", "torch", "transformers")
    return {name: metadata.version(name).split("+")[0] for name in names}


def revision_of(model: SentenceTransformer) -> str:
    """Identity of all in a model that changes a vector but prompts, length, precision and similarity: 16 hex digits.

    Weights, the settings of every module, the architecture's config, the tokenizer, the number of dimensions that are
    kept, and the source of code that came with the model.

    Of the content, never of a path or a name: mteb gives two local checkpoints the same identity
    and then serves one the other's cached scores (embeddings-benchmark/mteb #3921).
    """
    digest = hashlib.sha256(FORMAT.encode())
    facts = [[_facts(module) for module in model], getattr(model, "truncate_dim", None), _sources(model)]
    digest.update(json.dumps(facts, sort_keys=True, default=_named).encode())
    state = sorted(model.state_dict().items())
    digest.update("".join(f"{key}{tuple(value.shape)}" for key, value in state).encode())
    digest.update(fingerprint(value for _, value in state))
    return digest.hexdigest()[:16]


def _facts(module: Any) -> dict[str, Any]:
    """A module's class and settings; of a transformer its config and tokenizer, of a router those of every route."""
    settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    facts: dict[str, Any] = {"class": type(module).__name__, "settings": _lasting(settings, VOLATILE)}
    if hasattr(module, "sub_modules"):
        facts["routes"] = {route: [_facts(part) for part in parts] for route, parts in module.sub_modules.items()}
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        facts["config"] = _lasting(config.to_dict(), VOLATILE, deep=True)
    if (tokenizer := getattr(module, "tokenizer", None)) is not None:
        facts["tokenizer"] = _tokenizer(tokenizer)
        if "message" in getattr(module, "modality_config", {}):  # then texts go through the template of a chat
            facts["template"] = getattr(tokenizer, "chat_template", None)
    return facts


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    """All that decides which tokens a text becomes, and how a batch of them is filled up."""
    names = ("padding_side", "truncation_side", "pad_token_id", "model_input_names", "split_special_tokens")
    facts = {name: getattr(tokenizer, name, None) for name in names}
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        parts = json.loads(backend.to_str())
        return {**facts, "backend": {key: parts[key] for key in parts.keys() - VOLATILE_IN_TOKENIZER}}
    facts["class"] = type(tokenizer).__name__
    settings = getattr(tokenizer, "init_kwargs", {})
    kept = {key: value for key, value in settings.items() if not key.endswith(("_file", "_path"))}
    facts["settings"] = _lasting(kept, VOLATILE_IN_TOKENIZER)
    if hasattr(tokenizer, "added_tokens_encoder"):
        facts["added"] = dict(tokenizer.added_tokens_encoder)
    return {**facts, "files": _vocabulary(tokenizer)}


def _vocabulary(tokenizer: Any) -> list[str]:
    """Hashes of the files that a tokenizer in Python writes as its vocabulary; none where it has no files."""
    save = getattr(tokenizer, "save_vocabulary", getattr(tokenizer, "save", None))
    with tempfile.TemporaryDirectory() as folder:
        try:
            if save is not None:
                save(folder)
        except NotImplementedError:  # of bytes or characters: there is nothing to write
            pass
        return sorted(hash_file(path) for path in Path(folder).rglob("*") if path.is_file())


def _lasting(value: Any, volatile: Collection[str], *, deep: bool = False) -> Any:
    """The same JSON-like value without volatile and private keys: on the first level, or ``deep`` on all."""
    if isinstance(value, Mapping):
        below = volatile if deep else ()
        return {
            str(key): _lasting(one, below, deep=deep)
            for key, one in value.items()
            if not volatile or not (str(key) in volatile or str(key).startswith("_"))
        }
    if isinstance(value, (list, tuple)):
        return [_lasting(one, volatile if deep else (), deep=deep) for one in value]
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else value


def _named(value: Any) -> str:
    """What JSON has no form for: a type by its name, an object by its kind, since its repr may hold an address."""
    return value.__name__ if isinstance(value, type) else f"{type(value).__name__} {value}".split(" at 0x")[0]


def _sources(model: SentenceTransformer) -> list[str]:
    """Hashes of the source files that came with a model and are in use."""
    return sorted({hash_file(path) for path in _source_files(model)})


def _source_files(model: SentenceTransformer) -> Iterator[Path]:
    from transformers.dynamic_module_utils import get_relative_import_files

    parts = list(model.modules())
    parts += [getattr(part, name, None) for part in parts for name in ("config", "tokenizer")]
    classes = {base for part in parts for base in type(part).__mro__}
    for one in classes:
        if one.__module__.split(".")[0] in INSTALLED:
            continue
        try:
            source = inspect.getfile(one)
        except (OSError, TypeError):  # made in a session, without a file
            continue
        yield from map(Path, (source, *get_relative_import_files(source)))
