"""The loss: cross-entropy of the model's similarities against a target distribution.

With one-hot targets this is InfoNCE with in-batch negatives (van den Oord et al. 2018;
MultipleNegativesRankingLoss of sentence-transformers). With a teacher's probabilities its
gradient is that of the KL divergence (they differ by the teacher's entropy, a constant). False
negatives are taken out of the distribution, as in DPR-style debiasing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.device_copies import sent
from ranksaga.train.batches import Bank, Batch

if TYPE_CHECKING:
    import torch

__all__ = ["BatchLoss", "cross_entropy"]

# Most banks that stay on a GPU: as many datasets as this are trained on without sending one again.
BANKS = 16


def cross_entropy(
    queries: torch.Tensor, documents: torch.Tensor, target: torch.Tensor, ignore: torch.Tensor, scale: float
) -> torch.Tensor:
    """``-sum(target * log_softmax(scale * q d^T))``, mean over the queries, in float32.

    Args:
        queries: (b, d) vectors; unit vectors for the cosine.
        documents: (n, d) vectors.
        target: (b, n) float32; each row a distribution, or a sum of several, weighed.
        ignore: (b, n) bool; True: the document is no candidate of the query. Nowhere that the
            target is above 0.
        scale: inverse temperature.
    """
    import torch

    with torch.autocast(queries.device.type, enabled=False):
        logits = scale * (queries.float() @ documents.float().T)
        logs = torch.log_softmax(logits.masked_fill(ignore, float("-inf")), dim=1)
        # 0 * -inf is NaN: what is ignored must leave the sum, not only weigh nothing.
        return -(target * logs.masked_fill(ignore, 0.0)).sum(dim=1).mean()


class BatchLoss:
    """The loss of a batch over its documents and, where it has one, over a bank.

    Args:
        scale: inverse temperature, of batches that bring none.
        device: where the vectors lie.
    """

    def __init__(self, scale: float, device: torch.device) -> None:
        self._scale = scale
        self._device = device
        self._banks: dict[int, tuple[NDArray[np.float32], torch.Tensor]] = {}

    def __call__(self, vectors: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss, a tensor without a dimension, of (b + n, d) vectors: the batch's queries, then its documents."""
        target, ignore = (sent(array, self._device) for array in (batch.target, batch.ignore))
        count = len(batch.queries)
        queries, documents = vectors[:count], vectors[count:]
        loss = vectors.new_zeros(())
        scale = self._scale if batch.scale is None else batch.scale
        if len(documents):
            loss = loss + cross_entropy(queries, documents, target, ignore, scale)
        if batch.bank is not None:
            loss = loss + self._over_bank(queries, documents, batch.bank, scale)
        return loss

    def _over_bank(self, queries: torch.Tensor, documents: torch.Tensor, bank: Bank, scale: float) -> torch.Tensor:
        """Against the corpus as the base model encoded it, and what holds the batch's documents near that."""
        import torch

        base_vectors = self._resident(bank.documents)
        target, ignore = (sent(array, self._device) for array in (bank.target, bank.ignore))
        loss = cross_entropy(queries, base_vectors, target, ignore, scale)
        if not len(documents):
            return loss
        before = base_vectors[sent(bank.live, self._device)]
        similarity = torch.nn.functional.cosine_similarity(documents[: len(bank.live)], before, dim=1)
        return loss + bank.anchor * (1.0 - similarity).mean()

    def _resident(self, documents: NDArray[np.float32]) -> torch.Tensor:
        """A bank on the device. The same array is sent once: that of a dataset is the same in all of its batches."""
        known = self._banks.pop(id(documents), None)
        if known is None:
            known = documents, sent(documents, self._device)
        self._banks[id(documents)] = known  # the latest stand last
        if len(self._banks) > BANKS:
            del self._banks[next(iter(self._banks))]
        return known[1]
