"""What a run ran on: versions and hardware, recorded with every result."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

from ranksaga import __version__

__all__ = ["describe_environment"]

PACKAGES = ("torch", "sentence-transformers", "transformers", "numpy", "bm25s")


def describe_environment(*, probe: bool = False) -> dict[str, str]:
    """Facts by name. ``probe`` measures matrix-product rates too, which takes a second."""
    facts = {"ranksaga": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    facts["cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    facts["memory"] = _memory()
    facts["processor"] = _processor()
    import torch

    from ranksaga.kernels.available import kernel_choice

    facts["kernels"] = str(kernel_choice())
    facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if probe:
        from ranksaga.encode.precision import choose_precision, matmul_rate
        from ranksaga.files import cache_home

        device = "cuda" if torch.cuda.is_available() else "cpu"
        for precision in ("fp32", "bf16"):
            facts[f"{precision} matrix products"] = f"{matmul_rate(device, precision) / 1e12:.2f} TFLOP/s"
        facts["precision chosen"] = choose_precision("auto", device)
        facts["cache"] = str(cache_home())
        facts["RANKSAGA_DATASETS"] = os.environ.get("RANKSAGA_DATASETS", "(not set)")
    return facts


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
