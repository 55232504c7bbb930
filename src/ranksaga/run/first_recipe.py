"""The recipe that ``ranksaga init`` writes: what lies in a folder, and settings that fit it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.beir import read_beir, write_beir
from ranksaga.data.check import check_beir
from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.data.importing.assemble import assemble
from ranksaga.data.importing.chunking import Tokens
from ranksaga.data.importing.extract import TEXT_SUFFIXES
from ranksaga.data.importing.hub_datasets import is_tables_folder
from ranksaga.data.importing.importer import Options, understand, write_dataset
from ranksaga.data.importing.tables import TABLE_SUFFIXES
from ranksaga.data.importing.text_files import suffix_of
from ranksaga.data.importing.trec import find_trec_files
from ranksaga.errors import RankSagaError, UsageError
from ranksaga.files import file_name, files_below
from ranksaga.untrusted.escape import one_line, printable
from ranksaga.untrusted.yaml_input import read_yaml

__all__ = ["DATASETS", "Inventory", "look", "make_datasets", "recipe_text"]

DATASETS = "datasets"  # the folder that imported and reduced datasets are written to, and where names are looked up
PART = "-quick"  # how the name of a reduced dataset ends
STAND_IN = "python:stdlib?limit=450"
# Ten minutes on two cores without bf16: documents are encoded a few times, and pseudo-queries cost training steps.
QUICK_DOCUMENTS = 1600
QUICK_PSEUDO_QUERIES = 6000
QUICK_QUERIES = {"train": 400, "dev": 150, "test": 300}
QUICK = """\
# About ten minutes on two cores, whatever the data.{reduced}
max_length: 128
systems:
  best:
    epochs: 2
    seeds: 1
    max_steps: 300
    distillation: {{pseudo_queries: {pseudo_queries}, documents: 32}}
    merge_weights: [0.5, 1.0]
    documents: {{weights: [0.0, 0.5]}}
"""
FULL = """\
# Tokens per text; without this line: as many as the model reads.
# max_length: 256

# How the model is trained, where it is to be another way; several systems are compared, the last one ships:
# systems:
#   best: {epochs: 3}
#   gentle: {like: best, learning_rate: 5e-5}
"""
RECIPE = """\
# Written by: ranksaga init
# Try it:     ranksaga run {file} --dry-run
# Run it:     ranksaga run {file}

# The run's folder: runs/{name}
name: {name}

# The model that is made better: a folder, a hub id (org/name), or minilm (all-MiniLM-L6-v2).
model: {model}
{other_models}
# Trained on and scored: names under ./datasets, or folders.
datasets:
{datasets}
# Scored and never trained on: what must not get worse. Move a name here from datasets, or add a public one.
guards: [{guards}]
{remarks}
{settings}"""


@dataclass
class Inventory:
    """What lies in a folder, by what can be done with it; paths as a recipe names them.

    Attributes:
        datasets: in BEIR layout, sound, and with enough queries to train on.
        guards: likewise, with too few queries to train on.
        tables: files and folders that can be imported.
        texts: folders of texts, which need questions to become a dataset.
        models: folders of models.
        remarks: what was seen and is of no use, and why.
    """

    datasets: list[str] = field(default_factory=list)
    guards: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def look(folder: Path) -> Inventory:
    """What lies in a folder and two levels below it; hidden files, runs and environments are passed over."""
    seen = Inventory()
    _look(folder, "", seen, depth=0)
    # A reduced part stands for its whole in quick recipes only.
    for names in (seen.datasets, seen.guards):
        names[:] = [name for name in names if not name.endswith(PART)]
    return seen


def _look(folder: Path, inside: str, seen: Inventory, depth: int) -> None:
    for path in sorted(folder.iterdir()):
        name = f"{inside}{path.name}"
        if path.name.startswith((".", "_")) or path.name in ("runs", "node_modules", "venv", "env"):
            continue
        if path.is_file():
            if suffix_of(path) in TABLE_SUFFIXES and depth == 0:
                seen.tables.append(name)
            continue
        if (path / "corpus.jsonl").is_file():
            _look_at_dataset(path, name, seen)
        elif (path / "modules.json").is_file() or (
            (path / "config.json").is_file() and any(path.glob("*.safetensors"))
        ):
            seen.models.append(f"./{name}")
        elif path.is_dir() and not (path / "pyvenv.cfg").is_file():
            if depth == 0 and path.name != DATASETS and _is_importable(path):
                seen.tables.append(name)
            elif any(file.suffix.lower() in TEXT_SUFFIXES for file in path.iterdir() if file.is_file()):
                seen.texts.append(name)
            elif depth < 2:
                _look(path, f"{name}/", seen, depth + 1)


def _look_at_dataset(path: Path, name: str, seen: Inventory) -> None:
    short = name.removeprefix(f"{DATASETS}/")
    if not (path / "queries.jsonl").is_file():
        seen.remarks.append(f"{name} has documents and no queries: import it again with --queries TABLE")
        return
    findings = check_beir(path)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        seen.remarks.append(f"{name} is no sound dataset ({errors[0]}): see ranksaga datasets check {name}")
        return
    known = short if short != name else f"./{name}"
    if any(Path(other).name == path.name for other in (*seen.datasets, *seen.guards)):
        seen.remarks.append(f"{known} has the name of another dataset; a run takes one of a name")
        return
    few = any(finding.code == "too-few-queries" for finding in findings)
    (seen.guards if few else seen.datasets).append(known)


def _is_importable(folder: Path) -> bool:
    if any(path.name in ("corpus.jsonl", "modules.json") for _, path in files_below(folder)):
        return False  # datasets and models further down
    try:
        return find_trec_files(folder) is not None or is_tables_folder(folder)
    except RankSagaError:
        return False


def make_datasets(folder: Path, seen: Inventory, *, quick: bool, seed: int = 0) -> Inventory:
    """The inventory with its tables imported and, for a quick run, its large datasets reduced, under ``datasets/``.

    What was made before is kept as it is.

    Args:
        folder: that was looked at.
        seen: what lies there.
        quick: reduce the datasets to a part.
        seed: of the part.
    """
    made = replace(seen, datasets=[*seen.datasets], guards=[*seen.guards], remarks=[*seen.remarks])
    for table in seen.tables:
        name = file_name(Path(table).name.removesuffix(".gz").rpartition(".")[0] or table)
        target = folder / DATASETS / name
        if target.exists():
            continue
        try:
            source = understand(str(folder / table), Options(tokens=_no_tokens))
            write_dataset(assemble(source, name, seed=seed), target)
        except RankSagaError as problem:
            made.remarks.append(f"{table} was not imported ({problem})")
            continue
        _look_at_dataset(target, f"{DATASETS}/{name}", made)
    if quick:
        parts = len(made.datasets) + len(made.guards)
        made.datasets = [_reduced(folder, name, QUICK_DOCUMENTS // parts, seed) for name in made.datasets]
        made.guards = [_reduced(folder, name, QUICK_DOCUMENTS // parts, seed) for name in made.guards]
    return made


def _no_tokens() -> Tokens:
    raise UsageError("a folder of texts needs questions: ranksaga datasets import FOLDER --queries TABLE")


def _reduced(folder: Path, name: str, documents: int, seed: int) -> str:
    """The name of a part of a dataset with about so many documents; its own where it has no more."""
    path = folder / name if name.startswith("./") else folder / DATASETS / name
    dataset = read_beir(path)
    small = reduce(dataset, documents, seed)
    if small is dataset:
        return name
    target = folder / DATASETS / f"{path.name}{PART}"
    if not target.exists():
        write_beir(small, target)
    return target.name


def reduce(dataset: Dataset, documents: int, seed: int) -> Dataset:
    """A part of a dataset: some queries of each split, what they are judged on, and further documents.

    A hash of (seed, id) chooses, so the order of the files changes nothing. All judged documents of a chosen query are
    kept, so that its ideal ranking is the same; where these are more than ``documents``, fewer queries are chosen.

    Args:
        dataset: any.
        documents: how many to keep.
        seed: of the choice.
    """
    splits = [split for split in ("test", "dev", "train") if split in dataset.qrels]
    limits = {split: min(QUICK_QUERIES[split], documents // 2) for split in splits}
    few = all(len(dataset.qrels[split].query_rows) <= limits[split] for split in splits)
    if few and len(dataset.corpus) <= documents:
        return dataset
    qrels: dict[str, Qrels] = {}
    kept: set[int] = set()
    for split in splits:
        judged = dataset.qrels[split]
        room = documents * (0.5 if split == "test" else 0.2)
        chosen: list[int] = []
        new: set[int] = set()
        for row in _shuffled(judged.positives.query_rows, dataset.queries.ids, seed):
            own = set(judged.documents_of(row).tolist()) - kept - new
            if len(chosen) >= limits[split] or (chosen and len(new) + len(own) > room):
                break
            chosen.append(row)
            new |= own
        kept |= new
        qrels[split] = judged.only_queries(np.array(sorted(chosen), dtype=np.int32))
    for row in _shuffled(np.arange(len(dataset.corpus)), dataset.corpus.ids, seed):
        if len(kept) >= documents:
            break
        kept.add(row)
    rows = np.array(sorted(kept), dtype=np.int64)
    parts = {
        split: Qrels(judged.queries, np.searchsorted(rows, judged.documents).astype(np.int32), judged.scores)
        for split, judged in qrels.items()
    }
    return Dataset(dataset.name, dataset.corpus.only(rows), dataset.queries, parts)


def _shuffled(rows: NDArray[np.integer], ids: Sequence[str], seed: int) -> list[int]:
    return sorted(rows.tolist(), key=lambda row: hashlib.sha256(f"{seed}|quick|{ids[row]}".encode()).digest())


def recipe_text(seen: Inventory, *, name: str, file: str, quick: bool) -> str:
    """A recipe with comments for what lies in a folder; without datasets there, on Python's own source.

    Args:
        seen: what lies there.
        name: of the run.
        file: that the recipe is written to.
        quick: for ten minutes on two cores.
    """
    remarks = [f"# Not used: {remark}" for remark in seen.remarks]
    remarks += [
        f"# {texts} holds texts: ranksaga datasets import {_word(texts)} --queries TABLE --to FOLDER"
        for texts in seen.texts
    ]
    datasets = [f"  - {_word(dataset)}" for dataset in seen.datasets]
    if not datasets:
        datasets = [
            "  # None was found here. Python's own source stands in, to see what a run does.",
            f"  - {STAND_IN}",
        ]
    reduced = any(dataset.endswith(PART) for dataset in (*seen.datasets, *seen.guards))
    pseudo_queries = min(1500, max(64, QUICK_PSEUDO_QUERIES // max(1, len(seen.datasets))))
    note = "\n# Parts of the datasets (names in -quick): scores are higher than on all documents." if reduced else ""
    return RECIPE.format(
        file=one_line(file),
        name=name,
        model=_word(seen.models[0]) if seen.models else "minilm",
        other_models="".join(f"# Also here: {one_line(model)}\n" for model in seen.models[1:]),
        datasets="\n".join([*datasets, ""]),
        guards=", ".join(map(_word, seen.guards)),
        remarks="".join(f"{one_line(' '.join(remark.split()))}\n" for remark in remarks),
        settings=QUICK.format(reduced=note, pseudo_queries=pseudo_queries) if quick else FULL,
    )


def _word(text: str) -> str:
    """A text as a YAML value, in a list too: in quotes where it has to be."""
    plain = re.fullmatch(r"[A-Za-z0-9._/][A-Za-z0-9._/-]*", text) and read_yaml(text).value == text
    # Escapes of printable() are YAML's own, and stand in double quotes.
    return text if plain else printable(json.dumps(text, ensure_ascii=False))
