"""Per-query values on disk: a JSON file a dataset, with what they are of; ids and figures, no text of a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.errors import DataError
from ranksaga.evaluate.evaluation import Evaluation, Origin
from ranksaga.files import file_name, read_checked_json, write_checked_json
from ranksaga.untrusted.escape import is_name, shown
from ranksaga.untrusted.json_input import load_json

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
    for file in sorted(path for path in folder.glob("*.json") if not path.name.startswith(".")):
        try:
            evaluation = evaluation_of(_read(file))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{file}: no per-query results of ranksaga ({reason}); {remedy}") from None
        if evaluation.dataset in evaluations:
            raise DataError(f"{file}: a second file of {shown(evaluation.dataset)} in that folder; remove one of them")
        evaluations[evaluation.dataset] = replace(evaluation, system=system)
    return list(evaluations.values())


def _read(file: Path) -> Any:
    """A file's content. Earlier versions wrote no checksum: a file without may have their keys alone.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what was written.
    """
    stored = load_json(file)
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
    except KeyError as error:
        raise ValueError(f"there is no {error.args[0]}") from error
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(str(error)) from error


def _parsed(stored: Any) -> Evaluation:
    if not isinstance(stored, dict):
        raise ValueError(f"found {shown(stored, 40)}, expected an object")
    name, split, system, ids = stored["dataset"], stored["split"], stored["system"], stored["query_ids"]
    if not isinstance(ids, list) or not ids or not all(map(is_name, (name, split, system, *ids))):
        raise ValueError("dataset, split, system and each of query_ids are not texts without control characters")
    if len(set(ids)) != len(ids):
        raise ValueError("an id stands twice in query_ids")
    columns, fingerprint, encoder = stored["values"], stored.get("dataset_fingerprint"), stored.get("encoder")
    out_of_fold = stored["out_of_fold"]
    if not isinstance(columns, dict) or not columns or not isinstance(out_of_fold, bool):
        raise ValueError("values is no object of metrics, or out_of_fold neither true nor false")
    if not isinstance(fingerprint, str | None) or not isinstance(encoder, dict | None):
        raise ValueError("dataset_fingerprint is no text, or encoder no object")
    values = {_metric(metric): _column(metric, column, len(ids)) for metric, column in columns.items()}
    origin = Origin(fingerprint, encoder) if fingerprint is not None else None
    return Evaluation(name, split, system, tuple(ids), values, out_of_fold, origin)


def _metric(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"the metric {shown(name, 40)} has control characters")
    return name


def _column(metric: str, column: Any, count: int) -> NDArray[np.float64]:
    if not isinstance(column, list) or len(column) != count or any(type(value) not in (int, float) for value in column):
        raise ValueError(f"{metric} has not one number for each of {count} queries")
    values = np.array(column, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{metric} has not one finite number for each of {count} queries")
    return values
