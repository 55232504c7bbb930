"""What docs/reliability.md says that checks cost: `python bench/costs.py`, half a minute with the packaged MiniLM."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

TEXTS, WIDTH = 4096, 384
LONG = 52 << 20  # characters of one document


def per_item(work: Callable[[], object], items: int) -> float:
    """Least microseconds an item over five runs."""
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return 1e6 * min(seconds) / items


def main() -> None:
    """Print a line a cost."""
    from ranksaga import load_encoder
    from ranksaga.encode.cache import _checksums_of, _keys_of

    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{number}" for number in rng.integers(0, 9999, 60)) for _ in range(TEXTS)]
    keys, vectors = _keys_of(texts), rng.random((TEXTS, WIDTH), dtype=np.float32)
    print(f"checksum of a vector of {WIDTH} numbers: {per_item(lambda: _checksums_of(keys, vectors), TEXTS):.1f} µs")
    print(f"key of a text of 60 words: {per_item(lambda: _keys_of(texts), TEXTS):.1f} µs")
    encoder = load_encoder("minilm", precision="fp32", device="cpu")
    encoder.encode_documents(texts[:64])
    some = texts[64:320]
    print(f"encoding such a text, MiniLM, fp32: {per_item(lambda: encoder.encode_documents(some), len(some)):,.0f} µs")
    document = "word " * (LONG // 5)
    tracemalloc.start()
    begin = time.perf_counter()
    encoder._document._tokenize([document])
    seconds, (_, most) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
    print(f"tokenising a text of {LONG >> 20} MiB: {1000 * seconds:.0f} ms, {most / 2**20:.1f} MiB of Python's memory")


if __name__ == "__main__":
    main()
