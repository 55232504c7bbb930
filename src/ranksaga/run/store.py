"""The store of a run: one folder per stage and identity, its done-marker written last.

``<run>/stages/<stage>/<id>/`` holds a stage's inputs (``inputs.json``), its outputs, its log and
``done.json``. The id is the hash of the inputs (:class:`ranksaga.run.stage.Inputs`), so a changed setting makes a
new folder beside the old one, and deleting any folder is always safe. A folder without its marker is
unfinished work: the stage runs again in it and may use what it finds (checkpoints). The marker has the
size and hash of every output and a checksum of its own; where one of them differs, the stage runs again from nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from ranksaga.files import (
    file_record,
    files_below,
    first_changed,
    read_checked_json,
    remove,
    sync,
    write_checked_json,
    write_json,
)
from ranksaga.profile import enter_stage
from ranksaga.run.stage import Inputs, Summary

__all__ = ["NOT_OUTPUTS", "Entry", "NotDone", "Store", "Survey", "Timing"]

logger = logging.getLogger(__name__)

Given = TypeVar("Given", bound=Inputs)

DONE = "done.json"
FORMAT = 2  # of the marker; another release's is not believed, and its work is done again
NOT_OUTPUTS = (DONE, "inputs.json", "attempts.json", "log.txt")


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
        """Whether the work is complete, by its marker; :attr:`sound` looks at the outputs."""
        return self._stored is not None

    @property
    def summary(self) -> dict[str, Any]:
        """What the work reported when it was done; empty before."""
        return dict(stored["summary"]) if (stored := self._stored) is not None else {}

    @property
    def seconds(self) -> float:
        """Wall time that the work took, all attempts."""
        return float(stored["seconds"]) if (stored := self._stored) is not None else 0.0

    @property
    def usd(self) -> float | None:
        """What that cost, in US dollars; none: the machine had no price."""
        value = stored.get("usd") if (stored := self._stored) is not None else None
        return None if value is None else float(value)

    @property
    def sound(self) -> bool:
        """Whether the work is complete and every output is as it was written."""
        return self.damage is None

    @property
    def damage(self) -> str | None:
        """The first file that is missing or not as it was written; ``None``: the work is complete and sound."""
        stored = self._stored
        return DONE if stored is None else first_changed(self.folder, stored["files"])

    @property
    def _stored(self) -> dict[str, Any] | None:
        """The marker; ``None`` where there is none, or it is damaged or of another format."""
        stored = read_checked_json(self.folder / DONE)
        return stored if stored is not None and stored.get("format") == FORMAT else None


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
    """The stages of one run. ``price`` is what an hour of all that the run uses costs, in US dollars."""

    root: Path
    on_start: Callable[[str, str, bool], None] | None = None
    price: float | None = None
    timings: list[Timing] = field(default_factory=list)
    _locks: dict[Path, Lock] = field(default_factory=dict)
    _guard: Lock = field(default_factory=Lock)
    _sound: set[Path] = field(default_factory=set)  # entries whose outputs this process has hashed, or written
    _began: float = field(default_factory=lambda: time.perf_counter())
    _meter: _Meter = field(default_factory=lambda: _Meter())

    @property
    def seconds_beside(self) -> float:
        """Wall time since the store was opened that went into no piece of work."""
        return max(0.0, time.perf_counter() - self._began - self._meter.worked)

    def entry(self, label: str, inputs: Inputs) -> Entry:
        """The place for work with these inputs; nothing is created."""
        stage = inputs.STAGE.name
        return Entry(stage, label, self.root / "stages" / stage / inputs.identity)

    def work(self, label: str, inputs: Given, function: Callable[[Given, Path], Summary]) -> Entry:
        """Do the work unless it is done: ``function(inputs, folder)`` writes outputs and returns a JSON summary."""
        entry = self.entry(label, inputs)
        # Pieces that are done side by side may be the same one: the second then finds it done.
        with self._guard:  # two threads must not make a lock each
            lock = self._locks.setdefault(entry.folder, Lock())
        with lock:
            return self._do(entry, inputs, function)

    def _do(self, entry: Entry, inputs: Given, function: Callable[[Given, Path], Summary]) -> Entry:
        reuse = entry.done and (entry.folder in self._sound or entry.sound)
        if self.on_start is not None:
            self.on_start(entry.stage, entry.label, reuse)
        if reuse:
            self._sound.add(entry.folder)
            self.timings.append(Timing(entry.stage, entry.label, entry.seconds, True, entry.identity, entry.usd))
            return entry
        if (entry.folder / DONE).exists():
            damaged = entry.folder / (entry.damage or DONE)
            logger.warning("%s %s: %s is damaged, so this is done again", entry.stage, entry.label, damaged)
            remove(entry.folder)
        entry.folder.mkdir(parents=True, exist_ok=True)
        write_json(entry.folder / "inputs.json", inputs.as_json())
        before = self._earlier(entry)
        start, booked = time.perf_counter(), self._meter.change(1)
        try:
            with enter_stage(entry.stage), _log_to(entry.folder / "log.txt"):
                summary = function(inputs, entry.folder)
        finally:
            booked = self._meter.change(-1) - booked
            spent = before + time.perf_counter() - start
            with suppress(OSError):  # of a full disk the user hears from what failed, if anything did
                write_checked_json(entry.folder / "attempts.json", {"seconds": spent})
        usd = None if self.price is None else (before + booked) * self.price / 3600
        done = {"stage": entry.stage, "label": entry.label, "seconds": spent, "usd": usd, "summary": summary}
        write_checked_json(entry.folder / DONE, {"format": FORMAT, **done, "files": _outputs(entry.folder)})
        self._sound.add(entry.folder)
        self.timings.append(Timing(entry.stage, entry.label, spent, False, entry.identity, usd))
        return entry

    @staticmethod
    def _earlier(entry: Entry) -> float:
        """Seconds spent by attempts that did not finish (a killed one does not say how long it took)."""
        stored = read_checked_json(entry.folder / "attempts.json") or {}
        return float(stored.get("seconds", 0.0))


class NotDone(Exception):
    """Work that a survey met is still to do."""


class Survey(Store):
    """Looks at what is done and does nothing.

    Raises:
        NotDone: by :meth:`work`, where the work is to do.
    """

    def _do(self, entry: Entry, inputs: Given, function: Callable[[Given, Path], Summary]) -> Entry:
        if not entry.sound:
            raise NotDone(entry.stage)
        return entry


def _outputs(folder: Path) -> dict[str, list[Any]]:
    """Size and hash of every output by its path in the folder; all are on the device, whoever wrote them."""
    outputs = {}
    for name, path in files_below(folder):
        if name not in NOT_OUTPUTS and path.is_file():
            sync(path)
            outputs[name] = file_record(path)
    return outputs


# The log that records of this thread, or of one that was given its context, belong to.
_log: ContextVar[Path | None] = ContextVar("_log", default=None)
_open_logs = 0
_level_before = logging.NOTSET
_level_guard = Lock()


class _Log(logging.FileHandler):
    """One that is silent where the disk is full: what the work itself cannot write says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the record."""


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Append the library's log to a file while the work goes on; work beside it has a log of its own."""
    handler = _Log(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # A thread that a library has started is in no log's context: what it says may be of any piece of work.
    handler.addFilter(lambda record: _log.get() in (path, None))
    library = logging.getLogger("ranksaga")
    token = _log.set(path)
    _raise_level(library, 1)
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
        _raise_level(library, -1)
        _log.reset(token)
        with suppress(OSError):
            handler.close()


def _raise_level(library: logging.Logger, logs: int) -> None:
    """So many more logs are open. While one is, the library speaks at INFO; the last gives back the level before."""
    global _open_logs, _level_before
    with _level_guard:
        if _open_logs == 0:
            _level_before = library.level
        _open_logs += logs
        library.setLevel(logging.INFO if _open_logs else _level_before)
