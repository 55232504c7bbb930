"""Every setting and every tunable constant changes the ids of exactly the stages that depend on it.

The stages run as they do in a run, on three tiny datasets, but their work is not done: a store notes the ids, and what
the stages read of earlier work is made up from these.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel

from ranksaga.config.recipe import Recipe
from ranksaga.config.training import VARIANTS
from ranksaga.data import splits
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.encode.encoder import EncoderSpec
from ranksaga.encode.prompts import Prompts
from ranksaga.files import hash_json
from ranksaga.retrieve.rankings import Rankings
from ranksaga.run import execute, leakage_audit
from ranksaga.run.console import Silent
from ranksaga.run.context import Context, RunDataset
from ranksaga.run.stage import Inputs
from ranksaga.run.stages import RENAMED, STAGES, score, select
from ranksaga.run.store import Entry, Store

SOURCE = Path(importlib.import_module("ranksaga").__file__ or "").parent
DOCUMENTS = 150


def dataset(name: str, seed: int, **splits: range) -> Dataset:
    rng = np.random.default_rng(seed)
    ids = tuple(str(row) for row in range(DOCUMENTS))
    asked = max(split.stop for split in splits.values())
    words = rng.integers(10**9, size=(asked, 3))  # no query is a near-copy of another
    queries = Queries(ids[:asked], tuple(" ".join(f"{word:09d}" for word in row) for row in words))
    judged = {split: Qrels.of([(row, row, 1) for row in rows]) for split, rows in splits.items()}
    return Dataset(name, Corpus(ids, ("",) * DOCUMENTS, tuple(f"{name} {one}" for one in ids)), queries, judged)


DATASETS: Mapping[str, Dataset] = {
    "full": dataset("full", 1, train=range(40), test=range(40, 60)),
    "alone": dataset("alone", 2, test=range(24)),
    "guard": dataset("guard", 3, test=range(60)),
    "other": dataset("other", 4, train=range(8), test=range(8, 16)),
}
PLAIN: Mapping[str, Any] = {
    "method": "labelled",
    "hard_negatives": 1,
    "merge_weights": [0.5, 1.0],
    "lora": {},
    "seeds": 2,
}
VALUES: Mapping[str, Any] = {
    "datasets": ["full", "alone"],
    "guards": ["guard"],
    "folds": 2,
    "systems": {"plain": PLAIN, "best": {}},
}


class Noted(Store):
    """Notes the ids of each stage's work, and does none."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.ids: dict[str, set[str]] = {}

    def work(self, label: str, inputs: Inputs, function: Callable[..., Any]) -> Entry:
        # No closure, and no context: a stage's function reads its inputs, and what they have the fingerprints of.
        assert isinstance(function, partial)
        assert "<locals>" not in function.func.__qualname__
        assert list(inspect.signature(function.func).parameters)[:2] == ["inputs", "folder"]
        assert not any(isinstance(value, Context | Store | Recipe) for value in function.keywords.values())
        entry = self.entry(label, inputs)
        self.ids.setdefault(entry.stage, set()).add(entry.identity)
        return entry


class Fake(Context):
    """Datasets of this module, and an encoder that has an identity and nothing else."""

    @cached_property
    def datasets(self) -> tuple[RunDataset, ...]:
        trained = [RunDataset(name, DATASETS[name], "trained") for name in self.recipe.datasets]
        return (*trained, *(RunDataset(name, DATASETS[name], "guard") for name in self.recipe.guards))

    @cached_property
    def encoder(self) -> Any:
        recipe = self.recipe
        prompts = Prompts(recipe.query_prompt or "", recipe.document_prompt or "", "recipe")
        length, precision = recipe.max_length or 256, recipe.precision
        return SimpleNamespace(
            spec=EncoderSpec(recipe.model, hash_json(recipe.model), prompts, length, precision, "dot")
        )


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def rankings(entry: Entry, rows: NDArray[np.int32]) -> Rankings:
        documents = np.tile(np.random.default_rng(len(rows)).permutation(DOCUMENTS), (len(rows), 1))
        return Rankings(rows, documents.astype(np.int32), np.zeros_like(documents, dtype=np.float32))

    def chosen(context: Context, system: str, selected: Entry) -> Any:
        spec = EncoderSpec("", selected.identity, Prompts("", "", ""), 256, "fp32", "dot")
        return SimpleNamespace(spec=spec)

    # No two queries are alike, whatever counts as a near-copy; to find that out takes most of the time.
    monkeypatch.setattr(leakage_audit, "find_leaks", lambda *_: [])
    monkeypatch.setattr(splits, "near_copies", lambda *_: [])
    monkeypatch.setattr(select, "rankings_of", rankings)
    monkeypatch.setattr(score, "chosen_encoder", chosen)


def ids(values: Mapping[str, Any] = VALUES) -> dict[str, set[str]]:
    store = Noted()
    stages = [stage.name for stage, _ in execute.execute(Fake(Recipe.model_validate(values), store, Silent()))]
    assert stages == list(STAGES) == list(store.ids)
    return store.ids


@pytest.fixture(scope="module")
def _before() -> dict[str, set[str]]:
    return {}


@pytest.fixture
def before(_before: dict[str, set[str]], made_up: None) -> dict[str, set[str]]:
    if not _before:
        _before.update(ids())
    return _before


def changed(before: Mapping[str, set[str]], after: Mapping[str, set[str]]) -> set[str]:
    return {stage for stage in STAGES if before[stage] != after[stage]}


def test_the_same_recipe_gives_the_same_ids(before: dict[str, set[str]]) -> None:
    assert ids() == before


# What follows from what: whatever is trained is selected, scored, compared and reported.
REPORT = {"report"}
COMPARE = {"compare", *REPORT}
SCORE = {"score", *COMPARE}
SELECT = {"select", *SCORE}
TRAIN = {"train", *SELECT}
SPLITS = {"splits", *TRAIN}
ENCODER = {"baseline", *TRAIN}
ALL = {"data", "baseline", *SPLITS}

SETTINGS: Mapping[str, tuple[Any, set[str]]] = {
    "name": ("other", REPORT),
    "model": ("other", ENCODER),
    "datasets": (["full", "alone", "other"], ALL),
    "guards": (["other"], ALL - {"train"}),
    "systems": ({"best": {}}, TRAIN),
    "ships": ("plain", {"score", *COMPARE}),
    "seed": (1, SPLITS),
    "precision": ("bf16", ENCODER),
    "max_length": (32, ENCODER),
    "query_prompt": ("q: ", ENCODER),
    "document_prompt": ("d: ", ENCODER),
    "trust_remote_code": (True, REPORT),
    "allow_pickle": (True, REPORT),
    "leakage": ("report", {"splits", "report"}),  # nothing leaks here
    "folds": (3, SPLITS),
    "depth": (500, {"baseline", *SCORE}),
    "systems.plain.splits": ("train", TRAIN),
    "systems.plain.epochs": (9, TRAIN),
    "systems.plain.learning_rate": (1e-3, TRAIN),
    "systems.plain.seeds": (3, TRAIN),
    "systems.plain.warmup_steps": (9, TRAIN),
    "systems.plain.weight_decay": (0.5, TRAIN),
    "systems.plain.batch_size": (8, TRAIN),
    "systems.plain.max_steps": (9, TRAIN),
    "systems.plain.max_length": (9, TRAIN),
    "systems.plain.titles": (False, TRAIN),
    "systems.plain.prompts": (False, TRAIN),
    "systems.plain.batches": ("mixed", TRAIN),
    "systems.plain.mask_false_negatives": (False, TRAIN),
    "systems.plain.dataset_temperature": (0.5, TRAIN),
    "systems.plain.positives_per_query": (1, TRAIN),
    "systems.plain.hard_negatives": (2, TRAIN),
    "systems.plain.dropout": (True, TRAIN),
    "systems.plain.freeze_embeddings": (True, TRAIN),
    "systems.plain.merge_weights": ([0.5], SELECT),
    "systems.plain.tolerance": (0.1, SELECT),
    "systems.plain.standard_errors": (2.0, SELECT),
    "systems.plain.lora.rank": (4, TRAIN),
    "systems.plain.lora.alpha": (4.0, TRAIN),
    "systems.best.towers": ("shared", TRAIN),
    "systems.best.method": ("labelled", TRAIN),
    "systems.best.cross_fitted": ("labels", TRAIN),
    "systems.best.documents.epochs": (9, TRAIN),
    "systems.best.documents.learning_rate": (1e-3, TRAIN),
    "systems.best.documents.weights": ([0.0], SELECT),
    **{
        f"systems.best.distillation.{name}": (value, TRAIN)
        for name, value in {
            "pseudo_queries": 99,
            "queries": 9,
            "labelled": 9,
            "documents": 9,
        }.items()
    },
}


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting below a type, dotted; groups that are switched off and on count by what is in them."""
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            yield from settings_of(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_table_has_every_setting() -> None:
    known = {name.removeprefix("systems.plain.").removeprefix("systems.best.") for name in SETTINGS}
    assert known == {*settings_of(Recipe), *(one for kind in VARIANTS.values() for one in settings_of(kind))}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_changes_the_stages_that_depend_on_it(name: str, before: dict[str, set[str]]) -> None:
    value, expected = SETTINGS[name]
    path = name.split(".")
    values: Any = copy.deepcopy(dict(VALUES))
    if path[-1] == "towers":  # documents learn after queries alone
        values["systems"]["best"] = {"documents": None}
        before = ids(values)
    part = values
    for key in path[:-1]:
        part = part.setdefault(key, {})
    assert part.get(path[-1]) != value
    part[path[-1]] = value
    assert changed(before, ids(values)) == expected


def test_the_order_of_the_datasets_is_that_of_the_batches(before: dict[str, set[str]]) -> None:
    assert "train" in changed(before, ids({**VALUES, "datasets": ["alone", "full"]}))


def test_the_order_of_the_systems_is_that_of_the_report(before: dict[str, set[str]]) -> None:
    after = ids({**VALUES, "systems": {"best": {}, "plain": PLAIN}, "ships": "best"})
    assert changed(before, after) == COMPARE


# Constants by module and name. What the splits' constants change of these small datasets is noted where they are kept;
# a few change who trains and who selects, too.
BM25 = {"baseline", *TRAIN}
BLEND = {"score", *COMPARE}
DEPENDENT: Mapping[str, set[str]] = {
    "leakage.JACCARD": {"splits", "report"},
    "leakage.TRIGRAM": {"splits", "report"},
    "leakage.SHARED": {"splits", "report"},
    "splits.HELD_OUT": {"splits", "report"},
    "splits.DEV_QUERIES": {"splits", "report"},
    "splits.MOST_HELD_OUT": SPLITS,
    "splits.GUARD_DEV": SPLITS - {"train"},
    "splits.LARGEST_GROUP": {"splits", "report"},
    "lexical._K1": BM25,
    "lexical._B": BM25,
    "languages._SAMPLE": BM25,
    "languages._LEAST_SHARE": BM25,
    "languages._LEAST_WORDS": BM25,
    "languages._ABOVE_ENGLISH": BM25,
    "task_encoder.FORMAT": ENCODER,
    "sources.BANK": TRAIN,
    "sources.NEGATIVES": TRAIN,
    "sources.NEGATIVES_DEPTH": TRAIN,
    "sources.MARGIN": TRAIN,
    "train.REPEAT": TRAIN,
    "train.QUERY_WEIGHT": TRAIN,
    "batches.PATIENCE": TRAIN,
    "distill.ANCHOR": TRAIN,
    "distill.NEARBY": TRAIN,
    "distill.CANDIDATES": TRAIN,
    "pseudo_queries.WORDS": TRAIN,
    "pseudo_queries.WINDOW": TRAIN,
    "pseudo_queries.WINDOWED": TRAIN,
    "pseudo_queries.SENTENCES": TRAIN,
    "step.CLIP": TRAIN,
    "step.DEFAULT_SCALE": TRAIN,
    "teacher.SHARPNESS": TRAIN,
    "teacher.UNCHOSEN": TRAIN,
    "teacher.CHOICES": TRAIN,
    "teacher.LEAST_GAIN": TRAIN,
    "teacher.CHOOSING_QUERIES": TRAIN,
    "trainer.FORMAT": TRAIN,
    "blend.FEEDBACK_DOCUMENTS": {*TRAIN, *BLEND},
    "blend.NEIGHBOURS": {*TRAIN, *BLEND},
    "blend.SAMPLE": {*TRAIN, *BLEND},
    "blend.FEEDBACK_SHARPNESS": BLEND,
    "blend.CORRECTIONS": BLEND,
    "blend.LEAST_GAIN": BLEND,
    "hybrid.WEIGHTS": BLEND,
    "selection.DEV_CUT": SELECT,
    "metrics.CUTOFFS": SCORE,
    "statistics.ROUNDS": COMPARE,
    "statistics.ALPHA": COMPARE,
    "statistics.POWER": COMPARE,
    "statistics.FEWEST_QUERIES": COMPARE,
    "results.RESOLUTION_PCT": COMPARE,
    "comparison.TESTED": COMPARE,
}
# Constants that are no part of an id, by the reason.
INDEPENDENT: Mapping[str, str] = {
    "how much is done at once, or kept": (
        "leakage.BLOCK leakage.PAIRS_AT_ONCE memory_budget.SHARE memory_budget.WORKSPACE cache_folders.KEY_BYTES "
        "cache_folders.FORMAT cache_folders.LIMIT_GB batching.PRICE task_encoder.TOKEN_BUDGET "
        "task_encoder.TOKENIZE_CHUNK task_encoder.CACHE_CHUNK fingerprint.CHUNK fused_encoding.ROWS "
        "fused_encoding.STEP benchmark.BLOCK metrics._QUERIES_AT_ONCE hybrid._QUERIES_AT_ONCE blend.BLOCK "
        "rough_search.MEMORY rough_search.ROOM rough_search.CHUNK search._TILE search._QUERIES_AT_ONCE "
        "search._MULTIPLE search._LARGE search._SHALLOW statistics._CHUNK checkpoint.KEPT embed.TOKEN_BUDGET "
        "embed.FUSED_BUDGET embed.WEIGHT_BYTES embed.SLACK step.CACHE_ABOVE losses.BANKS trainer.THREADS "
        "process_group.BUCKET text_input.CHARACTERS"
    ),
    "its effect is in what is hashed: data, vectors' format, precision, settings": (
        "assemble.SHARES pairs._MAX_GRADE chunking._FILLED first_recipe.QUICK_DOCUMENTS "
        "first_recipe.QUICK_PSEUDO_QUERIES first_recipe.QUICK_QUERIES "
        "build._VERSION build._MIN_WORDS build._MAX_WORDS build._MIN_STATEMENTS build._TRAIN build._DEV "
        "encoder.CLOSE fused_encoding.CLOSE batch_layout.LENGTHS_PER_OCTAVE fingerprint.STEP precision.ENOUGH "
        "precision.ROUNDS precision.BF16_SINCE precision.FP16_SINCE text_input.UNLIMITED text_input.PROBED_LENGTH"
    ),
    "a stream of random draws or a mark: another one is other code": (
        "sources.PSEUDO batches.PLAN batches.BUILD distill.PURPOSE step.DROPOUT pairs.NO_DOCUMENT "
        "sort_keys.NOTHING sort_keys._MAX_RANK results._ROUNDING statistics._ROUNDING languages._SPELLINGS store.FORMAT"
    ),
    "of checks, downloads, messages, and of what is no stage": (
        "beir_parser._MAX_GRADE download._ATTEMPTS download._PAUSE download._TIMEOUT download._BLOCK "
        "download._LARGEST download._LONGEST download._RESERVE "
        "resolve._LONGEST weight_checks.SHOWN searcher.DEPTH_FACTOR "
        "searcher.LEAST_DEPTH leakage_audit.EXAMPLES importer.EXAMPLES document_tokens.BATCH "
        "document_tokens.SAMPLE chat.ATTEMPTS chat.TIMEOUT chat.PAUSE chat.LONGEST_PAUSE "
        "chat.LONGEST_ANSWER text_files.LARGEST "
        "generated_queries.LONGEST_DOCUMENT generated_queries.LONGEST_QUERY "
        "generated_queries.CHARACTERS_PER_TOKEN generated_queries.TOKENS_PER_QUERY hashed.NGRAM hashed.VERSION"
    ),
}
ROOMS = ("data", "encode", "retrieve", "evaluate", "train", "compare", "run")
NOT_RUN = ("estimate", "probe", "workload", "tokens", "gpu_prices")


def constants() -> dict[str, Any]:
    """Numbers, and tuples and mappings of numbers, at the top of the modules that a stage may use."""
    found: dict[str, Any] = {}
    for path in (path for room in ROOMS for path in (SOURCE / room).rglob("*.py") if path.stem not in NOT_RUN):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [name for target in targets if target is not None for name in ast.walk(target)]
            for name in (name.id for name in names if isinstance(name, ast.Name) and name.id.lstrip("_").isupper()):
                module = importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
                if is_numeric(getattr(module, name)):
                    found[f"{path.stem}.{name}"] = module
    return found


def is_numeric(value: Any) -> bool:
    if isinstance(value, tuple | Mapping):
        parts = value.values() if isinstance(value, Mapping) else value
        return len(value) > 0 and all(part is None or is_numeric(part) for part in parts)
    return isinstance(value, int | float) and not isinstance(value, bool)


MODULES = {**constants(), "comparison.TESTED": importlib.import_module("ranksaga.compare.comparison")}


def test_every_constant_is_known_to_change_ids_or_not_to() -> None:
    independent = [name for names in INDEPENDENT.values() for name in names.split()]
    assert set(DEPENDENT) & set(independent) == set()
    assert set(MODULES) == {*DEPENDENT, *independent}


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, Mapping):
        return {key: other(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(other(part) for part in value)
    return value + 1 if isinstance(value, int) else value * 0.7 if isinstance(value, float) else value


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_constant_changes_the_stages_that_depend_on_it(
    name: str, before: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, constant = MODULES[name], name.partition(".")[2]
    value = getattr(module, constant)
    monkeypatch.setattr(module, constant, value[1:] if name == "comparison.TESTED" else other(value))
    assert changed(before, ids()) == DEPENDENT[name]


def test_no_stage_is_named_but_where_stages_are_defined() -> None:
    """Names of stages are other words too, so only those in their places count: options, comparisons, the store."""
    asked = {"start", "stop", "stage", "stopped_after"}
    named = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and names_of(node) & asked:
                named += [(path.name, one) for one in texts_of(node) if one in STAGES]
            if isinstance(node, ast.For) and names_of(node.target) & asked:
                named += [(path.name, one) for one in texts_of(node.iter) if one in (*STAGES, *RENAMED)]
            if isinstance(node, ast.Call) and names_of(node.func) & {"Work", "Line", "Stage", "runs_to", "launch"}:
                named += [(path.name, one) for one in texts_of(node) if one in STAGES]
            if isinstance(node, ast.keyword) and node.arg in asked:
                named += [(path.name, one) for one in texts_of(node.value) if one in STAGES]
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = (f"{before}{stage}" for before in ("--from ", "--to ", "stages/") for stage in STAGES)
                named += [(path.name, part) for part in parts if part in node.value]
    assert {name for name in named if name[0] != "__init__.py"} == set()


def names_of(node: ast.AST) -> set[str]:
    return {getattr(one, "id", getattr(one, "attr", "")) for one in ast.walk(node)}


def texts_of(node: ast.AST) -> list[str]:
    return [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
