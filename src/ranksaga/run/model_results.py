"""One model at a time, benchmarked into files that :mod:`ranksaga.run.model_comparison` compares."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import ranksaga
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
from ranksaga.evaluate.benchmark import benchmark
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.evaluate.metrics import evaluate
from ranksaga.evaluate.per_query import PER_QUERY, evaluation_json, evaluation_of, write_evaluation
from ranksaga.files import file_name, files_below, hash_file, hash_json, read_checked_json, write_checked_json
from ranksaga.report.mteb import write_model_meta, write_task_result
from ranksaga.retrieve.trec import write_run
from ranksaga.run.console import Console, Silent
from ranksaga.run.folder import check_results_folder, held

__all__ = ["benchmark_model", "check_lengths"]

logger = logging.getLogger(__name__)

CODE = (".py", ".c", ".h")


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
