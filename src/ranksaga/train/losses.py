"""The loss: cross-entropy of the model's similarities against a target distribution.

With one-hot targets this is InfoNCE with in-batch negatives (van den Oord et al. 2018;
MultipleNegativesRankingLoss of sentence-transformers). With a teacher's probabilities its
gradient is that of the KL divergence (they differ by the teacher's entropy, a constant). False
negatives are taken out of the distribution, as in DPR-style debiasing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["cross_entropy"]


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
