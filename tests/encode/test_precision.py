"""The choice of a precision: the same in every run, whatever else the machine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ranksaga.encode import precision


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    precision._gain.cache_clear()
    yield
    precision._gain.cache_clear()


def without_kernels(monkeypatch: pytest.MonkeyPatch, plain: list[float], half: list[float]) -> None:
    """A processor without instructions for bf16, whose products take these seconds in turn."""
    times = {"fp32": iter(plain), "bf16": iter(half)}

    def timer(device: str, kind: str) -> tuple[Callable[[], float], int]:
        return lambda: next(times[kind]), 1024

    monkeypatch.setattr(precision, "compiled_kernels", lambda: None)
    monkeypatch.setattr(precision, "_timer", timer)
    monkeypatch.setattr(precision, "_lacks_bf16", lambda: False)


@pytest.mark.parametrize(("half", "chosen"), [(0.5, "bf16"), (0.6, "bf16"), (0.7, "fp32"), (2.0, "fp32")])
def test_bf16_has_to_be_faster(monkeypatch: pytest.MonkeyPatch, half: float, chosen: str) -> None:
    without_kernels(monkeypatch, [1.0] * 7, [half] * 7)
    assert precision.choose_precision("auto", "cpu") == chosen


def test_a_pause_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    # Best times of both would say 1.1: fp32's are undisturbed, three of bf16's met something else.
    without_kernels(monkeypatch, [1.0] * 7, [0.9, 0.5, 0.9, 0.5, 0.5, 3.0, 0.5])
    assert precision.choose_precision("auto", "cpu") == "bf16"
    # And a slow while of the whole machine slows both.
    precision._gain.cache_clear()
    without_kernels(monkeypatch, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0], [0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5])
    assert precision.choose_precision("auto", "cpu") == "bf16"


def test_instructions_for_bf16_settle_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_kernels(monkeypatch, [], [])
    monkeypatch.setattr(precision, "compiled_kernels", lambda: object())
    assert precision.choose_precision("auto", "cpu") == "bf16"


@pytest.mark.parametrize(
    ("machine", "capability", "timed"),
    [("x86_64", "AVX2", False), ("AMD64", "DEFAULT", False), ("x86_64", "AVX512", True), ("aarch64", "DEFAULT", True)],
)
def test_a_processor_known_to_have_no_bf16_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, machine: str, capability: str, timed: bool
) -> None:
    import torch

    asked = precision._lacks_bf16
    without_kernels(monkeypatch, [1.0] * 7, [0.5] * 7)
    monkeypatch.setattr(precision, "_lacks_bf16", asked)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert precision.choose_precision("auto", "cpu") == ("bf16" if timed else "fp32")


def test_what_is_wanted_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    without_kernels(monkeypatch, [], [])
    assert precision.choose_precision("fp32", "cpu") == "fp32"
    assert precision.choose_precision("auto", "mps") == "fp32"


def test_a_rate_is_of_this_machine() -> None:
    seconds, size = precision._timer("cpu", "fp32")
    assert size == 1024
    assert seconds() > 0
    assert 1e8 < precision.matmul_rate("cpu", "fp32") < 1e15


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [
        ((9, 0), "bf16"),  # H100
        ((8, 6), "bf16"),  # A10G
        ((8, 0), "bf16"),  # A100
        ((7, 5), "fp16"),  # T4
        ((7, 0), "fp16"),  # V100
        ((6, 0), "fp32"),  # P100
    ],
)
def test_the_generation_of_a_gpu_settles_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str
) -> None:
    without_kernels(monkeypatch, [], [])
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert precision.choose_precision("auto", "cuda:0") == chosen
    assert precision.choose_precision("bf16", "cuda:0") == "bf16"
