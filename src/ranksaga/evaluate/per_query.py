"""Per-query values on disk: a JSON file a dataset, with what they are of; ids and figures, no text of a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.files import file_name, read_checked_json, read_json, write_checked_json

__all__ = ["PER_QUERY", "evaluation_json", "evaluation_of", "read_evaluations", "write_evaluation"]

PER_QUERY = "per_query"  # the folder's name
KEYS = {"dataset", "split", "system", "out_of_fold", "dataset_fingerprint", "encoder", "query_ids", "values"}


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write one evaluation into ``folder``, under the name of its dataset, with a checksum."""
    write_checked_json(folder / f"{file_name(evaluation.dataset)}.json", evaluation_json(evaluation))


def read_evaluations(folder: Path, system: str, *, remedy: str) -> list[Evaluation]:
    """All evaluations of a folder, as those of ``system``; empty where it has none.

    Args:
        folder: what :func:`write_evaluation` wrote into.
        system: what the system that they are of is called from here on.
        remedy: how a damaged file is made again, for the error.

    Raises:
        DataError: a file is damaged or of something else, or two are of one dataset.
    """
    evaluations: dict[str, Evaluation] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            evaluation = evaluation_of(_read(file))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: no per-query results of ranksaga ({error}); {remedy}") from None
        if evaluation.dataset in evaluations:
            raise DataError(f"{file}: a second file of {evaluation.dataset!r} in that folder; remove one of them")
        evaluations[evaluation.dataset] = replace(evaluation, system=system)
    return list(evaluations.values())


def _read(file: Path) -> Any:
    """A file's content. Earlier versions wrote no checksum: a file without may have their keys alone.

    Raises:
        ValueError: it is not what was written.
    """
    stored = read_json(file)
    if not isinstance(stored, dict) or not set(stored) - KEYS:
        return stored
    if (sound := read_checked_json(file)) is None:
        raise ValueError("its content is not what was written")
    return sound


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Per-query values as JSON, with what they are of: ids and figures, no text of a dataset."""
    return {
        "dataset": evaluation.dataset,
        "split": evaluation.split,
        "system": evaluation.system,
        "out_of_fold": evaluation.out_of_fold,
        "dataset_fingerprint": evaluation.origin.dataset if evaluation.origin is not None else None,
        "encoder": evaluation.origin.encoder if evaluation.origin is not None else None,
        "query_ids": list(evaluation.query_ids),
        "values": {
            metric: [round(float(value), 9) for value in values] for metric, values in evaluation.values.items()
        },
    }


def evaluation_of(stored: Any) -> Evaluation:
    """What :func:`evaluation_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        return _parsed(stored)
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(str(error)) from error


def _parsed(stored: Any) -> Evaluation:
    name, split, system, ids = stored["dataset"], stored["split"], stored["system"], tuple(stored["query_ids"])
    if not all(isinstance(text, str) for text in (name, split, system, *ids)) or len(set(ids)) != len(ids):
        raise ValueError("dataset, split and query_ids are not texts, each id once")
    values = {str(metric): np.array(column, dtype=np.float64) for metric, column in stored["values"].items()}
    for metric, column in values.items():
        if column.shape != (len(ids),) or not np.isfinite(column).all():
            raise ValueError(f"{metric} has not one number for each of {len(ids)} queries")
    fingerprint, encoder = stored.get("dataset_fingerprint"), stored.get("encoder")
    origin = Origin(fingerprint, encoder if isinstance(encoder, dict) else None) if fingerprint is not None else None
    return Evaluation(name, split, system, ids, values, bool(stored["out_of_fold"]), origin)
