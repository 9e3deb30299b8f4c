"""The `metacalo` command: parse, call one function, print."""

from __future__ import annotations

import sys
import warnings

from metacalo.cli import models, showers, simulations
from metacalo.cli.app import app, tell, warn
from metacalo.errors import MetacaloError

__all__ = ["app", "main", "models", "showers", "simulations"]


def main() -> None:
    """Entry point: an error that a user can cause is one sentence and exit code 2."""
    warnings.showwarning = _show_warning
    try:
        app()
    except MetacaloError as error:
        tell(f"metacalo: {error}")
        sys.exit(2)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    warn(message)
