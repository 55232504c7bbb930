"""Which kernels run: what the user asks for, what the processor has, and what is said about it."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ranksaga.errors import UsageError
from ranksaga.kernels import available
from ranksaga.kernels.available import compiled_kernels, kernel_choice


def with_processor(monkeypatch: pytest.MonkeyPatch, kind: int | None) -> None:
    """A compiled file on a processor with these instructions (0: none of them); none: no file."""
    library = None if kind is None else SimpleNamespace(kernels_kind=lambda: kind)
    monkeypatch.setattr(available, "_library", lambda: library)
    monkeypatch.setattr(available, "_choice", available._choice.__wrapped__)


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("", 2, "AVX-512 BF16: the processor has it; AMX too, which is tested in an emulator only: "),
        ("auto", 2, "AVX-512 BF16: the processor has it; AMX too"),
        ("auto", 1, "AVX-512 BF16: the processor has it"),
        ("auto", 0, "none: the processor has neither AVX-512 BF16 nor AMX"),
        ("auto", None, "none: not compiled; install a C compiler"),
        ("AMX", 2, "AMX: asked for by RANKSAGA_KERNELS=amx"),
        ("amx", 1, "AVX-512 BF16: the processor has no AMX"),
        ("amx", 0, "none: the processor has neither"),
        ("off", 2, "none: switched off by RANKSAGA_KERNELS=off"),
        ("off", None, "none: switched off by RANKSAGA_KERNELS=off"),
    ],
)
def test_what_runs_and_why(mode: str, kind: int | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_processor(monkeypatch, kind)
    monkeypatch.setenv("RANKSAGA_KERNELS", mode)
    assert str(kernel_choice()).startswith(expected)
    kernels = compiled_kernels()
    assert (kernels is None) == expected.startswith("none")
    if kernels is not None:
        assert kernels.name == expected.partition(":")[0]


def test_an_unknown_mode_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSAGA_KERNELS", "On")
    with pytest.raises(UsageError, match=r"^RANKSAGA_KERNELS=On: there is no such mode; set it to auto, amx, off$"):
        compiled_kernels()


def test_a_compiled_file_that_cannot_be_loaded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.delenv("RANKSAGA_KERNELS", raising=False)
    monkeypatch.setattr(available, "_library", broken)
    monkeypatch.setattr(available, "_choice", available._choice.__wrapped__)
    assert "cannot be loaded (libgomp.so.1" in str(kernel_choice())


def test_doctor_and_the_record_of_a_run_say_which_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from ranksaga.run.environment import describe_environment

    monkeypatch.setenv("RANKSAGA_KERNELS", "off")
    assert describe_environment()["kernels"] == "none: switched off by RANKSAGA_KERNELS=off"


def test_the_kernels_run_wherever_the_processor_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of the kernels are skipped where none run: on a processor that has the instructions, this one fails."""
    facts = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not facts.exists() or "avx512_bf16" not in facts.read_text():
        pytest.skip("no processor with AVX-512 BF16")
    monkeypatch.delenv("RANKSAGA_KERNELS", raising=False)
    assert compiled_kernels() is not None, f"{kernel_choice()}: no kernel test has run here"
