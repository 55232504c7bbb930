"""The stand-in has the rules of a GPU: what would fail there fails here, and what waits is counted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch


def test_devices_do_not_mix(gpu: Any) -> None:
    there, here = torch.ones(3).to("cuda"), torch.ones(3)
    assert (there.device.type, here.device.type) == ("cuda", "cpu")
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there.add_(here), lambda: here @ there):
        with pytest.raises(RuntimeError, match="same device"):
            mix()  # type: ignore[no-untyped-call]
    # A number is no tensor of the CPU, and a tensor that holds one number counts as one.
    assert (there + 1.0).device.type == (there + torch.tensor(1.0)).device.type == "cuda"
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert gpu.waited == 0


def test_results_views_and_copies_stay_there(gpu: Any) -> None:
    layer = torch.nn.Linear(4, 2).to("cuda")
    output = layer(torch.zeros(5, 4, device="cuda"))
    for one in (
        output,
        output[1:],
        output.T,
        copy.deepcopy(layer).weight,
        output.new_zeros(2),
        torch.ones_like(output),
    ):
        assert one.device == torch.device("cuda:0")
    output.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.device.type == "cuda"
    assert gpu.waited == 0


def test_what_waits_is_counted(gpu: Any) -> None:
    there = torch.arange(4.0).to("cuda")
    for number, wait in enumerate(
        (
            lambda: float(there[0]),
            lambda: bool((there > 0).any()),
            lambda: there.nonzero(),
            lambda: there[there > 1],
            lambda: there.cpu(),
            lambda: there.tolist(),
            lambda: there.equal(there + 1),
        ),
        start=1,
    ):
        wait()  # type: ignore[no-untyped-call]
        assert gpu.waited == number, gpu.waits
    with torch.inference_mode():
        int(there[0])
    assert gpu.waited == number + 1


def test_copies_are_counted(gpu: Any) -> None:
    torch.ones(8).to("cuda")
    torch.ones(8).pin_memory().to("cuda", non_blocking=True)
    assert (gpu.uploads, gpu.unpinned) == ([32, 32], 1)
