"""The best documents so far of many queries, kept on the device that scores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranksaga.retrieve.sort_keys import NOTHING

if TYPE_CHECKING:
    import torch

__all__ = ["BestDocuments", "score_keys"]


class BestDocuments:
    """The best results so far of every query, as unsorted keys (see ``order``), on the device.

    Queries behind ``real`` are padding and get no results.
    """

    def __init__(self, queries: int, real: int, depth: int, device: torch.device) -> None:
        import torch

        self.keys = torch.full((queries, depth), NOTHING, dtype=torch.int64, device=device)
        # What a score must reach. The least finite number lets all pass but -inf, which is no result.
        self.thresholds = torch.full((queries, 1), torch.finfo(torch.float32).min, device=device)
        self.thresholds[real:] = float("inf")
        self._begun: set[int] = set()  # first rows of the slices that have seen a tile

    def update(self, rows: slice, scores: torch.Tensor, tie_keys: torch.Tensor, mask: torch.Tensor) -> None:
        """Merge scores (queries, m) of m further documents.

        ``tie_keys`` (m,) is the lower half of their keys, ``mask`` room for a flag a score.
        """
        import torch

        kept, thresholds = self.keys[rows], self.thresholds[rows]
        depth, width = kept.shape[1], scores.shape[1]
        if depth == 0:
            return
        if width > depth and rows.start not in self._begun:
            # The first tile would pass whole. Its own k-th score is a lower bound of the final one.
            torch.maximum(thresholds, scores.topk(depth, sorted=False).values.amin(dim=1, keepdim=True), out=thresholds)
        self._begun.add(rows.start)
        # Equal to the threshold passes: there the tie rank decides.
        passed, counts, most = _where(torch.ge(scores, thresholds, out=mask[: scores.numel()].view(scores.shape)))
        if most == 0:
            return
        query = passed // width
        keys = score_keys(scores.view(-1)[passed]) | tie_keys[passed - query * width]
        place = torch.arange(depth, depth + len(passed), device=passed.device) - (counts.cumsum(0) - counts)[query]
        pool = torch.full((len(kept), depth + most), NOTHING, device=passed.device)
        pool[:, :depth] = kept
        pool[query, place] = keys
        torch.topk(pool, depth, sorted=False, out=(kept, torch.empty_like(kept)))
        worst = kept.amin(dim=1, keepdim=True)
        torch.where(worst == NOTHING, thresholds, _scores_of(worst), out=thresholds)

    def sorted(self, queries: int) -> NDArray[np.int64]:
        """The keys of the first queries, best first."""
        keys: NDArray[np.int64] = self.keys[:queries].sort(dim=1, descending=True).values.cpu().numpy()
        return keys


def _where(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Flat positions of the true values, ascending; how many each row has, and the most that one has.

    A GPU is waited for once. On a CPU NumPy's search is several times faster than torch's.
    """
    import torch

    if mask.device.type == "cpu":
        passed = torch.from_numpy(np.flatnonzero(mask.numpy()))
        counts = torch.bincount(passed // mask.shape[1], minlength=len(mask))
        return passed, counts, int(counts.max()) if len(passed) else 0
    counts = mask.sum(dim=1)
    total, most = torch.stack([counts.sum(), counts.max()]).tolist()
    return mask.view(-1).nonzero_static(size=total)[:, 0], counts, most


def score_keys(scores: torch.Tensor) -> torch.Tensor:
    """Upper half of the keys of finite scores, as ``order.encode_keys`` makes it."""
    import torch

    bits = (scores + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32


def _scores_of(keys: torch.Tensor) -> torch.Tensor:
    """The scores that keys hold."""
    import torch

    ordered = (keys >> 32).int()
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
