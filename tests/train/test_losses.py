from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ranksaga.train.losses import cross_entropy


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


NOTHING = torch.zeros(2, 3, dtype=torch.bool)


def gradient(of: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    [found] = torch.autograd.grad(of, at, retain_graph=True)
    return found


def test_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]])
    # Logits 2, 0, 1.2 and 0, 2, 1.6.
    first = math.log(math.e**2 + 1 + math.e**1.2) - 2
    total = math.log(1 + math.e**2 + math.e**1.6)
    second = 0.25 * (total - 2) + 0.75 * (total - 1.6)
    assert float(cross_entropy(queries, documents, target, NOTHING, 2.0)) == pytest.approx((first + second) / 2, 1e-6)

    ignore = torch.tensor([[False, False, True], [True, False, False]])
    first = math.log(math.e**2 + 1) - 2
    total = math.log(math.e**2 + math.e**1.6)
    second = 0.25 * (total - 2) + 0.75 * (total - 1.6)
    assert float(cross_entropy(queries, documents, target, ignore, 2.0)) == pytest.approx((first + second) / 2, 1e-6)


def test_an_ignored_document_gets_no_gradient_and_breaks_none() -> None:
    queries, documents = vectors(2, 4).requires_grad_(), vectors(3, 4, seed=1).requires_grad_()
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    ignore = NOTHING.clone()
    ignore[:, 2] = True
    loss = cross_entropy(queries, documents, target, ignore, 20.0)
    assert torch.isfinite(gradient(loss, queries)).all()
    assert gradient(loss, documents)[2].abs().max() == 0
    assert gradient(loss, documents)[:2].abs().min() > 0


def test_equals_multiple_negatives_ranking_loss_and_its_gradient() -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    reference = MultipleNegativesRankingLoss(model=None, scale=20.0)
    columns = [torch.randn(8, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1, 2)]
    for column in columns:
        column.requires_grad_()
    # The reference normalises inside.
    queries, positives, negatives = (torch.nn.functional.normalize(column, dim=1) for column in columns)
    target = torch.cat([torch.eye(8), torch.zeros(8, 8)], dim=1)
    loss = cross_entropy(queries, torch.cat([positives, negatives]), target, torch.zeros(8, 16, dtype=torch.bool), 20.0)
    expected = reference.compute_loss_from_embeddings(columns, torch.zeros(8))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for column in columns:
        np.testing.assert_allclose(gradient(loss, column), gradient(expected, column), atol=1e-5)


def test_soft_targets_have_the_gradient_of_the_kl_divergence() -> None:
    queries, documents = vectors(2, 4).requires_grad_(), vectors(3, 4, seed=1)
    target = torch.softmax(3 * vectors(2, 3, seed=2), dim=1)
    loss = cross_entropy(queries, documents, target, NOTHING, 5.0)
    logs = torch.log_softmax(5.0 * queries @ documents.T, dim=1)
    divergence = torch.nn.functional.kl_div(logs, target, reduction="batchmean")
    np.testing.assert_allclose(gradient(loss, queries), gradient(divergence, queries), atol=1e-6)


def test_the_gradient_is_the_difference_quotient() -> None:
    queries, documents = vectors(2, 4).requires_grad_(), vectors(3, 4, seed=1)
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    found = gradient(cross_entropy(queries, documents, target, NOTHING, 3.0), queries)
    step = torch.zeros(2, 4)
    step[1, 2] = 1e-2
    with torch.no_grad():
        above = cross_entropy(queries + step, documents, target, NOTHING, 3.0)
        below = cross_entropy(queries - step, documents, target, NOTHING, 3.0)
    assert found[1, 2].item() == pytest.approx((above - below).item() / 2e-2, abs=1e-3)


def test_runs_in_float32_under_autocast() -> None:
    queries, documents = vectors(2, 64), vectors(3, 64, seed=1)
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    plain = cross_entropy(queries, documents, target, NOTHING, 20.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = cross_entropy(queries, documents, target, NOTHING, 20.0)
    assert mixed.dtype == torch.float32
    assert float(mixed) == float(plain)
