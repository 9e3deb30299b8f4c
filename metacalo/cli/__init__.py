"""The `metacalo` command: parse, call one function, print."""

from __future__ import annotations

import os
import sys
import warnings
from signal import SIGINT

from metacalo.cli import models, showers
from metacalo.cli.app import app, is_first_process, tell, warn
from metacalo.errors import MetacaloError, RankError
from metacalo.interruption import Signals

__all__ = ["app", "main", "models", "showers"]


def main() -> None:
    """Entry point: an error that a user can cause is one sentence and exit code 2, Ctrl-C one and 130, SIGTERM 143."""
    warnings.showwarning = _show_warning
    with Signals() as signals:
        try:
            app()
        except BaseException as error:
            if signals.received is not None:  # whatever it was turned into on its way
                _tell_interruption(error, signals.received)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(128 + signals.received)  # all is in order, and Python would take a second to put itself away
            if isinstance(error, MetacaloError):
                told_by_another = error.told if isinstance(error, RankError) else not is_first_process()
                if not told_by_another:
                    tell(f"metacalo: {error}")
                sys.exit(2)
            raise


def _tell_interruption(error: BaseException, number: int) -> None:
    if is_first_process():
        kept = getattr(error, "__notes__", ["nothing was written"])
        how = "interrupted" if number == SIGINT else "told to end"
        tell(f"metacalo: {how}; {'; '.join(kept)}")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    warn(message)
