"""The program: its commands, and errors that RankSaga raises on purpose as one line and an exit code."""

from __future__ import annotations

import errno
import json
import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ranksaga import __version__
from ranksaga.cli.dataset_commands import datasets_app, init
from ranksaga.cli.model_commands import benchmark, compare, report
from ranksaga.cli.output import Json, LogFormatter, echo
from ranksaga.cli.run_commands import estimate, finetune, run
from ranksaga.errors import Interrupted, RankSagaError, UsageError, machine_errors
from ranksaga.untrusted.escape import one_line, without_secrets

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """All commands. What stops one that a user can do something about is raised as an error of ours."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            with machine_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt:  # typer itself would end without a word
            raise Interrupted("interrupted; the same command continues from here") from None
        except OSError as error:
            if error.errno == errno.EPIPE or error.filename is None:
                raise
            raise UsageError(f"{error.filename}: {error.strerror or error}; mend that, or name another path") from None


app = typer.Typer(
    name="ranksaga",
    cls=Commands,
    help="Make an embedding model better at retrieval on every dataset it is given, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"ranksaga {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the library's log on stderr.")] = False,
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.ERROR)


def doctor(as_json: Json = False) -> None:
    """Show what this machine offers: versions, devices, precision, folders."""
    from ranksaga.run.environment import describe_environment

    facts = describe_environment(probe=True)
    echo(json.dumps(facts, indent=2) if as_json else "\n".join(f"{key:24s} {value}" for key, value in facts.items()))


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all cached vectors.")] = False, as_json: Json = False
) -> None:
    """Show the vectors that are kept on disk (RANKSAGA_HOME; at most RANKSAGA_CACHE_GB, 20), or delete them."""
    from dataclasses import asdict

    from ranksaga.encode.cache_folders import cached_models, clear_cache

    if clear:
        freed = clear_cache()
        echo(json.dumps({"freed_bytes": freed}) if as_json else f"{freed / 1e6:.1f} MB freed")
        return
    models = cached_models()
    if as_json:
        echo(json.dumps([asdict(model) for model in models], indent=2))
        return
    for model in models:
        echo(f"{model.identity}  {model.texts:9d} texts  {model.size / 1e6:9.1f} MB  {model.label}")
    echo(f"{sum(model.size for model in models) / 1e6:.1f} MB in all")


for command in (run, finetune, benchmark, compare, report, estimate, doctor, cache, init):
    app.command()(command)
app.add_typer(datasets_app, name="datasets")


def main() -> None:
    """Entry point: errors that RankSaga raises on purpose become one line and an exit code."""
    try:
        app()
    except RankSagaError as error:
        echo(f"ranksaga: {one_line(without_secrets(str(error)))}", err=True)
        sys.exit(error.exit_code)
