"""The application that commands join, and how they print."""

from __future__ import annotations

import os
import shlex
import sys

import typer
from rich.console import Console

__all__ = ["app", "command_line", "is_first_process", "say", "show", "tell", "warn"]

app = typer.Typer(
    help="Few-shot adaptation of meta-trained generators of calorimeter showers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def command_line() -> str:
    """The command as it was typed, to be kept with its result."""
    return shlex.join(["metacalo", *sys.argv[1:]])


def is_first_process() -> bool:
    """Whether this one prints, of those that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def show(what: object) -> None:
    """Prints a table, in the first process."""
    if not is_first_process():
        return
    console = Console()
    # a file or a pipe has no width of its own; tables must not be cut there
    (console if console.is_terminal else Console(width=140)).print(what)


def say(text: str) -> None:
    """Prints a line, as it is and however long, in the first process."""
    if is_first_process():
        Console(highlight=False, soft_wrap=True).print(text, markup=False, emoji=False)


def tell(text: str) -> None:
    """Prints a line to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False, emoji=False)


def warn(text: object) -> None:
    """Prints a warning to standard error, in the first process."""
    if is_first_process():
        tell(f"warning: {text}")
