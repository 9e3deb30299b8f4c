"""The `metacalo` command: parse, call one function, print."""

from __future__ import annotations

import sys
import warnings

from metacalo.cli import models, showers
from metacalo.cli.app import app, is_first_process, tell, warn
from metacalo.errors import MetacaloError, RankError

__all__ = ["app", "main", "models", "showers"]


def main() -> None:
    """Entry point: an error that a user can cause is one sentence and exit code 2."""
    warnings.showwarning = _show_warning
    try:
        app()
    except MetacaloError as error:
        told_by_another = error.told if isinstance(error, RankError) else not is_first_process()
        if not told_by_another:
            tell(f"metacalo: {error}")
        sys.exit(2)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    warn(message)
