"""How a batch's texts lie in tensors, by hand, and what the library's pooling makes of both layouts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ranksaga.encode.batch_layout import Packed, padded, padded_length

TOKENS = [[7, 8], [4, 5, 6], [9]]


def test_packed_by_hand() -> None:
    texts = Packed.of([np.array(row, dtype=np.int32) for row in TOKENS])
    assert texts.ids.tolist() == [7, 8, 4, 5, 6, 9]
    assert texts.offsets.tolist() == [0, 2, 5, 6]
    assert texts.places.tolist() == [0, 1, 0, 1, 2, 0]


def test_positions_by_hand() -> None:
    texts = Packed.of([[7, 1, 8], [1, 5]])
    assert texts.positions(None).tolist() == [0, 1, 2, 0, 1]
    assert texts.positions(1).tolist() == [2, 1, 3, 1, 2]  # as transformers' create_position_ids_from_input_ids


@pytest.mark.parametrize(
    ("side", "expected"), [("right", [[7, 8, 3], [4, 5, 6], [9, 3, 3]]), ("left", [[3, 7, 8], [4, 5, 6], [3, 3, 9]])]
)
def test_padded_by_hand(side: str, expected: list[list[int]]) -> None:
    ids, mask = padded(TOKENS, SimpleNamespace(padding_side=side, pad_token_id=3))
    assert ids.tolist() == expected
    assert mask.tolist() == [[int(value != 3) for value in row] for row in expected]


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
def test_pooled_alike(mode: str) -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    states = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))  # two rows more than there are tokens
    _, mask = padded(TOKENS, SimpleNamespace(padding_side="right", pad_token_id=0))
    rows = torch.zeros(3, 3, 4)
    rows[mask == 1] = states[:6]
    pool = Pooling(4, pooling_mode=mode)
    expected = pool({"token_embeddings": rows, "attention_mask": mask})["sentence_embedding"]
    found = pool(Packed.of(TOKENS).features(states))["sentence_embedding"]
    torch.testing.assert_close(found, expected)


def test_a_text_is_padded_by_its_own_length_alone() -> None:
    lengths = [0, 1, 16, 31, 32, 33, 64, 65, 127, 250, 255, 256, 257, 510, 512]
    rounded = [0, 1, 16, 31, 32, 34, 64, 68, 128, 256, 256, 256, 272, 512, 512]
    assert [padded_length(one, 10**30) for one in lengths] == rounded
    assert [padded_length(one, 250) for one in (249, 250, 251)] == [250, 250, 251]
    tokenizer = SimpleNamespace(pad_token_id=3, padding_side="left")
    assert padded([[7, 8]], tokenizer, 4)[0].tolist() == [[3, 3, 7, 8]]
