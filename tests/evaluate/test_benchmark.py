"""The streamed benchmark against the one that keeps all vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import ModelError
from ranksaga.evaluate import benchmark as module
from ranksaga.evaluate.benchmark import benchmark, encode_dataset, rank

DOCUMENTS, QUERIES = 1000, 7


def dataset() -> Dataset:
    names = tuple(f"d{row}" for row in range(DOCUMENTS))
    # A query with a document's id: it must not find itself.
    asked = (*(f"q{row}" for row in range(QUERIES - 1)), "d5")
    corpus = Corpus(names, ("",) * DOCUMENTS, tuple(f"text {row}" for row in range(DOCUMENTS)))
    return Dataset("made", corpus, Queries(asked, asked), {"test": Qrels.of([(row, row, 1) for row in range(QUERIES)])})


def vector_of(text: str) -> NDArray[np.float32]:
    generator = np.random.default_rng(list(text.encode()))
    return generator.standard_normal(16).astype(np.float32)


class Encoder:
    """Random vectors that depend on the text alone; remembers how many texts it was given at once."""

    def __init__(self, fails_at: int | None = None, on_gpu: bool = False) -> None:
        self.on_gpu, self.aside = on_gpu, False
        self.sizes: list[int] = []
        self._fails_at = fails_at

    def encode_queries(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Any:
        return np.stack([vector_of(text) for text in texts])

    def encode_documents(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Any:
        self.aside = threading.current_thread() is not threading.main_thread()
        if len(self.sizes) == self._fails_at:
            raise ModelError("broken")
        self.sizes.append(len(texts))
        if progress is not None:
            progress(len(texts))
        return np.stack([vector_of(text) for text in texts])


@pytest.mark.parametrize("on_gpu", [False, True])
def test_streamed_rankings_are_those_of_all_vectors_at_once(monkeypatch: pytest.MonkeyPatch, on_gpu: bool) -> None:
    made, rows = dataset(), np.arange(QUERIES, dtype=np.int32)
    whole: Any = Encoder()
    expected = rank(made, encode_dataset(whole, made, rows), rows, 50)
    monkeypatch.setattr(module, "BLOCK", 64)
    streamed: Any = Encoder(on_gpu=on_gpu)
    seen = SimpleNamespace(count=0)
    found = benchmark(streamed, made, rows, 50, lambda count: setattr(seen, "count", seen.count + count))
    assert streamed.sizes == [64] * 15 + [40]
    assert streamed.aside is on_gpu
    assert seen.count == DOCUMENTS
    np.testing.assert_array_equal(found.documents, expected.documents)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert 5 not in found.documents[-1]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_an_error_in_a_later_block_is_the_callers(monkeypatch: pytest.MonkeyPatch, on_gpu: bool) -> None:
    monkeypatch.setattr(module, "BLOCK", 64)
    broken: Any = Encoder(fails_at=3, on_gpu=on_gpu)
    with pytest.raises(ModelError, match="broken"):
        benchmark(broken, dataset(), np.arange(QUERIES, dtype=np.int32), 50)
    assert broken.sizes == [64] * 3
