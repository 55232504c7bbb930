"""Our side of every case, by the package's own commands and functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import SETS, data_folder, forward_flops, matmul_peak, model_folder, rate, read_beir, training_pairs


def benchmark() -> dict[str, float]:
    """``ranksaga benchmark`` as a user calls it; RANKSAGA_HOME decides whether vectors are known already."""
    command = [sys.executable, "-m", "ranksaga", "benchmark", "-m", model_folder(), "--json"]
    for name in SETS:
        command += ["-d", str(data_folder(name))]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {Path(row["dataset"]).name: row["ndcg_at_10"] for row in json.loads(shown.stdout)}


def search(queries: np.ndarray, documents: np.ndarray, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """Exact search over given vectors and all metrics; seconds of both."""
    from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
    from ranksaga.evaluate.benchmark import Vectors, rank
    from ranksaga.evaluate.metrics import evaluate

    rows = [
        (int(query[1:]), int(document[1:]), score)
        for query, judged in qrels.items()
        for document, score in judged.items()
    ]
    names = tuple(f"d{row}" for row in range(len(documents)))
    corpus = Corpus(names, ("",) * len(names), names)
    asked = tuple(f"q{row}" for row in range(len(queries)))
    dataset = Dataset("random", corpus, Queries(asked, asked), {"test": Qrels.of(rows)})
    start = time.perf_counter()
    places = np.arange(len(queries), dtype=np.int32)
    rankings = rank(dataset, Vectors(documents, queries, places), places, 1000)
    searched = time.perf_counter()
    evaluation = evaluate(rankings, dataset, "test", system="ours")
    ended = time.perf_counter()
    return {"search": searched - start, "metrics": ended - searched, "ndcg": evaluation.mean("ndcg_at_10")}


def trainer(steps: int, batch: int) -> dict[str, float]:
    """Our trainer on the peers' pairs, loss and lengths: MultipleNegativesRankingLoss, one model, full length."""
    from ranksaga.encode.encoder import load_encoder
    from ranksaga.recipe import Training
    from ranksaga.train.pairs import Source
    from ranksaga.train.trainer import train

    pairs = training_pairs(batch * steps)
    encoder = load_encoder(model_folder())
    marks: list[float] = []
    source = Source.of_texts("pairs", [one for one, _ in pairs], [one for _, one in pairs])
    settings = Training(epochs=1, learning_rate=2e-5, batch_size=batch, mask_false_negatives=False)
    with tempfile.TemporaryDirectory() as folder:
        train(
            encoder.model,
            [source],
            settings,
            query_prompt="",
            document_prompt="",
            max_length=encoder.spec.max_length,
            precision=encoder.spec.precision,
            seed=0,
            folder=Path(folder),
            progress=lambda **_: marks.append(time.perf_counter()),
        )
    return {"pairs_per_second": rate(marks, batch)}


def encoding_share() -> dict[str, float]:
    """Useful FLOP/s of encoding SciFact's documents (no padding counted), and the machine's bf16 peak before and after."""
    from ranksaga.encode.encoder import load_encoder

    encoder = load_encoder(model_folder())
    data = read_beir("scifact")
    texts = [f"{one['title']} {one['text']}".strip() for one in data.corpus.values()]
    tokens = encoder.model.tokenizer(texts, truncation=True, max_length=encoder.spec.max_length)["input_ids"]
    encoder.encode_documents(texts[:64])
    before = matmul_peak()
    start = time.perf_counter()
    encoder.encode_documents(texts)
    seconds = time.perf_counter() - start
    peak = max(before, matmul_peak())
    flops = forward_flops([len(one) for one in tokens]) / seconds
    return {"flops": flops, "peak": peak, "share": flops / peak, "documents_per_second": len(texts) / seconds}


def training_share(steps: int, batch: int) -> dict[str, float]:
    """Useful FLOP/s of training (forward and twice that for backward), and the machine's bf16 peak."""
    from ranksaga.encode.encoder import load_encoder

    encoder = load_encoder(model_folder())
    pairs = training_pairs(batch * steps)
    tokens = encoder.model.tokenizer(
        [text for pair in pairs for text in pair], truncation=True, max_length=encoder.spec.max_length
    )["input_ids"]
    per_pair = 3 * forward_flops([len(one) for one in tokens]) / len(pairs)
    before = matmul_peak()
    speed = trainer(steps, batch)["pairs_per_second"]
    peak = max(before, matmul_peak())
    return {"flops": speed * per_pair, "peak": peak, "share": speed * per_pair / peak, "pairs_per_second": speed}


def fresh_home(folder: str) -> None:
    """An empty cache for this process and its children."""
    os.environ["RANKSAGA_HOME"] = folder
