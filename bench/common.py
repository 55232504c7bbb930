"""What every case shares: the model, the data, the machine's measured peak, and how a worker reports."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SETS = ("scifact", "nfcorpus")
# all-MiniLM-L6-v2: layers, width, inner width. Products of the transformer alone; embeddings are look-ups.
LAYERS, WIDTH, INNER = 6, 384, 1536


def data_folder(name: str) -> Path:
    """Folder of a collection below RANKSAGA_DATASETS."""
    for root in os.environ.get("RANKSAGA_DATASETS", "datasets").split(":"):
        if (Path(root) / name).is_dir():
            return (Path(root) / name).absolute()
    raise SystemExit(f"{name}: not below RANKSAGA_DATASETS; set it to the folder of the collections")


def model_folder() -> str:
    """Folder of the packaged MiniLM."""
    from ranksaga.encode.models import locate

    return str(locate("minilm"))


@dataclass(frozen=True)
class Beir:
    """A collection as plain dicts, as the peers want it."""

    corpus: dict[str, dict[str, str]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read_beir(name: str, split: str = "test") -> Beir:
    """Read a collection; queries are those that the split judges."""
    folder = data_folder(name)
    corpus = {}
    for line in (folder / "corpus.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        corpus[row["_id"]] = {"title": row.get("title") or "", "text": row["text"]}
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        qrels.setdefault(query, {})[document] = int(score)
    rows = map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))
    return Beir(corpus, {row["_id"]: row["text"] for row in rows if row["_id"] in qrels}, qrels)


def training_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """The same (query, document) pairs for every trainer: one a train query of SciFact and NFCorpus, shuffled."""
    rng = np.random.default_rng(seed)
    pairs = []
    for name in SETS:
        data = read_beir(name, "train")
        for query, judged in data.qrels.items():
            document = data.corpus[sorted(judged)[int(rng.integers(len(judged)))]]
            pairs.append((data.queries[query], f"{document['title']} {document['text']}".strip()))
    order = rng.permutation(len(pairs))
    return [pairs[int(order[row % len(order)])] for row in range(count)]


def forward_flops(lengths: Any) -> float:
    """Multiply-adds times two of MiniLM's matrix products for texts of so many tokens each, padding not counted."""
    from ranksaga.encode.flops import transformer_flops

    weights = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    return transformer_flops(lengths, weights=weights, layers=LAYERS, hidden=WIDTH)


def matmul_peak(size: int = 2048, repeats: int = 12) -> float:
    """FLOP/s of the machine's best bf16 matrix product, measured now."""
    import torch

    left, right = torch.randn(size, size).bfloat16(), torch.randn(size, size).bfloat16()
    for _ in range(3):
        left @ right
    return 2 * size**3 / min(timed(lambda: left @ right) for _ in range(repeats))


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def rate(marks: list[float], batch: int) -> float:
    """Pairs a second over the second half of the steps, by the ends of the steps."""
    half = len(marks) // 2
    return batch * (len(marks) - half) / (marks[-1] - marks[half - 1])
