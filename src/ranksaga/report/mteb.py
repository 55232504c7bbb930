"""Results in the layout of MTEB, so that its tools and leaderboards read ours.

Layout and keys are those of ``mteb.results.TaskResult`` and of MTEB's result cache
(``results/<model>/<revision>/<task>.json`` with ``model_meta.json`` beside them), as of mteb 2.26.
"""

from __future__ import annotations

from pathlib import Path

from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.files import file_name, write_json

__all__ = ["result_folder", "write_model_meta", "write_task_result"]

_MAIN = "ndcg_at_10"


def result_folder(folder: Path, model: str, revision: str) -> Path:
    """``<folder>/results/<model>/<revision>`` as MTEB spells it: ``/`` is ``__`` and a space is ``_``."""
    name = model.replace("/", "__").replace(" ", "_")
    if name in (".", "..") or len(name.encode("utf-8", "surrogatepass")) > 200:
        name = file_name(name)  # neither another folder nor longer than file systems take
    return folder / "results" / name / file_name(revision)


def write_task_result(
    evaluation: Evaluation,
    folder: Path,
    *,
    model: str,
    revision: str,
    dataset_revision: str,
) -> Path:
    """Write one dataset's scores as a ``TaskResult``.

    Args:
        evaluation: Scores by query; every metric's mean is written, with six decimals as MTEB does.
        folder: The run's folder.
        model: Name of the model, such as ``sentence-transformers/all-MiniLM-L6-v2``.
        revision: The model's revision.
        dataset_revision: The dataset's revision or fingerprint.

    Returns:
        Path of the file.
    """
    means = {metric: round(evaluation.mean(metric), 6) for metric in evaluation.values}
    scores = {**means, "main_score": means[_MAIN], "hf_subset": "default", "languages": ["eng-Latn"]}
    path = result_folder(folder, model, revision) / f"{file_name(evaluation.dataset)}.json"
    write_json(
        path,
        {
            "dataset_revision": dataset_revision,
            "task_name": evaluation.dataset,
            # Not computed by mteb, so no version of it: the key must be there, its value may be null.
            "mteb_version": None,
            "scores": {evaluation.split: [scores]},
            "evaluation_time": None,
            "kg_co2_emissions": None,
        },
    )
    return path


def write_model_meta(
    folder: Path,
    *,
    model: str,
    revision: str,
    max_tokens: int | None = None,
    adapted_from: str | None = None,
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
            "n_parameters": None,
            "memory_usage_mb": None,
            "max_tokens": max_tokens,
            "embed_dim": None,
            "license": None,
            "open_weights": True,
            "public_training_code": None,
            "public_training_data": None,
            "framework": ["Sentence Transformers", "PyTorch"],
            "similarity_fn_name": similarity,
            "use_instructions": None,
            "training_datasets": None,
            "adapted_from": adapted_from,
            "modalities": ["text"],
            "loader": None,
            "loader_kwargs": {},
        },
    )
    return path
