"""Where the time of a run goes: seconds and floating-point operations by stage and part, of this process.

Off unless asked for (``ranksaga run --profile``). Parts do not overlap: what a part spends inside another is taken
off the outer one, so the parts of a stage add up to its time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Profile", "Spent", "enter_stage", "profiled", "timed"]

REST = "other"


@dataclass(frozen=True)
class Spent:
    """What one part of one stage took: seconds, and the operations of its matrix products (0: not counted)."""

    stage: str
    part: str
    seconds: float
    flops: float


@dataclass
class Profile:
    """The account of a run; several threads may write to it."""

    _seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    _flops: dict[tuple[str, str], float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stage: str, part: str, seconds: float, flops: float) -> None:
        """Book what was spent."""
        with self._lock:
            key = stage, part
            self._seconds[key] = self._seconds.get(key, 0.0) + seconds
            self._flops[key] = self._flops.get(key, 0.0) + flops

    @property
    def spent(self) -> tuple[Spent, ...]:
        """All parts by stage, in the order in which they were first entered."""
        return tuple(Spent(*key, seconds, self._flops[key]) for key, seconds in self._seconds.items())

    def table(self, peak: float | None) -> str:
        """For people; ``peak`` in FLOP/s adds the share of it that was reached."""
        total = sum(one.seconds for one in self.spent)
        lines = [f"{'stage':10s}  {'part':22s}  {'seconds':>8s}  {'share':>6s}  {'GFLOP/s':>8s}  {'of peak':>7s}"]
        for one in self.spent:
            rate = one.flops / one.seconds if one.flops and one.seconds else 0.0
            figures = f"{rate / 1e9:8.0f}" if rate else " " * 8
            figures += f"  {rate / peak:7.0%}" if rate and peak else ""
            share = one.seconds / total if total else 0.0
            lines.append(f"{one.stage:10s}  {one.part:22s}  {one.seconds:8.1f}  {share:6.1%}  {figures}".rstrip())
        return "\n".join(lines)


@dataclass
class _Frame:
    """An open part: where to book it, and what parts inside it took."""

    stage: str
    part: str
    inner: float = 0.0


_active: list[Profile] = []
_open = threading.local()


@contextmanager
def profiled() -> Iterator[Profile]:
    """Keep an account of what happens inside."""
    profile = Profile()
    _active.append(profile)
    try:
        yield profile
    finally:
        _active.remove(profile)


@contextmanager
def enter_stage(name: str) -> Iterator[None]:
    """All parts inside belong to this stage; what no part claims is ``other``."""
    with _booked(name, REST, 0.0):
        yield


@contextmanager
def timed(name: str, flops: float = 0.0) -> Iterator[None]:
    """One part of the stage that is going on; ``flops`` are the operations of its matrix products."""
    frames: list[_Frame] = getattr(_open, "frames", [])
    with _booked(frames[-1].stage if frames else "-", name, flops):
        yield


@contextmanager
def _booked(stage: str, name: str, flops: float) -> Iterator[None]:
    if not _active:
        yield
        return
    frames: list[_Frame] = _open.__dict__.setdefault("frames", [])
    frame = _Frame(stage, name)
    frames.append(frame)
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        frames.pop()
        if frames:
            frames[-1].inner += seconds
        _active[-1].add(stage, name, seconds - frame.inner, flops)
