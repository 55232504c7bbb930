"""What all commands share: printing that foreign text cannot act through, and options of one meaning."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ranksaga.untrusted.escape import one_line, printable, without_secrets

__all__ = ["Json", "LogFormatter", "Out", "Set", "echo"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Out = Annotated[Path, typer.Option("--out", help="Folder that receives the run.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe.")]


class LogFormatter(logging.Formatter):
    """Log lines that foreign text can neither leave nor act in, and without tokens."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """One line, whatever the message holds."""
        record.message = one_line(without_secrets(record.message))
        return super().formatMessage(record)


def echo(text: str, *, err: bool = False) -> None:
    """Print; foreign text in it cannot act on the terminal."""
    typer.echo(printable(text), err=err)
