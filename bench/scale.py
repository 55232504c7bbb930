"""Large corpora on this machine: exact search of 8.8 million random vectors, shards, encoding rates, and the table.

python bench/scale.py --search     # streams 8.8M x 384 through the exact search, then shards; minutes
python bench/scale.py --encode     # tokens a second of two shapes of model, and of the tokenizer
python bench/scale.py --table      # docs/scale.md's tables from bench/scale.json
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
RESULTS = HERE / "scale.json"
DOCUMENTS, WIDTH, DEPTH = 8_800_000, 384, 1000
# Corpora of the table: name, documents, tokens a document. BEIR (Thakur et al. 2021, table 1) gives 11.44 words for
# Quora and 55.98 for MS MARCO. 1.35 tokens a word lies between what the tokenizer makes of Cranfield (1.21) and of
# SciFact (1.57). That larger corpora are like MS MARCO is an assumption.
CORPORA = (
    ("Quora", 523_000, 15),
    ("MS MARCO", 8_800_000, 76),
    ("100M", 100_000_000, 76),
    ("1B", 1_000_000_000, 76),
)
# Shapes of model: layers, hidden, feed-forward, heads.
MODELS = {384: ("MiniLM-L6", 6, 384, 1536, 12), 768: ("E5-base", 12, 768, 3072, 12)}
CARDS = ("A10G", "H100")
DISK = 1e9  # bytes a second, past the page cache: dd if=FILE of=/dev/null bs=4M iflag=direct gave 998 MB/s
BLOCK = 32_768
SHARDS, SHARDED_DOCUMENTS, SHARDED_QUERIES = 8, 16 * BLOCK, 200


class Stream:
    """Random unit vectors in blocks, made when they are asked for; ``seconds`` is what making them took."""

    def __init__(self, documents: int, width: int, seed: int) -> None:
        self.documents, self.width, self.seconds = documents, width, 0.0
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for first in range(0, self.documents, BLOCK):
            began = time.perf_counter()
            block = unit(self._rng, min(BLOCK, self.documents - first), self.width)
            self.seconds += time.perf_counter() - began
            yield first, block


def unit(rng: np.random.Generator, rows: int, width: int) -> NDArray[np.float32]:
    """Random directions (rows, width) float32."""
    vectors = rng.standard_normal((rows, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def simulate(documents: int, queries: int) -> dict[str, Any]:
    """One pass over all documents, nothing of them kept."""
    from ranksaga.retrieve.search import search

    asked = unit(np.random.default_rng(1), queries, WIDTH)
    rows, ties = np.arange(queries, dtype=np.int32), np.arange(documents, dtype=np.int32)
    warm = Stream(2 * BLOCK, WIDTH, 2)
    search(asked, warm, query_rows=rows, ties=ties[: 2 * BLOCK], depth=DEPTH, device="cpu")
    stream = Stream(documents, WIDTH, 0)
    began, cpu = time.perf_counter(), time.process_time()
    found = search(asked, stream, query_rows=rows, ties=ties, depth=DEPTH, device="cpu")
    seconds = time.perf_counter() - began - stream.seconds
    assert bool((found.scores[:, 1:] <= found.scores[:, :-1]).all())
    assert bool((found.documents >= 0).all())
    return {
        "documents": documents,
        "width": WIDTH,
        "queries": queries,
        "depth": DEPTH,
        "search_seconds": seconds,
        "generation_seconds": stream.seconds,
        "cpu_seconds_with_generation": time.process_time() - cpu,
        "documents_per_second": documents / seconds,
        "flop_per_second": 2.0 * documents * WIDTH * queries / seconds,
        "peak_rss_gib": peak_gib(),
    }


def sharded() -> dict[str, Any]:
    """Shards in memory-mapped files, searched one after the other and merged, against one pass."""
    from ranksaga.retrieve.search import search
    from ranksaga.retrieve.shards import merge_rankings, shard_ties

    asked = unit(np.random.default_rng(1), SHARDED_QUERIES, WIDTH)
    rows, count = np.arange(SHARDED_QUERIES, dtype=np.int32), SHARDED_DOCUMENTS // SHARDS
    ties = np.random.default_rng(3).permutation(SHARDED_DOCUMENTS).astype(np.int32)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"shard-{number}.npy" for number in range(SHARDS)]
        for number, file in enumerate(files):
            np.save(file, unit(np.random.default_rng([4, number]), count, WIDTH))
        blocks = ((number * count, np.load(file, mmap_mode="r")) for number, file in enumerate(files))
        began = time.perf_counter()
        whole = search(asked, blocks, query_rows=rows, ties=ties, depth=DEPTH, device="cpu")
        single = time.perf_counter() - began
        parts, searched = [], 0.0
        for number, file in enumerate(files):
            local = shard_ties(ties, number * count, count)
            began = time.perf_counter()
            shard = [(0, np.load(file, mmap_mode="r"))]
            parts.append((number * count, search(asked, shard, query_rows=rows, ties=local, depth=DEPTH, device="cpu")))
            searched += time.perf_counter() - began
    began = time.perf_counter()
    merged = merge_rankings(parts, ties, depth=DEPTH)
    return {
        "documents": SHARDED_DOCUMENTS,
        "shards": SHARDS,
        "queries": SHARDED_QUERIES,
        "single_pass_seconds": single,
        "shards_seconds": searched,
        "merge_seconds": time.perf_counter() - began,
        "equal": bool(
            np.array_equal(merged.documents, whole.documents) and np.array_equal(merged.scores, whole.scores)
        ),
        "peak_rss_gib": peak_gib(),
    }


def encode(width: int, seconds: float = 8.0) -> dict[str, Any]:
    """Tokens a second of a model of this shape with random weights, which take the time of trained ones, on batches of
    texts of 76 tokens, in the precision that is the faster one here; the rates of three repeats. Without tokenizer."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

    from ranksaga.encode.batch_layout import Packed
    from ranksaga.encode.flops import transformer_flops
    from ranksaga.encode.fused_encoding import fuse
    from ranksaga.encode.precision import choose_precision

    name, layers, hidden, between, heads = MODELS[width]
    precision = choose_precision("auto", "cpu")
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, intermediate_size=between, num_attention_heads=heads
    )
    model = BertModel(config).train(False)
    # What the encoder itself runs.
    fused = fuse([SimpleNamespace(auto_model=model), Pooling(hidden)]) if precision == "bf16" else None
    if fused is None:
        model = model.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    ids = torch.randint(1000, 30000, (4096 // 76, 76))  # the encoder's batch on a CPU
    texts, mask = Packed.of(list(ids)), torch.ones_like(ids)
    rates = []
    with torch.inference_mode():
        for repeat in range(4):
            batches, began = 0, time.perf_counter()
            while time.perf_counter() - began < (seconds if repeat else seconds / 4):
                fused(texts) if fused is not None else model(input_ids=ids, attention_mask=mask)
                batches += 1
            rates.append(batches * ids.numel() / (time.perf_counter() - began))
    weights = sum(p.numel() for key, p in model.named_parameters() if "embeddings" not in key)
    return {
        "model": name,
        "precision": precision,
        "tokens_per_second": rates[1:],
        "weights": weights,
        "flop_per_token": transformer_flops([76], weights=weights, layers=layers, hidden=hidden) / 76,
    }


def tokenise() -> dict[str, Any]:
    """Tokens a second of the tokenizer on functions of Python's library, all cores; three repeats after a warm-up."""
    from ranksaga.data.resolve import load_dataset
    from ranksaga.encode.encoder import load_encoder
    from ranksaga.estimate.tokens import TokenCounter

    texts = load_dataset("python:stdlib?limit=700").corpus.documents
    encoder = load_encoder("minilm", precision="fp32")
    rates = []
    for _ in range(4):
        counter = TokenCounter(encoder)  # a new one has read nothing yet
        counter.documents(texts)
        rates.append(counter.tokens / counter.seconds)
    return {"tokens_per_second": rates[1:], "tokens": counter.tokens}


def table(measured: dict[str, Any]) -> str:
    """docs/scale.md's tables, from what was measured here and the cards' peaks."""
    return "\n\n".join("\n".join(one) for one in (sizes(), encoding(measured), searching(measured), serving(measured)))


def sizes() -> Iterator[str]:
    """Bytes of vectors."""
    yield "| corpus | documents | 384 dimensions: fp32 | fp16 | int8 | 768: fp32 | fp16 | int8 |"
    yield "|---|---|---|---|---|---|---|---|"
    for corpus, documents, _ in CORPORA:
        cells = [gigabytes(documents * width * each) for width in MODELS for each in (4, 2, 1)]
        yield f"| {corpus} | {documents:,} | {' | '.join(cells)} |"


def encoding(measured: dict[str, Any]) -> Iterator[str]:
    """Time and money of reading a corpus once."""
    from ranksaga.estimate.machines import UTILISATION
    from ranksaga.run.gpu_prices import find_gpu

    yield f"| corpus | model | tokens | here | {' | '.join(f'one {name}' for name in CARDS)} |"
    yield "|---|---|---|---|" + "---|" * len(CARDS)
    for corpus, documents, each in CORPORA:
        for width, (name, *_) in MODELS.items():
            model, tokens = measured[f"encode_{width}"], documents * each
            rates = model["tokens_per_second"]
            cells = [span(tokens / max(rates), tokens / min(rates))]
            for card in map(find_gpu, CARDS):
                flop = tokens * model["flop_per_token"]
                low, high = (flop / (card.half * share) for share in (UTILISATION.high, UTILISATION.low))
                usd = money(low / 3600 * card.usd_per_hour, high / 3600 * card.usd_per_hour)
                cells.append(f"{span(low, high)}, {usd}")
            yield f"| {corpus} | {name} | {count(tokens)} | {' | '.join(cells)} |"


def searching(measured: dict[str, Any]) -> Iterator[str]:
    """Exact search of many queries in one pass."""
    rate = measured["search"]["flop_per_second"]
    keys = measured["sharded"]["shards"] * measured["sharded"]["queries"] * DEPTH
    merge = measured["sharded"]["merge_seconds"] / keys
    yield "| corpus | vectors read from disk | products, here | shards | results to merge | merge, here |"
    yield "|---|---|---|---|---|---|"
    for corpus, documents, _ in CORPORA:
        shards = -(-documents // DOCUMENTS)
        products = 2.0 * documents * WIDTH * 1000 / rate
        read = documents * WIDTH * 4 / DISK
        found = shards * 1000 * DEPTH
        merged = span(found * merge, found * merge) if shards > 1 else "-"
        cells = [span(read, read), span(products, products), f"{shards}", count(found), merged]
        yield f"| {corpus} | {' | '.join(cells)} |"


def serving(measured: dict[str, Any]) -> Iterator[str]:
    """Exact search of one query: every vector is read for it."""
    from ranksaga.run.gpu_prices import find_gpu

    rate = measured["one_query"]["documents_per_second"]
    yield f"| corpus | here, fp32 in memory | {' | '.join(f'{name}, fp16 in its memory' for name in CARDS)} |"
    yield "|---|---|" + "---|" * len(CARDS)
    for corpus, documents, _ in CORPORA:
        cells = [span(documents / rate, documents / rate)]
        for card in map(find_gpu, CARDS):
            size = documents * WIDTH * 2
            needed = int(-(-size // (card.memory * 0.9)))
            milliseconds = 1000 * size / needed / card.bandwidth
            cells.append(f"{milliseconds:.2g} ms" if needed == 1 else f"{milliseconds:.0f} ms on {needed} cards")
        yield f"| {corpus} | {' | '.join(cells)} |"


def count(number: float) -> str:
    """Millions or billions."""
    return f"{number / 1e9:.3g} billion" if number >= 1e9 else f"{number / 1e6:.3g} million"


def gigabytes(size: float) -> str:
    """10^9 bytes, or 10^12."""
    return f"{size / 1e12:.2f} TB" if size >= 1e12 else f"{size / 1e9:.3g} GB"


def span(low: float, high: float) -> str:
    """Seconds in the unit that suits them."""
    unit, size = next(
        (name, one) for name, one in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if high >= one or one == 1
    )
    short, long = (f"{value / size:,.0f}" if value >= 10 * size else f"{value / size:.1f}" for value in (low, high))
    return f"{short} {unit}" if short == long else f"{short} - {long} {unit}"


def money(low: float, high: float) -> str:
    """US dollars."""
    short, long = (f"{value:,.0f}" if value >= 10 else f"{value:.2f}" for value in (low, high))
    return f"${short} - {long}"


def keep(name: str, values: dict[str, Any]) -> None:
    """Add one measurement to the results, with what it was measured on."""
    from ranksaga.run.environment import describe_environment

    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    stored["environment"] = describe_environment()
    stored[name] = values
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    print(name, json.dumps(values, indent=2))


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--encode", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.search:
        keep("search", simulate(options.documents, options.queries))
        keep("one_query", simulate(max(options.documents // 8, 2 * BLOCK), 1))
        keep("sharded", sharded())
    if options.encode:
        for width in MODELS:
            keep(f"encode_{width}", encode(width))
        keep("tokenise", tokenise())
    if options.table:
        print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
