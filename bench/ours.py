"""Our side of every case, by the package's own commands and functions."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from common import (
    SETS,
    WIDTH,
    data_folder,
    forward_flops,
    matmul_peak,
    model_folder,
    rate,
    read_beir,
    training_pairs,
)


def benchmark() -> dict[str, float]:
    """``ranksaga benchmark`` without its printing; RANKSAGA_HOME decides whether vectors are known already."""
    from ranksaga.run.model_results import benchmark_model

    folders = [str(data_folder(name)) for name in SETS]
    found = benchmark_model(model_folder(), folders, split="test", precision="auto", max_length=None, out=None)
    return {Path(one.dataset).name: one.mean("ndcg_at_10") for one in found}


def random_collection(quick: bool) -> tuple[np.ndarray, np.ndarray, dict[str, dict[str, int]]]:
    """Random unit vectors in quora's shape, a document judged relevant for each query. Made in place: memory counts."""
    rng = np.random.default_rng(0)
    queries = np.empty((200 if quick else 10_000, WIDTH), dtype=np.float32)
    documents = np.empty((5_000 if quick else 523_000, WIDTH), dtype=np.float32)
    for array in (queries, documents):
        for start in range(0, len(array), 8192):
            block = array[start : start + 8192]
            rng.standard_normal(out=block, dtype=np.float32)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
    relevant = rng.integers(len(documents), size=len(queries))
    return queries, documents, {f"q{row}": {f"d{document}": 1} for row, document in enumerate(relevant.tolist())}


def search(queries: np.ndarray, documents: np.ndarray, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """Exact search over given vectors and all metrics; seconds of both."""
    import torch  # noqa: F401 - before the clock starts, as in the peer's measurement

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
    return {
        "search and metrics": ended - start,
        "search": searched - start,
        "metrics": ended - searched,
        "ndcg_at_10": evaluation.mean("ndcg_at_10"),
    }


def trainer(steps: int, batch: int) -> dict[str, float]:
    """Our trainer on the peers' pairs, loss and lengths: MultipleNegativesRankingLoss, one model, full length."""
    from ranksaga.config.training import Labelled
    from ranksaga.encode.encoder import load_encoder
    from ranksaga.train.pairs import TrainingPairs
    from ranksaga.train.trainer import train

    pairs = training_pairs(batch * steps)
    encoder = load_encoder(model_folder())
    marks: list[float] = []
    rows = np.repeat(np.arange(len(pairs), dtype=np.int32)[:, None], 2, axis=1)
    source = TrainingPairs("pairs", tuple(one for one, _ in pairs), tuple(one for _, one in pairs), rows, rows)
    settings = Labelled(epochs=1, learning_rate=2e-5, batch_size=batch, mask_false_negatives=False)
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
    """Useful FLOP/s of encoding SciFact's documents (no padding counted), and the machine's bf16 peak around it."""
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


def growth(count: int) -> dict[str, float]:
    """Encode, search and score ``count`` short documents: a sentence of SciFact's corpus and a number each."""
    import re

    from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
    from ranksaga.encode.encoder import load_encoder
    from ranksaga.evaluate.benchmark import benchmark
    from ranksaga.evaluate.metrics import evaluate

    texts = [one["text"] for one in read_beir("scifact").corpus.values()]
    sentences = [part for text in texts for part in re.split(r"(?<=[.]) ", text) if 20 < len(part) < 80]
    documents = tuple(f"{sentences[row % len(sentences)]} {row}" for row in range(count))
    names = tuple(map(str, range(count)))
    asked = tuple(sentences[:100])
    dataset = Dataset(
        "growth",
        Corpus(names, ("",) * count, documents),
        Queries(tuple(f"q{row}" for row in range(100)), asked),
        {"test": Qrels.of([(row, row, 1) for row in range(100)])},
    )
    encoder = load_encoder(model_folder())
    encoder.encode_documents(documents[:64])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    rankings = benchmark(encoder, dataset, dataset.qrels["test"].query_rows, 1000)
    evaluation = evaluate(rankings, dataset, "test", system="ours")
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
    return {
        "milliseconds_per_document": 1000 * seconds / count,
        "documents_per_second": count / seconds,
        "memory added, GiB": grown,
        "ndcg_at_10": evaluation.mean("ndcg_at_10"),
    }
