"""One model at a time: benchmark it into files, and compare two such results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import ranksaga
from ranksaga.compare.comparison import compare
from ranksaga.data.beir import read_beir
from ranksaga.data.beir_files import Finding
from ranksaga.data.beir_parser import split_of
from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.data.resolve import load_dataset, refuse_twins
from ranksaga.data.self_hits import describe_self_hits, self_hits
from ranksaga.encode.cache_folders import results_home
from ranksaga.encode.document_tokens import cut_off
from ranksaga.encode.encoder import EncoderSpec, load_encoder
from ranksaga.encode.models import locate
from ranksaga.encode.prompts import Prompts
from ranksaga.errors import DataError
from ranksaga.evaluate.benchmark import benchmark
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.evaluate.metrics import evaluate
from ranksaga.evaluate.per_query import PER_QUERY, evaluation_json, evaluation_of, read_evaluations, write_evaluation
from ranksaga.files import file_name, files_below, hash_file, hash_json, read_checked_json, write_checked_json
from ranksaga.report.markdown import markdown_table
from ranksaga.report.mteb import write_model_meta, write_task_result
from ranksaga.report.tables import results_table
from ranksaga.retrieve.trec import write_run
from ranksaga.run.console import Console, Silent
from ranksaga.run.folder import check_results_folder, held

__all__ = ["Compared", "benchmark_model", "check_lengths", "compare_results"]

logger = logging.getLogger(__name__)

CODE = (".py", ".c", ".h")
# What an encoder's facts call a setting, and a reader. Where a decisive one differs, a difference in figures may come
# from it alone.
DECISIVE = {"query": "the query prompt", "document": "the document prompt", "max_length": "the length in tokens"}
# What a program is told of each dataset; ``ci_low`` and ``ci_high`` bound ``change``.
SHOWN = ("dataset", "n_queries", "value", "change", "change_pct", "ci_low", "ci_high", "p", "p_holm", "verdict")
NOTED = {"precision": "the precision", "similarity": "the similarity"}


def benchmark_model(
    model: str,
    datasets: Sequence[str],
    *,
    split: str = "test",
    precision: str = "auto",
    max_length: int | None = None,
    out: Path | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    console: Console | None = None,
) -> list[Evaluation]:
    """Score a model on datasets, one evaluation each.

    Args:
        model: a sentence-transformers model: folder, hub id, or ``minilm``.
        datasets: names or folders, see :func:`ranksaga.data.resolve.load_dataset`.
        split: whose judgments are scored.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        max_length: tokens per text; none: the model's own limit.
        out: a folder for ``results/`` in MTEB's layout, ``rankings/*.trec``, and ``per_query/*.json``, from which
            :func:`compare_results` tests significance; none: nothing is written.
        query_prompt: put before every query; none: the model's own or its family's.
        document_prompt: the same for documents.
        trust_remote_code: run code that comes with the model.
        allow_pickle: load weights that are not safetensors (a pickle can run code).
        console: is told with which prompts, length, precision and similarity, and how far the work is; none: silent.

    Raises:
        RankSagaError: a dataset or the model cannot be used; nothing is measured then.
    """
    split = split_of(split)
    loaded = [load_dataset(name) for name in datasets]
    refuse_twins(list(zip(datasets, loaded, strict=True)))
    judged = [dataset.split(split) for dataset in loaded]
    options: dict[str, Any] = {
        "precision": precision,
        "max_length": max_length,
        "query_prompt": query_prompt,
        "document_prompt": document_prompt,
        "trust_remote_code": trust_remote_code,
        "allow_pickle": allow_pickle,
    }
    if out is None:
        return _benchmarked(model, loaded, judged, split, options, None, console or Silent())
    check_results_folder(out, model, datasets)
    with held(out, "benchmark"):  # a place that cannot be written to is better known before the work
        return _benchmarked(model, loaded, judged, split, options, out, console or Silent())


def _benchmarked(
    model: str,
    loaded: Sequence[Dataset],
    judged: Sequence[Qrels],
    split: str,
    options: Mapping[str, Any],
    out: Path | None,
    console: Console,
) -> list[Evaluation]:
    """Score a model on datasets that are loaded, with these options of ``load_encoder``; ``out`` is held."""
    kept = _Kept.of(model, [split, options])
    if out is None and (known := kept.read(loaded)) is not None:
        for text in dict.fromkeys(_encoder_text(evaluation) for evaluation in known):
            console.say(text)
        return known
    encoder = load_encoder(model, **options, cached=True)
    console.say(str(encoder.spec))
    found = []
    for dataset, judgments in zip(loaded, judged, strict=True):
        rows = judgments.query_rows
        if left_out := int((self_hits(dataset)[rows] >= 0).sum()):
            console.say(f"{dataset.name}: {describe_self_hits(left_out)}")
        if (loss := cut_off(encoder, dataset.corpus.documents)) is not None and loss.cut:
            console.say(f"{dataset.name}: {loss}")
        with console.progress(dataset.name, len(rows) + len(dataset.corpus)) as advance:
            rankings = benchmark(encoder, dataset, rows, 1000, advance)
        origin = Origin(dataset.fingerprint, encoder.spec.facts)
        evaluation = replace(evaluate(rankings, dataset, split, system=model), origin=origin)
        found.append(evaluation)
        kept.write(dataset, evaluation)
        if out is None:
            continue
        revision = encoder.spec.revision
        name = file_name(dataset.name)
        write_task_result(
            evaluation,
            out,
            model=model,
            revision=revision,
            dataset_revision=dataset.fingerprint,
        )
        spec = encoder.spec
        write_model_meta(out, model=model, revision=revision, max_tokens=spec.max_length, similarity=spec.similarity)
        write_run(out / "rankings" / f"{name}.trec", rankings, dataset.queries.ids, dataset.corpus.ids, tag="ranksaga")
        write_evaluation(out / PER_QUERY, evaluation)
    return found


def check_lengths(model: str, path: Path) -> list[Finding]:
    """What a model cuts off of a dataset's documents, as a warning; none where it reads all of them.

    Raises:
        ModelError: the model cannot be loaded.
        DataError: the dataset cannot be read.
    """
    loss = cut_off(load_encoder(model, precision="fp32", device="cpu"), read_beir(path).corpus.documents)
    if loss is None or not loss.cut:
        return []
    message = f"{loss}; cut documents smaller, or take a model that reads more"
    return [Finding("warning", "cut-off", "corpus.jsonl", None, message)]


@dataclass(frozen=True)
class Compared:
    """Two result folders compared.

    Attributes:
        table: the figures as text.
        rows: the same for programs.
        regressed: datasets that got significantly worse.
        unmatched: said of datasets that were measured with one of the two only; none if there are none.
        settings: said of each prompt and length that differs between the two.
        notes: said of what else differs, or cannot be checked.
    """

    table: str
    rows: list[dict[str, Any]]
    regressed: list[str]
    unmatched: list[str]
    settings: list[str]
    notes: list[str]

    def lost_more(self, percent: float) -> list[str]:
        """Datasets that lost more than so many percent (beyond rounding), proven or not, and how much."""
        changes = {str(row["dataset"]): row["change_pct"] for row in self.rows}
        return [
            f"{name} ({lost:+.1f}%)" for name, lost in changes.items() if lost is not None and lost < -percent - 1e-9
        ]

    @property
    def too_few(self) -> list[str]:
        """Said of datasets whose queries could miss a loss of 5%; none if there are none."""
        small = [f"{row['dataset']} ({row['n_queries']} queries)" for row in self.rows if row["unresolved"]]
        return [f"too few queries to see a loss of 5%: {', '.join(small)}"] if small else []

    @property
    def remarks(self) -> list[str]:
        """All that a reader of the table has to know."""
        return [*self.unmatched, *self.settings, *self.too_few, *self.notes]


def compare_results(baseline: Path, candidate: Path) -> Compared:
    """Compare two result folders query by query.

    Raises:
        DataError: a folder holds no per-query results or broken ones, or the two share no dataset, or measured
            one on other corpora, queries, judgments or splits.
    """
    before, after = _read(baseline, "baseline"), _read(candidate, "candidate")
    shared = [name for name in before if name in after]
    if not shared:
        raise DataError(
            f"{baseline} and {candidate} share no dataset ({', '.join(before)} against {', '.join(after)}); "
            "benchmark both models on the same datasets"
        )
    pairs = [(before[name], after[name]) for name in shared]
    _refuse_other_data(pairs)
    comparison = compare([one for one, _ in pairs], [other for _, other in pairs])
    rows: list[dict[str, Any]] = [
        {**{name: getattr(row, name) for name in SHOWN}, "unresolved": row.unresolved}
        for row in comparison.rows
        if row.metric == comparison.primary and row.system == "candidate"
    ]
    alone = sorted({*before, *after} - set(shared))
    notes = _differing(pairs, NOTED)
    if unknown := [one.dataset for one, other in pairs if one.origin is None or other.origin is None]:
        notes.append(
            "not recorded by the version that measured them, so it cannot be checked that data, prompts and length are "
            f"the same: {', '.join(unknown)}"
        )
    return Compared(
        table=markdown_table(results_table(comparison, comparison.primary)),
        rows=rows,
        regressed=[str(row["dataset"]) for row in rows if row["verdict"] == "regressed"],
        unmatched=[f"not compared, measured with one of the two only: {', '.join(alone)}"] if alone else [],
        settings=_differing(pairs, DECISIVE),
        notes=notes,
    )


def _refuse_other_data(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> None:
    for one, other in pairs:
        if one.origin and other.origin and one.origin.dataset != other.origin.dataset:
            raise DataError(
                f"{one.dataset}: the two were measured on other documents, queries or judgments (fingerprint "
                f"{one.origin.dataset} against {other.origin.dataset}); benchmark both models on the same dataset"
            )


def _differing(pairs: Sequence[tuple[Evaluation, Evaluation]], settings: Mapping[str, str]) -> list[str]:
    """One line for each of these settings and each two values of it, with the datasets that have them."""
    found: dict[str, list[str]] = {}
    for one, other in pairs:
        if one.origin is None or other.origin is None or not one.origin.encoder or not other.origin.encoder:
            continue
        first, second = _flat(one.origin.encoder), _flat(other.origin.encoder)
        for key, label in settings.items():
            if first.get(key) != second.get(key):
                line = f"{label} differs, {first.get(key)!r} against {second.get(key)!r}"
                found.setdefault(line, []).append(one.dataset)
    return [f"{line}: {', '.join(names)}" for line, names in found.items()]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    prompts = facts.get("prompts")
    return {**facts, **(prompts if isinstance(prompts, dict) else {})}


@dataclass(frozen=True)
class _Kept:
    """Evaluations that were made before by the same code from the same model files, in the cache folder.

    By content, never by name. A model that is no folder has no known content before it is loaded: none is kept.
    """

    key: str | None

    @classmethod
    def of(cls, model: str, settings: list[Any]) -> _Kept:
        folder = Path(locate(model))
        if not folder.is_dir():
            return cls(None)
        code = [path for _, path in files_below(Path(ranksaga.__file__).parent) if path.suffix in CODE]
        packages = [metadata.version(name) for name in ("torch", "sentence-transformers", "transformers")]
        content = [[inside, hash_file(path)] for inside, path in files_below(folder) if path.is_file()]
        return cls(hash_json([model, settings, content, [hash_file(path) for path in code], packages]))

    def read(self, datasets: Sequence[Dataset]) -> list[Evaluation] | None:
        """The evaluations of all these datasets, or none."""
        files = [self._file(dataset) for dataset in datasets]
        try:
            stored: list[Any] = [read_checked_json(file) for file in files if file is not None]
            return [evaluation_of(one) for one in stored] if stored else None
        except ValueError:  # one is missing or damaged: it is measured again
            return None

    def write(self, dataset: Dataset, evaluation: Evaluation) -> None:
        """Keep one."""
        if (file := self._file(dataset)) is not None:
            try:
                write_checked_json(file, evaluation_json(evaluation))
            except OSError as error:  # it saves time: no reason to lose what has just been measured
                logger.warning("%s: not kept (%s)", file, error)

    def _file(self, dataset: Dataset) -> Path | None:
        if self.key is None:
            return None
        return results_home() / f"{hash_json([self.key, dataset.name, dataset.fingerprint])}.json"


def _encoder_text(evaluation: Evaluation) -> str:
    """The line that was said when it was measured."""
    facts = dict(evaluation.origin.encoder or {}) if evaluation.origin is not None else {}
    facts.pop("identity", None)
    return str(EncoderSpec(**{**facts, "prompts": Prompts(**facts["prompts"])})) if facts else evaluation.system


def _read(folder: Path, system: str) -> Mapping[str, Evaluation]:
    evaluations = read_evaluations(folder / PER_QUERY, system, remedy="benchmark that model again")
    if not evaluations:
        raise DataError(f"{folder}: no per_query/*.json there; make it with: ranksaga benchmark ... --out {folder}")
    return {evaluation.dataset: evaluation for evaluation in evaluations}
