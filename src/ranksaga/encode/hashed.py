"""A model without weights: texts that share words and parts of words have similar vectors.

Each feature of a text (a word, or three characters of one) is hashed to a fixed direction, and a text's vector is the
sum of its features' directions. No training, no file and no torch: a dataset of a thousand documents is encoded in
milliseconds, and every machine computes the same bits. For tests and rehearsals; as a retriever it is a weak baseline.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ranksaga.data.words import tokens
from ranksaga.encode.encoder import EncoderSpec
from ranksaga.encode.prompts import Prompts
from ranksaga.encode.text_input import UNLIMITED
from ranksaga.files import hash_json

__all__ = ["HashEncoder"]

VERSION = 1  # raise it when a text gets another vector
NGRAM = 3


class HashEncoder:
    """Encodes texts by their hashed words and character trigrams, without any model.

    It can be benchmarked and searched like :class:`ranksaga.encode.encoder.Encoder`; it cannot be trained.

    Args:
        dimension: of the vectors; a multiple of 8.
        seed: encoders of different seeds share no direction.
        trigrams: whether parts of words count beside whole words, so that "sorting" resembles "sorted".

    Raises:
        ValueError: a dimension that is not a positive multiple of 8.
    """

    on_gpu = False
    device = "cpu"

    def __init__(self, dimension: int = 256, *, seed: int = 0, trigrams: bool = True) -> None:
        if dimension <= 0 or dimension % 8:
            raise ValueError(f"dimension is {dimension}, expected a positive multiple of 8")
        self._dimension = dimension
        self._seed = seed
        self._trigrams = trigrams
        self._known: dict[str, NDArray[np.int64]] = {}
        self.spec = EncoderSpec(
            model=f"hash-{dimension}",
            revision=hash_json([VERSION, dimension, seed, trigrams]),
            prompts=Prompts(),
            max_length=UNLIMITED,
            precision="fp32",
            similarity="cosine",
        )

    @property
    def document_identity(self) -> str:
        """Hash of all that changes a document's vector."""
        return self.spec.identity

    def encode_queries(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors (n, d) float32 of queries."""
        return self.encode_documents(texts, progress)

    def encode_documents(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors (n, d) float32 of documents; a text equals a query of the same words."""
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            counts = Counter(self._features(text))
            total = sum(count * self._direction(feature) for feature, count in counts.items())
            # Integers up to here, so no order of summation and no processor changes a bit.
            vectors[row] = total / np.sqrt(np.dot(total, total))
        if progress is not None:
            progress(len(texts))
        return vectors

    def _features(self, text: str) -> list[str]:
        features: list[str] = []
        for word in tokens(text):
            features.append(word)
            if self._trigrams:
                padded = f"<{word}>"
                features += [padded[start : start + NGRAM] for start in range(len(padded) - NGRAM + 1)]
        # A sum of an odd number of -1 and 1 is never 0, so no text has the zero vector.
        return features if len(features) % 2 else [*features, ""]

    def _direction(self, feature: str) -> NDArray[np.int64]:
        """(d,) of -1 and 1, from the feature's hash."""
        if feature not in self._known:
            salted = f"{self._seed}|{feature}".encode("utf-8", "surrogatepass")
            digest = hashlib.shake_256(salted).digest(self._dimension // 8)
            bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))
            self._known[feature] = bits.astype(np.int64) * 2 - 1
        return self._known[feature]
