"""The compiled attention against torch's own, text by text in float32: what is output, and all gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ranksaga.kernels.available import kernel_choice
from ranksaga.kernels.compiled import KINDS, Kernels

if TYPE_CHECKING:
    import torch

LENGTHS = (1, 31, 32, 33, 2, 100, 256, 17)


def kernels() -> list[Kernels]:
    """Each way of computing that this processor has; AMX machines have both, whatever a user is given."""
    choice = kernel_choice()
    if choice.kernels is None:
        pytest.skip(str(choice))
    assert choice.kernels is not None
    library = choice.kernels._library
    return [Kernels(library, kind) for kind in KINDS if kind <= library.kernels_kind()]


def expected(
    qkv: torch.Tensor, offsets: torch.Tensor, heads: int, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    given = qkv.float().requires_grad_()
    parts = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        query, key, value = given[start:stop].view(stop - start, 3, heads, -1).permute(1, 2, 0, 3)
        parts.append(attention(query[None], key[None], value[None])[0].transpose(0, 1).flatten(1))
    output = torch.cat(parts)
    torch.autograd.backward(output, gradient[: len(output)].float())
    assert given.grad is not None
    return output.detach(), given.grad


@pytest.mark.parametrize(("heads", "depth"), [(12, 32), (12, 64), (3, 40), (4, 8), (2, 128)])
def test_attention_and_its_gradients(heads: int, depth: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(depth)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    size, behind = int(offsets[-1]), 5
    # Keys of twice the usual length: some queries see almost one key alone.
    qkv = (2 * torch.randn(size + behind, 3 * heads * depth, generator=generator)).bfloat16()
    gradient = torch.randn(size + behind, heads * depth, generator=generator).bfloat16()
    wanted, expected_gradient = expected(qkv, offsets, heads, gradient)
    for kernel in kernels():
        log_sum_exp = torch.empty(heads, size)
        output = kernel.attention(qkv, offsets, heads, log_sum_exp)
        back = kernel.attention_backward(qkv, offsets, heads, output, log_sum_exp, gradient)
        # Weights and results are rounded to bf16 once each: 2^-9 of the value at most, a third of it on average.
        assert float((output[:size].float() - wanted).norm() / wanted.norm()) < 0.003, kernel.name
        for found, want in zip(back.chunk(3, dim=1), expected_gradient.chunk(3, dim=1), strict=True):
            assert float((found.float() - want).norm() / want.norm()) < 0.008, kernel.name
        assert not output[size:].any()
        assert not back[size:].any()
        assert torch.equal(output, kernel.attention(qkv, offsets, heads)), "the logarithms are not asked for"


def test_a_text_sees_only_itself() -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, 40, 50])
    qkv = torch.randn(50, 96, generator=generator).bfloat16()
    other = qkv.clone()
    other[40:] += 1
    for kernel in kernels():
        output, changed = kernel.attention(qkv, offsets, 1), kernel.attention(other, offsets, 1)
        assert torch.equal(output[:40], changed[:40])
        assert not torch.equal(output[40:], changed[40:])


def test_scores_far_from_zero_do_not_overflow() -> None:
    import torch

    qkv = torch.full((40, 96), 60.0).bfloat16()  # scores of 20,000
    qkv[7, 32:64] = -60.0
    qkv[:, 64:] = torch.arange(40)[:, None]
    offsets = torch.tensor([0, 40])
    mean = (sum(range(40)) - 7) / 39
    for kernel in kernels():
        torch.testing.assert_close(kernel.attention(qkv, offsets, 1), torch.full((40, 32), mean).bfloat16())


def test_other_layouts_are_refused() -> None:
    import torch

    qkv = torch.zeros(96, 8).bfloat16().t()
    for kernel in kernels():
        with pytest.raises(ValueError, match="contiguous"):
            kernel.attention(qkv, torch.tensor([0, 8]), 1)


def test_other_types_and_sizes_are_refused() -> None:
    import torch

    def half(*shape: int) -> torch.Tensor:
        return torch.zeros(shape).bfloat16()

    ones, offsets = torch.ones(64), torch.tensor([0, 32])
    for kernel in kernels():
        wrong: list[tuple[str, Callable[[Kernels], Any]]] = [
            ("bfloat16 here, not float32", lambda k: k.attention(torch.zeros(32, 96), offsets, 1)),
            ("int64 here, not int32", lambda k: k.attention(half(32, 96), offsets.int(), 1)),
            ("5 heads for a width of 96", lambda k: k.attention(half(32, 96), offsets, 5)),
            ("32 tokens in 31 rows", lambda k: k.attention(half(31, 96), offsets, 1)),
            ("32 rows of gradients for 64", lambda k: k.linear_backward(half(32, 32), half(64, 32))),
            ("bfloat16 here, not float32", lambda k: k.linear_backward(torch.zeros(32, 32), half(32, 32))),
            (r"a gradient \(32, 32\)", lambda k: k.gelu_backward(half(32, 64), half(32, 32))),
            ("float32 here, not bfloat16", lambda k: k.norm(half(32, 64), half(64), half(64), 1e-9)),
            ("64 weights for", lambda k: k.norm(half(32, 96), ones, ones, 1e-9)),
            ("float32 here, not float64", lambda k: k.lengths(np.zeros((2, 32)))),  # type: ignore[arg-type]
        ]
        for message, call in wrong:
            with pytest.raises(ValueError, match=message):
                call(kernel)
        with_int = kernel.norm(half(4, 64) + 1, ones, ones, 1)
        assert torch.equal(with_int, half(4, 64) + 1)


@pytest.mark.parametrize(("rows", "m", "k"), [(32, 32, 64), (384, 160, 96), (1056, 96, 416)])
def test_gradients_of_weights(rows: int, m: int, k: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(rows)
    states, gradient = (torch.randn(rows, size, generator=generator).bfloat16() for size in (k, m))
    wanted, sums = gradient.double().t() @ states.double(), gradient.double().sum(0)
    for kernel in kernels():
        weights, bias = kernel.linear_backward(gradient, states)
        # Nothing is rounded to bf16: the sums are float32's.
        torch.testing.assert_close(weights.double(), wanted, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(bias.double(), sums, rtol=1e-5, atol=1e-4)
        threads = torch.get_num_threads()
        try:
            for other in (1, 3, 7, 12):  # more than there are blocks to share out, too
                torch.set_num_threads(other)
                again = kernel.linear_backward(gradient, states)
                assert torch.equal(again[0], weights), (kernel.name, other)
                assert torch.equal(again[1], bias), (kernel.name, other)
        finally:
            torch.set_num_threads(threads)


def test_products_of_other_sizes_are_refused() -> None:
    import torch

    narrow, broad = torch.zeros(32, 40).bfloat16(), torch.zeros(33, 64).bfloat16()
    for kernel in kernels():
        for states in (narrow, broad):
            with pytest.raises(ValueError, match="multiples of 32"):
                kernel.linear_backward(states, states)


def test_gelu_and_its_gradient() -> None:
    import torch

    states = torch.cat([torch.linspace(-9, 9, 20_001), torch.tensor([0.0, -80.0, 80.0])]).bfloat16()
    gradient = torch.randn(len(states), generator=torch.Generator().manual_seed(0)).bfloat16()
    given = states.float().requires_grad_()
    wanted = torch.nn.functional.gelu(given)
    torch.autograd.backward(wanted, gradient.float())
    assert given.grad is not None
    for kernel in kernels():
        torch.testing.assert_close(kernel.gelu(states).float(), wanted.detach(), rtol=2**-8, atol=2e-5)
        torch.testing.assert_close(kernel.gelu_backward(states, gradient).float(), given.grad, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("width", [384, 40, 7])
def test_layer_norm_and_its_gradients(width: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(width)
    states = (3 + 2 * torch.randn(101, width, generator=generator)).bfloat16()
    states[5] = 1.0  # no deviation at all
    weight, bias = torch.randn(2, width, generator=generator).unbind()
    gradient = torch.randn(101, width, generator=generator).bfloat16()
    given = [one.float().clone().requires_grad_() for one in (states, weight, bias)]
    wanted = torch.nn.functional.layer_norm(given[0], (width,), given[1], given[2], 1e-3)
    torch.autograd.backward(wanted, gradient.float())
    for kernel in kernels():
        moments = torch.empty(101, 2)
        found = kernel.norm(states, weight.contiguous(), bias.contiguous(), 1e-3, moments)
        torch.testing.assert_close(found.float(), wanted.detach(), rtol=2**-8, atol=1e-5)
        back, both = kernel.norm_backward(states, weight.contiguous(), moments, gradient)
        for have, want in zip((back.float(), *both), given, strict=True):
            assert want.grad is not None
            torch.testing.assert_close(have, want.grad, rtol=2**-8, atol=2e-4)
