"""How a run tells a person what it does: bars on a terminal, plain lines elsewhere, nothing for a library user."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

from ranksaga.untrusted.escape import one_line, printable, without_secrets

__all__ = ["Console", "Silent", "Terminal"]


class Console(Protocol):
    """What a run tells. The command line prints it; a library user may stay silent."""

    def stage(self, stage: str, label: str, reused: bool) -> None:
        """A piece of work starts, or was done before."""

    def say(self, text: str) -> None:
        """One line of information."""

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[..., None]]:
        """A bar; the callable advances it by a count, with an optional ``note``."""


class Silent:
    """Prints nothing."""

    def stage(self, stage: str, label: str, reused: bool) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[..., None]]:
        """A callable that does nothing."""

        def advance(count: int, note: str = "") -> None:
            pass

        yield advance


class Terminal(Silent):
    """Prints on stderr; draws bars only where a person looks."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole

        self.console = RichConsole(stderr=True, highlight=False)
        self._screen = Lock()

    def stage(self, stage: str, label: str, reused: bool) -> None:
        """One line a piece of work; what is reused is said, not done."""
        self.say(f"[{stage}] {label}{' (done before)' if reused else ''}")

    def say(self, text: str) -> None:
        """One line, however long: a narrow terminal wraps it, a file does not."""
        self.console.print(printable(without_secrets(text)), markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[..., None]]:
        """A bar with time left; off a terminal, and beside another bar, a line every half minute."""
        if not sys.stderr.isatty() or not self._screen.acquire(blocking=False):
            yield self._lines(label, total)
            return
        try:
            with self._bar(label, total) as advance:
                yield advance
        finally:
            self._screen.release()

    @contextmanager
    def _bar(self, label: str, total: int) -> Iterator[Callable[..., None]]:
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console, transient=True) as bars:
            task = bars.add_task(escape(one_line(label)), total=total, note="")

            def advance(count: int, note: str = "") -> None:
                bars.update(task, advance=count, note=note)

            yield advance

    def _lines(self, label: str, total: int) -> Callable[..., None]:
        start = last = time.monotonic()
        done = 0

        def advance(count: int, note: str = "") -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if now - last >= 30 and 0 < done < total:
                last = now
                left = (now - start) / done * (total - done)
                self.say(f"  {label}: {done} of {total}, {left:.0f} s left {note}".rstrip())

        return advance
