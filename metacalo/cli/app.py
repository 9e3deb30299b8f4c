"""The application that commands join, and how they print."""

from __future__ import annotations

import shlex
import sys

import typer
from rich.console import Console

__all__ = ["app", "command_line", "say", "show", "tell", "warn"]

app = typer.Typer(
    help="Few-shot adaptation of meta-trained generators of calorimeter showers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def command_line() -> str:
    """The command as it was typed, to be kept with its result."""
    return shlex.join(["metacalo", *sys.argv[1:]])


def show(what: object) -> None:
    """Prints a table."""
    console = Console()
    # a file or a pipe has no width of its own; tables must not be cut there
    (console if console.is_terminal else Console(width=140)).print(what)


def say(text: str) -> None:
    """Prints a line, as it is and however long."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False, emoji=False)


def tell(text: str) -> None:
    """Prints a line to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False, emoji=False)


def warn(text: object) -> None:
    """Prints a warning to standard error."""
    tell(f"warning: {text}")
