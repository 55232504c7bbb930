"""The encoder without weights: exact vectors, the same on every machine, and a benchmark by them."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.encode.hashed import HashEncoder
from ranksaga.evaluate.benchmark import benchmark, encode_dataset, rank
from ranksaga.evaluate.metrics import evaluate


def direction(feature: str, dimension: int) -> list[int]:
    """A feature's direction, bit by bit."""
    digest = hashlib.shake_256(f"0|{feature}".encode()).digest(dimension // 8)
    return [1 if byte >> (7 - bit) & 1 else -1 for byte in digest for bit in range(8)]


def test_a_vector_is_the_normalised_sum_of_its_features_directions() -> None:
    # "Cat, cat, cat!" is one word three times; "ab" has the trigrams "<ab" and "ab>" beside it.
    words = HashEncoder(16, trigrams=False).encode_queries(["Cat, cat, cat!"])
    np.testing.assert_array_equal(words[0], np.array(direction("cat", 16), dtype=np.float32) / 4)
    total = np.sum([direction(feature, 16) for feature in ("ab", "<ab", "ab>")], axis=0)
    parts = HashEncoder(16).encode_documents(["ab"])
    np.testing.assert_allclose(parts[0], total / np.sqrt((total**2).sum()), rtol=1e-7)
    # Two words could cancel out, so to an even number of features the empty one is added.
    total = np.sum([direction(feature, 16) for feature in ("ab", "cd", "")], axis=0)
    even = HashEncoder(16, trigrams=False).encode_documents(["ab cd"])
    np.testing.assert_allclose(even[0], total / np.sqrt((total**2).sum()), rtol=1e-7)


@pytest.mark.parametrize("text", ["", "?!", "one two", "दो शब्द", "东京", "\ud800", "a" * 10_000])
def test_every_text_has_a_unit_vector_and_is_no_other(text: str) -> None:
    vectors = HashEncoder(64).encode_queries([text, "another text"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert not np.array_equal(*vectors)


def test_queries_and_documents_of_the_same_words_are_equal_and_progress_is_told() -> None:
    encoder = HashEncoder()
    told: list[int] = []
    queries = encoder.encode_queries(["Sorting a list", "x"], told.append)
    np.testing.assert_array_equal(queries, encoder.encode_documents(["a list (sorting)", "x"]))
    assert told == [2]
    assert encoder.encode_documents([]).shape == (0, 256)


def test_shared_words_and_parts_of_words_bring_texts_together() -> None:
    encoder = HashEncoder()
    query, same, inflected, other = encoder.encode_documents(
        ["sorting lists", "sorting lists quickly", "sorted list", "boundary layer"]
    )
    assert query @ same > query @ inflected > query @ other + 0.2


def test_what_changes_a_vector_changes_the_identity() -> None:
    encoders = [HashEncoder(), HashEncoder(128), HashEncoder(seed=1), HashEncoder(trigrams=False)]
    assert len({encoder.document_identity for encoder in encoders}) == 4
    assert HashEncoder().document_identity == encoders[0].document_identity
    same = encoders[0].encode_documents(["a text"])
    assert abs(float((same @ encoders[2].encode_documents(["a text"]).T).item())) < 0.5


@pytest.mark.parametrize("dimension", [0, -8, 12])
def test_a_dimension_that_cannot_be_is_refused(dimension: int) -> None:
    with pytest.raises(ValueError, match=f"dimension is {dimension}, expected a positive multiple of 8"):
        HashEncoder(dimension)


def test_a_dataset_is_benchmarked_without_torch() -> None:
    texts = ("sort a list", "boundary layer of a wing", "chemistry of water", "list the files")
    dataset = Dataset(
        "made",
        Corpus(("d0", "d1", "d2", "d3"), ("",) * 4, texts),
        Queries(("q0", "q1", "q2"), ("wings and their boundary layers", "water chemistry", "sorting lists")),
        {"test": Qrels.of([(0, 1, 1), (1, 2, 1), (2, 0, 1)])},
    )
    encoder, rows = HashEncoder(), np.arange(3, dtype=np.int32)
    found = benchmark(encoder, dataset, rows, 4)
    assert found.documents[:, 0].tolist() == [1, 2, 0]
    assert evaluate(found, dataset, "test", system="hash").mean("ndcg_at_10") == 1.0
    kept = rank(dataset, encode_dataset(encoder, dataset, rows), rows, 4)
    np.testing.assert_array_equal(found.documents, kept.documents)
    code = "import sys; from ranksaga.encode.hashed import HashEncoder as H; H().encode_queries(['a']); "
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "False"
