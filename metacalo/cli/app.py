"""The application that commands join, and how they print."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table

__all__ = ["app", "command_line", "is_first_process", "say", "show", "to_stderr", "warn"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def command_line() -> str:
    """The command as it was typed, to be kept with its result."""
    return shlex.join(["metacalo", *sys.argv[1:]])


def is_first_process() -> bool:
    """Whether this one prints, of those that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


_HIDDEN = (*range(32), *range(127, 160), *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _HIDDEN if chr(code) != "\n"}
"""Characters that a terminal obeys or hides instead of showing them; names in foreign files may hold them."""


def _visible(text: str) -> str:
    return text.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode("utf-8")


_WIDEST = 1000  # columns of a table in a file or a pipe


@dataclass(frozen=True)
class _Visible:
    """What is drawn, with no letter that a terminal would obey."""

    what: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.what, options):
            yield segment if segment.control else Segment(_visible(segment.text), segment.style)


def show(what: RenderableType) -> None:
    """Prints a table, in the first process."""
    if not is_first_process():
        return
    console = Console()
    if isinstance(what, Table):
        for column in what.columns:
            column.overflow = "fold"  # nothing is cut, however narrow the terminal
    # a file or a pipe has no width of its own; there a table is as wide as it needs
    wide = Console(width=_WIDEST)
    needed = wide.measure(what).maximum if isinstance(what, Table) else 140
    (console if console.is_terminal else Console(width=max(80, needed))).print(_Visible(what))


def say(text: str) -> None:
    """Prints a text, as it is and however long, in the first process."""
    if is_first_process():
        Console(highlight=False, soft_wrap=True).print(_visible(text), markup=False, emoji=False)


def to_stderr(text: str) -> None:
    """Prints one line to standard error."""
    line = _visible(text).replace("\n", "\\n")
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False, emoji=False)


def warn(text: object) -> None:
    """Prints a warning to standard error, in the first process."""
    if is_first_process():
        to_stderr(f"warning: {text}")
