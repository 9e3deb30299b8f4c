"""The `metacalo` command: parse, call one function, print."""

from __future__ import annotations

import os
import sys
import warnings
from signal import SIGINT
from typing import Annotated

import typer

from metacalo.cli import models, results, sharing, showers, simulations, sweeps
from metacalo.cli.app import app, is_first_process, say, to_stderr, warn
from metacalo.cli.settings_options import Commands
from metacalo.errors import MetacaloError, RankError
from metacalo.runtime.signals import Signals

__all__ = ["app", "main", "models", "results", "sharing", "showers", "simulations", "sweeps"]


def _print_version(asked: bool) -> None:
    if asked:
        from metacalo import __version__

        say(f"metacalo {__version__}")
        raise typer.Exit


@app.callback(cls=Commands)
def metacalo(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Few-shot adaptation of meta-trained generators of calorimeter showers.

    Begin with: metacalo adapt --detector FILE, then generate and evaluate. Every command has a --help.
    """


def main() -> None:
    """Entry point: an error that a user can cause is one sentence and exit code 2, Ctrl-C one and 130, SIGTERM 143.

    So are errors of the machine: a place that cannot be read, or too little memory.
    """
    warnings.showwarning = _show_warning
    with Signals() as signals:
        try:
            app()
        except BaseException as error:
            if signals.received is not None:  # whatever it was turned into on its way
                _report_interruption(error, signals.received)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(128 + signals.received)  # all is in order, and Python would take a second to put itself away
            sentence = _sentence(error)
            if sentence is None:
                raise
            reported_by_another = error.reported if isinstance(error, RankError) else not is_first_process()
            if not reported_by_another:
                to_stderr(f"metacalo: {sentence}")
            sys.exit(2)


def _sentence(error: BaseException) -> str | None:
    """The message of a user's error; None for a defect."""
    if isinstance(error, MetacaloError):
        return str(error)
    if isinstance(error, MemoryError):
        reason = str(error).splitlines()[0] if str(error) else "MemoryError"
        return f"not enough memory ({reason}); ask for fewer showers at a time, or use a larger machine"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give another path"
    return None


def _report_interruption(error: BaseException, number: int) -> None:
    if is_first_process():
        kept = getattr(error, "__notes__", ["nothing was written"])
        how = "interrupted" if number == SIGINT else "terminated"
        to_stderr(f"metacalo: {how}; {'; '.join(kept)}")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    warn(message)
