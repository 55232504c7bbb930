"""How the texts of a batch lie in tensors: one behind the other, or each in a row of its own, padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike

__all__ = ["Packed", "padded", "padded_length"]

# Lengths that texts are padded to, between one power of two and the next: more cost batches, fewer cost padding.
LENGTHS_PER_OCTAVE = 16


@dataclass(frozen=True)
class Packed:
    """Texts one behind the other.

    Attributes:
        ids: (t,) int64, the tokens.
        offsets: (n + 1,) int64, text i has the tokens ``offsets[i]`` to ``offsets[i + 1]``.
        places: (t,) int64, the place of each token in its text.
    """

    ids: torch.Tensor
    offsets: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(cls, tokens: Sequence[ArrayLike]) -> Packed:
        """``tokens``: the token ids of each text."""
        import torch

        rows = [np.asarray(row, dtype=np.int64) for row in tokens]
        lengths = np.array([len(row) for row in rows])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return cls(*(torch.from_numpy(one) for one in (np.concatenate(rows), offsets, places)))

    def positions(self, pad: int | None) -> torch.Tensor:
        """(t,) int64, what a model's table of positions is asked for.

        BERT counts from 0; RoBERTa, where ``pad`` is its padding index, from behind that, and passes over paddings
        that stand in a text itself.
        """
        import torch

        if pad is None:
            return self.places
        real = self.ids != pad
        counted = real.cumsum(0)
        before = torch.cat([counted.new_zeros(1), counted])[self.offsets[:-1]]
        return (counted - before.repeat_interleave(self.offsets.diff())) * real + pad

    def features(self, states: torch.Tensor) -> dict[str, Any]:
        """Token vectors (t or more, d) as sentence-transformers' ``Pooling`` takes them, float32."""
        return {"token_embeddings": states[None, : len(self.ids)].float(), "cu_seq_lens_q": self.offsets}


def padded_length(length: int, limit: int) -> int:
    """The number of tokens that a text of so many is padded to: 2% more on average, at most ``limit``.

    A function of the text alone. The last bits of a vector depend on the length that attention sums over, so a text
    padded to the longest of its batch would get another vector in other company.
    """
    step = max(1, (1 << length.bit_length() - 1) // LENGTHS_PER_OCTAVE) if length else 1
    # Behind the limit a table of positions may have no rows.
    return max(length, min(-(-length // step) * step, limit))


def padded(tokens: Sequence[ArrayLike], tokenizer: Any, length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (n, l) int64, padded on the side that the tokenizer says.

    ``length``: l, not below the longest text; none: that of the longest text.
    """
    import torch

    rows = [np.asarray(row, dtype=np.int64) for row in tokens]
    longest = max(map(len, rows)) if length is None else length
    ids = np.full((len(rows), longest), tokenizer.pad_token_id or 0, dtype=np.int64)
    mask = np.zeros_like(ids)
    left = tokenizer.padding_side == "left"
    for row, values in enumerate(rows):
        place = slice(longest - len(values), None) if left else slice(0, len(values))
        ids[row, place] = values
        mask[row, place] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
