"""The command line: thin commands over the library. Results to stdout, progress to stderr."""

from ranksaga.cli.app import app, main

__all__ = ["app", "main"]
