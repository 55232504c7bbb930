"""Memory that tensors free is kept for the next ones, unless the user's own settings say otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ranksaga import memory

# Pages that the system has to fill when several tensors are freed and others of their size are made: tensors of 38 MiB,
# which glibc left to itself never keeps.
PASSES = """
import resource, torch
from ranksaga.memory import keep_memory, return_memory
keep_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.empty(10_000_000).fill_(1.0) for _ in range(6)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def held():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 2**20
for _ in range(8): faults()
print(faults())
kept = held()
return_memory()
print(kept - held())
"""


def passes(**settings: str) -> tuple[int, float]:
    """Faults of the fourth pass, and the MiB given back at the end."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    done = subprocess.run(
        [sys.executable, "-c", PASSES], env={**plain, **settings}, capture_output=True, text=True, check=True
    )
    faults, returned = done.stdout.split()
    return int(faults), float(returned)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_freed_memory_is_kept_until_it_is_returned() -> None:
    faults, returned = passes()
    assert faults < 1000  # of 58,000 pages
    assert returned > 100
    theirs, _ = passes(MALLOC_TRIM_THRESHOLD_="1000000")
    assert theirs > 10000


@pytest.mark.parametrize(("most", "expected"), [(1 << 40, [256 << 20]), (32 << 20, [256 << 20, 32 << 20]), (0, None)])
def test_older_versions_are_asked_for_less(
    most: int, expected: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(what: int, size: int) -> int:
        asked.append((what, size))
        return int(what != memory.M_MMAP_THRESHOLD or size <= most)

    monkeypatch.setattr(memory, "_glibc", lambda: SimpleNamespace(mallopt=mallopt))
    memory.keep_memory.__wrapped__()
    thresholds = [size for what, size in asked if what == memory.M_MMAP_THRESHOLD]
    trims = [size for what, size in asked if what == memory.M_TRIM_THRESHOLD]
    # One setting alone would end the library's own adjusting of the other.
    assert (thresholds, len(trims)) == ((expected, 1) if expected else ([256 << 20, 32 << 20], 0))
