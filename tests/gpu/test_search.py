"""Search on a stand-in for a GPU: the CPU's rankings, and one wait for a tile of documents and queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ranksaga.retrieve import search as module
from ranksaga.retrieve.search import search


def test_rankings_are_the_cpus_and_a_tile_waits_once(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE", 256)
    monkeypatch.setattr(module, "_QUERIES_AT_ONCE", {"cpu": 64, "cuda": 64})
    rng = np.random.default_rng(0)
    documents = rng.standard_normal((1000, 16), dtype=np.float32)
    documents[500:520] = documents[3]  # equal scores
    queries = rng.standard_normal((100, 16), dtype=np.float32)
    rows = np.arange(100, dtype=np.int32)
    ties = rng.permutation(1000).astype(np.int32)
    own = np.where(rows % 3 == 0, rows, -1).astype(np.int32)
    there, here = (
        search(queries, [(0, documents)], query_rows=rows, ties=ties, depth=20, exclude=own, device=device)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_array_equal(there.documents, here.documents)
    np.testing.assert_array_equal(there.scores, here.scores)
    assert gpu.waits == {
        "tolist at retrieve/best_documents.py:_where": 4 * 2,
        "copy to the CPU at retrieve/best_documents.py:sorted": 1,
    }
