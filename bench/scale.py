"""Large corpora on this machine: exact search of 8.8 million random vectors, shards, encoding rates, and the table.

python bench/scale.py --search     # streams 8.8M x 384 through the exact search, then shards; minutes
python bench/scale.py --encode     # tokens a second of two shapes of model
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
RESULTS = HERE / "scale.json"
DOCUMENTS, WIDTH, DEPTH = 8_800_000, 384, 1000
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
    from ranksaga.retrieve.merge import merge_rankings, shard_ties
    from ranksaga.retrieve.search import search

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
    options = parser.parse_args()
    if options.search:
        keep("search", simulate(options.documents, options.queries))
        keep("one_query", simulate(options.documents // 8, 1))
        keep("sharded", sharded())


if __name__ == "__main__":
    main()
