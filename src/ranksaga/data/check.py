"""What is wrong with a dataset, and what a run would not take from it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ranksaga.data.beir_files import Finding
from ranksaga.data.beir_parser import parse
from ranksaga.data.dataset import Dataset
from ranksaga.data.self_hits import count_self_hits, describe_self_hits
from ranksaga.data.words import tokens

__all__ = ["check_beir", "check_use"]

_SPLITS = ("train", "dev", "test")


def check_beir(path: Path) -> list[Finding]:
    """Every problem of the dataset in a folder, file by file in the order of lines; empty if it is sound.

    Of a folder without errors also what stands in the way of a run; see :func:`check_use`.
    """
    findings: list[Finding] = []
    dataset = parse(path, path.name, findings.append)
    if any(finding.level == "error" for finding in findings):
        return findings
    return findings + check_use(dataset)


def check_use(dataset: Dataset, folds: int = 3) -> list[Finding]:
    """What a run refuses about a dataset that can be read (errors), and what it does that may surprise (warnings).

    Args:
        dataset: as it was read.
        folds: into which the queries of a dataset with a test split only are cut.
    """
    findings = [
        _of_qrels("warning", "unused-split", f"the split {name!r} takes no part in a run; train, dev and test do")
        for name in dataset.qrels
        if name not in _SPLITS
    ]
    test = dataset.qrels.get("test")
    if test is None:
        have = ", ".join(sorted(dataset.qrels)) or "none"
        message = f"there is no split test (found: {have}), and a run scores no other; add qrels/test.tsv"
        return [*findings, _of_qrels("error", "no-test", message)]
    others = [dataset.qrels[name].query_rows for name in ("train", "dev") if name in dataset.qrels]
    rows = np.unique(np.concatenate(others)) if others else np.empty(0, dtype=np.int32)
    distinct = len({tuple(tokens(dataset.queries.texts[row])) for row in test.query_rows})
    if others and not len(np.setdiff1d(rows, test.positives.query_rows)):
        message = (
            f"all {len(rows)} queries of train and dev are judged in test, too, so they are scored and train nothing"
        )
        findings.append(_of_qrels("warning", "nothing-trains", message))
    elif not others and distinct < folds:
        message = (
            f"{distinct} distinct test queries and no train or dev: too few for {folds} folds, so a run takes "
            "the dataset as a guard only"
        )
        findings.append(_of_qrels("warning", "too-few-queries", message))
    if count := count_self_hits(dataset):
        findings.append(_of_qrels("warning", "self-hits", describe_self_hits(count)))
    return findings


def _of_qrels(level: Literal["error", "warning"], code: str, message: str) -> Finding:
    return Finding(level, code, "qrels", None, message)
