"""The `metacalo` command: parse, call one function, print."""

from __future__ import annotations

import sys
import warnings

from metacalo.cli import models, results, showers
from metacalo.cli.app import app, tell, warn
from metacalo.errors import MetacaloError

__all__ = ["app", "main", "models", "results", "showers"]


def main() -> None:
    """Entry point: an error that a user can cause is one sentence and exit code 2.

    So are those of the machine: a place that cannot be read, or too little memory.
    """
    warnings.showwarning = _show_warning
    try:
        app()
    except MetacaloError as error:
        tell(f"metacalo: {error}")
        sys.exit(2)
    except MemoryError as error:
        reason = str(error).splitlines()[0] if str(error) else "MemoryError"
        tell(f"metacalo: not enough memory ({reason}); ask for fewer showers at a time, or use a larger machine")
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        tell(f"metacalo: {error.filename}: {error.strerror}; give another path")
        sys.exit(2)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    warn(message)
