"""Identity of weights without a journey to the CPU."""

from __future__ import annotations

import numpy as np
import torch

from ranksaga.encode.fingerprint import CHUNK, STEP, fingerprint


def by_hand(values: list[float]) -> bytes:
    """The definition in Python's integers."""
    keys = [int(key) for key in np.random.PCG64(0).random_raw(2 * CHUNK)]
    words = [int(word) for word in np.array(values, dtype=np.float32).view(np.int32)]
    totals = [0, 0]
    for row in (0, 1):
        for start in range(0, len(words), CHUNK):
            chunk = words[start : start + CHUNK]
            products = sum(word * keys[row * CHUNK + place] for place, word in enumerate(chunk))
            totals[row] = totals[row] * STEP + products
    return b"".join((total % 2**64).to_bytes(8, "little") for total in totals)


def test_by_hand() -> None:
    values = [1.0, -2.5, 0.0, 3e38]
    assert fingerprint([torch.tensor(values)]) == by_hand(values)
    assert fingerprint([torch.tensor(values).view(2, 2).T.contiguous().T]) == by_hand(values)
    assert fingerprint([]) == b""
    many = np.random.default_rng(0).standard_normal(CHUNK + 3).tolist()
    assert fingerprint([torch.tensor(many), torch.tensor(values)]) == by_hand(many) + by_hand(values)


def test_every_bit_and_every_place_counts() -> None:
    values = torch.randn(2 * CHUNK + 5, generator=torch.Generator().manual_seed(0))
    seen = {fingerprint([values])}
    for place in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 4):
        for bit in (0, 15, 16, 30, 31):
            changed = values.clone()
            changed.view(torch.int32)[place] ^= -(2**31) if bit == 31 else 1 << bit
            seen.add(fingerprint([changed]))
    swapped = values.clone()
    swapped[[3, 3 + CHUNK]] = swapped[[3 + CHUNK, 3]]  # the same place of two chunks
    seen.add(fingerprint([swapped]))
    assert len(seen) == 22


def test_types_count_by_their_values() -> None:
    values = torch.tensor([1.0, -2.5])
    assert fingerprint([values.bfloat16()]) == fingerprint([values]) != fingerprint([values + 1])
    assert fingerprint([torch.arange(3)]) == fingerprint([torch.arange(3, dtype=torch.int32)])
    # As float32 these two would be one number.
    assert fingerprint([torch.tensor([2**24])]) != fingerprint([torch.tensor([2**24 + 1])])
