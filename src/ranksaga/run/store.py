"""The store of a run: one folder per stage and identity, its done-marker written last.

``<run>/stages/<stage>/<id>/`` holds a stage's inputs (``inputs.json``), its outputs, its log and
``done.json``. The id is the hash of everything that changes the output, so a changed setting makes a
new folder beside the old one, and deleting any folder is always safe. A folder without its marker is
unfinished work: the stage runs again in it and may use what it finds (checkpoints).
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from ranksaga.files import hash_json, read_json, write_json
from ranksaga.profile import enter_stage

__all__ = ["Entry", "Store", "Timing"]

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """The place of one piece of work."""

    stage: str
    label: str
    folder: Path

    @property
    def identity(self) -> str:
        """Hash of the inputs, 16 hex digits."""
        return self.folder.name

    @property
    def done(self) -> bool:
        """Whether the work is complete."""
        return (self.folder / "done.json").is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """What the work reported when it was done; empty before."""
        return dict(read_json(self.folder / "done.json")["summary"]) if self.done else {}

    @property
    def seconds(self) -> float:
        """Wall time that the work took, all attempts."""
        return float(read_json(self.folder / "done.json")["seconds"]) if self.done else 0.0

    @property
    def usd(self) -> float | None:
        """What that cost, in US dollars; none: the machine had no price."""
        value = read_json(self.folder / "done.json").get("usd") if self.done else None
        return None if value is None else float(value)


@dataclass(frozen=True)
class Timing:
    """Wall time of one piece of work, and its US dollars where the machine that did it had a price.

    ``identity`` is the same for views that share the work.
    """

    stage: str
    label: str
    seconds: float
    reused: bool
    identity: str
    usd: float | None


class _Meter:
    """Wall time in which pieces of work go on: an hour of it costs the same however many they are."""

    def __init__(self) -> None:
        self.worked = 0.0
        self._booked = 0.0
        self._open = 0
        self._last = 0.0
        self._lock = Lock()

    def change(self, pieces: int) -> float:
        """So many more go on from now. What rises between two calls is the time of one of the pieces, which shares
        each second with those beside it."""
        with self._lock:
            now = time.perf_counter()
            if self._open:
                self.worked += now - self._last
                self._booked += (now - self._last) / self._open
            self._open, self._last = self._open + pieces, now
            return self._booked


@dataclass
class Store:
    """The stages of one run. ``fresh`` does all of them again; ``price`` is what an hour of all that the run uses
    costs, in US dollars."""

    root: Path
    fresh: bool = False
    on_start: Callable[[str, str, bool], None] | None = None
    price: float | None = None
    timings: list[Timing] = field(default_factory=list)
    _locks: defaultdict[Path, Lock] = field(default_factory=lambda: defaultdict(Lock))
    _began: float = field(default_factory=lambda: time.perf_counter())
    _meter: _Meter = field(default_factory=lambda: _Meter())

    @property
    def seconds_beside(self) -> float:
        """Wall time since the store was opened that went into no piece of work."""
        return max(0.0, time.perf_counter() - self._began - self._meter.worked)

    def entry(self, stage: str, label: str, inputs: dict[str, Any]) -> Entry:
        """The place for work with these inputs; nothing is created."""
        identity = hash_json({"format": FORMAT, "stage": stage, "inputs": inputs})
        return Entry(stage, label, self.root / "stages" / stage / identity)

    def work(self, stage: str, label: str, inputs: dict[str, Any], function: Callable[[Path], dict[str, Any]]) -> Entry:
        """Do the work unless it is done: ``function(folder)`` writes outputs and returns a JSON summary."""
        entry = self.entry(stage, label, inputs)
        # Pieces that are done side by side may be the same one: the second then finds it done.
        with self._locks[entry.folder]:
            return self._do(entry, inputs, function)

    def _do(self, entry: Entry, inputs: dict[str, Any], function: Callable[[Path], dict[str, Any]]) -> Entry:
        reuse = entry.done and not self.fresh
        if self.on_start is not None:
            self.on_start(entry.stage, entry.label, reuse)
        if reuse:
            self.timings.append(Timing(entry.stage, entry.label, entry.seconds, True, entry.identity, entry.usd))
            return entry
        if self.fresh:
            shutil.rmtree(entry.folder, ignore_errors=True)
        entry.folder.mkdir(parents=True, exist_ok=True)
        write_json(entry.folder / "inputs.json", inputs)
        before = self._earlier(entry)
        start, booked = time.perf_counter(), self._meter.change(1)
        try:
            with enter_stage(entry.stage), _log_to(entry.folder / "log.txt"):
                summary = function(entry.folder)
        finally:
            booked = self._meter.change(-1) - booked
            spent = before + time.perf_counter() - start
            write_json(entry.folder / "attempts.json", {"seconds": spent})
        usd = None if self.price is None else (before + booked) * self.price / 3600
        done = {"stage": entry.stage, "label": entry.label, "seconds": spent, "usd": usd, "summary": summary}
        write_json(entry.folder / "done.json", done)
        self.timings.append(Timing(entry.stage, entry.label, spent, False, entry.identity, usd))
        return entry

    @staticmethod
    def _earlier(entry: Entry) -> float:
        """Seconds spent by attempts that did not finish (a killed one leaves no account of itself)."""
        path = entry.folder / "attempts.json"
        return float(read_json(path)["seconds"]) if path.is_file() else 0.0


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Append the library's log to a file while the work goes on."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    library = logging.getLogger("ranksaga")
    level = library.level
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)
        handler.close()
