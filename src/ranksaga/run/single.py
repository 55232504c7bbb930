"""One model at a time: benchmark it into files, and compare two such results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import ranksaga
from ranksaga.compare.comparison import compare
from ranksaga.data.dataset import Dataset, Qrels
from ranksaga.data.resolve import load, refuse_twins
from ranksaga.encode.cache import results_home
from ranksaga.encode.encoder import load_encoder
from ranksaga.encode.models import locate
from ranksaga.errors import DataError
from ranksaga.evaluate.benchmark import benchmark
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.evaluate.metrics import evaluate
from ranksaga.files import files_below, hash_file, hash_json, read_json, read_json_if_sound, write_json
from ranksaga.report.markdown import markdown_table
from ranksaga.report.mteb import write_model_meta, write_task_result
from ranksaga.report.tables import results_table
from ranksaga.retrieve.trec import write_run
from ranksaga.run.folder import check_results_folder, held
from ranksaga.run.voice import Terminal

__all__ = ["PER_QUERY", "benchmark_model", "compare_results", "evaluation_json", "evaluation_of", "file_name"]

PER_QUERY = "per_query"
CODE = (".py", ".c", ".h")


def benchmark_model(
    model: str, datasets: Sequence[str], *, split: str, precision: str, max_length: int | None, out: Path | None
) -> list[Evaluation]:
    """Score a model on datasets.

    With ``out``: ``results/`` in MTEB's layout, ``rankings/*.trec``, and ``per_query/*.json``, from
    which :func:`compare_results` tests significance.

    Raises:
        RankSagaError: a dataset or the model cannot be used; nothing is measured then.
    """
    loaded = [load(name) for name in datasets]
    refuse_twins(list(zip(datasets, loaded, strict=True)))
    judged = [dataset.split(split) for dataset in loaded]
    if out is None:
        return _benchmarked(model, loaded, judged, split, precision, max_length, None)
    check_results_folder(out, model, datasets)
    with held(out, "benchmark"):  # a place that cannot be written to is better known before the work
        return _benchmarked(model, loaded, judged, split, precision, max_length, out)


def _benchmarked(
    model: str,
    loaded: Sequence[Dataset],
    judged: Sequence[Qrels],
    split: str,
    precision: str,
    max_length: int | None,
    out: Path | None,
) -> list[Evaluation]:
    """Score a model on datasets that are loaded; ``out`` is held."""
    kept = _Kept.of(model, [split, precision, max_length])
    if out is None and (known := kept.read(loaded)) is not None:
        return known
    encoder = load_encoder(model, precision=precision, max_length=max_length, cached=True)
    voice = Terminal()
    found = []
    for dataset, judgments in zip(loaded, judged, strict=True):
        rows = judgments.query_rows
        with voice.progress(dataset.name, len(rows) + len(dataset.corpus)) as advance:
            rankings = benchmark(encoder, dataset, rows, 1000, advance)
        evaluation = evaluate(rankings, dataset, split, system=model)
        found.append(evaluation)
        kept.write(dataset, evaluation)
        if out is None:
            continue
        revision = encoder.spec.revision
        write_task_result(
            evaluation, out, model=model, revision=revision, dataset_revision=dataset.fingerprint, seconds=None
        )
        write_model_meta(out, model=model, revision=revision, max_tokens=encoder.spec.max_length)
        name = file_name(dataset.name)
        write_run(out / "rankings" / f"{name}.trec", rankings, dataset.queries.ids, dataset.corpus.ids, tag="ranksaga")
        write_json(out / PER_QUERY / f"{name}.json", evaluation_json(evaluation))
    return found


def compare_results(baseline: Path, candidate: Path) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Compare two result folders query by query.

    Returns the table as text, its rows for programs, and the datasets that got significantly worse.

    Raises:
        DataError: a folder holds no per-query results, or the two share no dataset.
    """
    before, after = _read(baseline, "baseline"), _read(candidate, "candidate")
    shared = [name for name in before if name in after]
    if not shared:
        raise DataError(
            f"{baseline} and {candidate} share no dataset ({', '.join(before)} against {', '.join(after)}); "
            "benchmark both models on the same datasets"
        )
    alone = sorted({*before, *after} - set(shared))
    comparison = compare([before[name] for name in shared], [after[name] for name in shared])
    rows: list[dict[str, Any]] = [
        {"dataset": row.dataset, "value": row.value, "change": row.change, "p_holm": row.p_holm, "verdict": row.verdict}
        for row in comparison.rows
        if row.metric == comparison.primary and row.system == "candidate"
    ]
    regressed = [str(row["dataset"]) for row in rows if row["verdict"] == "regressed"]
    text = markdown_table(results_table(comparison, comparison.primary))
    if alone:
        text += f"\nnot compared, measured with one of the two only: {', '.join(alone)}"
    return text, rows, regressed


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Per-query values as JSON: ids and figures, no text."""
    return {
        "dataset": evaluation.dataset,
        "split": evaluation.split,
        "system": evaluation.system,
        "out_of_fold": evaluation.out_of_fold,
        "query_ids": list(evaluation.query_ids),
        "values": {
            metric: [round(float(value), 9) for value in values] for metric, values in evaluation.values.items()
        },
    }


def file_name(name: str) -> str:
    """A dataset's name as a file name."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


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
            stored: list[Any] = [read_json_if_sound(file) for file in files if file is not None]
            sound = stored and all(one["hash"] == hash_json(one["evaluation"]) for one in stored)
            return [evaluation_of(one["evaluation"]) for one in stored] if sound else None
        except (TypeError, KeyError):  # one is missing or damaged: it is measured again
            return None

    def write(self, dataset: Dataset, evaluation: Evaluation) -> None:
        """Keep one."""
        if (file := self._file(dataset)) is not None:
            values = evaluation_json(evaluation)
            write_json(file, {"hash": hash_json(values), "evaluation": values})

    def _file(self, dataset: Dataset) -> Path | None:
        if self.key is None:
            return None
        return results_home() / f"{hash_json([self.key, dataset.name, dataset.fingerprint])}.json"


def _read(folder: Path, system: str) -> Mapping[str, Evaluation]:
    files = sorted((folder / PER_QUERY).glob("*.json"))
    if not files:
        raise DataError(f"{folder}: no per_query/*.json there; make it with: ranksaga benchmark ... --out {folder}")
    try:
        found = [replace(evaluation_of(read_json(file)), system=system) for file in files]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: its per_query/*.json are broken ({error}); make them again") from None
    return {one.dataset: one for one in found}


def evaluation_of(stored: Mapping[str, Any]) -> Evaluation:
    """The inverse of :func:`evaluation_json`."""
    values = {metric: np.array(one, dtype=np.float64) for metric, one in stored["values"].items()}
    return Evaluation(
        stored["dataset"],
        stored["split"],
        stored["system"],
        tuple(stored["query_ids"]),
        values,
        stored["out_of_fold"],
    )
