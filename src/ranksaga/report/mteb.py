"""Results in the layout of MTEB, so that its tools and leaderboards read ours.

Layout and keys are those of ``mteb.results.TaskResult`` and of MTEB's result cache
(``results/<model>/<revision>/<task>.json`` with ``model_meta.json`` beside them), as of mteb 2.26.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.files import plain_file_name, write_json

__all__ = ["result_folder", "write_model_meta", "write_task_result"]

_MAIN = "ndcg_at_10"


def result_folder(folder: Path, model: str, revision: str) -> Path:
    """``<folder>/results/<model>/<revision>`` as MTEB spells it: ``/`` is ``__`` and a space is ``_``."""
    name = model.replace("/", "__").replace(" ", "_")
    return folder / "results" / name / plain_file_name(revision)


def write_task_result(
    evaluation: Evaluation,
    folder: Path,
    *,
    model: str,
    revision: str,
    dataset_revision: str,
    seconds: float | None,
    task_name: str | None = None,
    languages: Sequence[str] = ("eng-Latn",),
    main_metric: str = _MAIN,
    stem: str | None = None,
) -> Path:
    """Write one dataset's scores as a ``TaskResult``.

    Args:
        evaluation: Scores by query; every metric's mean is written, with six decimals as MTEB does.
        folder: The run's folder.
        model: Name of the model, such as ``sentence-transformers/all-MiniLM-L6-v2``.
        revision: The model's revision.
        dataset_revision: The dataset's revision or fingerprint.
        seconds: Time of the evaluation, None where it was not measured.
        task_name: MTEB's name of the dataset (``SciFact``) where it differs from ours.
        languages: Languages with script, as ISO 639-3 and ISO 15924 codes.
        main_metric: The metric that MTEB shows first.
        stem: The file's name without its ending; None: the task's name, as far as a file can have it.

    Returns:
        Path of the file.
    """
    name = task_name or evaluation.dataset
    means = {metric: round(evaluation.mean(metric), 6) for metric in evaluation.values}
    scores = {**means, "main_score": means[main_metric], "hf_subset": "default", "languages": list(languages)}
    path = result_folder(folder, model, revision) / f"{stem or plain_file_name(name)}.json"
    write_json(
        path,
        {
            "dataset_revision": dataset_revision,
            "task_name": name,
            # Not computed by mteb, so no version of it: the key must be there, its value may be null.
            "mteb_version": None,
            "scores": {evaluation.split: [scores]},
            "evaluation_time": seconds,
            "kg_co2_emissions": None,
        },
    )
    return path


def write_model_meta(
    folder: Path,
    *,
    model: str,
    revision: str,
    n_parameters: int | None = None,
    max_tokens: int | None = None,
    embed_dim: int | None = None,
    adapted_from: str | None = None,
    training_datasets: Sequence[str] | None = None,
    similarity: str = "cosine",
) -> Path:
    """Write ``model_meta.json`` beside a model's results, with what MTEB's ``ModelMeta`` asks for.

    What is None is not known. MTEB wants an organization in a name (``org/model``), so a plain
    name gets ``local/``.
    """
    path = result_folder(folder, model, revision) / "model_meta.json"
    write_json(
        path,
        {
            "name": model if "/" in model else f"local/{model}",
            "revision": revision,
            "release_date": None,
            "languages": None,
            "n_parameters": n_parameters,
            "memory_usage_mb": None,
            "max_tokens": max_tokens,
            "embed_dim": embed_dim,
            "license": None,
            "open_weights": True,
            "public_training_code": None,
            "public_training_data": None,
            "framework": ["Sentence Transformers", "PyTorch"],
            "similarity_fn_name": similarity,
            "use_instructions": None,
            "training_datasets": None if training_datasets is None else list(training_datasets),
            "adapted_from": adapted_from,
            "modalities": ["text"],
            "loader": None,
            "loader_kwargs": {},
        },
    )
    return path
