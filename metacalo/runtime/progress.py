"""Progress on a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Track", "bars", "track", "without_bars"]

_hidden = False


class Track:
    """One bar: `advance` moves it, keyword figures (a loss, a rate) are shown beside it."""

    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, figures="")

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Moves the bar by `steps` and shows `figures`, for example `loss=0.41`."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if text:
            self._progress.update(self._task, advance=steps, figures=text)
        else:
            self._progress.update(self._task, advance=steps)

    def describe(self, text: str) -> None:
        """Changes what the bar is called."""
        self._progress.update(self._task, description=text)


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Callable[[str, int], Track]]:
    """Yields a function (description, total) to a new bar: several of them for work that goes on side by side.

    Bars have time elapsed and time left and go to standard error; nothing is drawn when that is no terminal.
    """
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or _hidden or not console.is_terminal,
    )
    with progress:
        yield lambda description, total: Track(progress, description, total)


@contextmanager
def track(description: str, total: int, *, completed: int = 0, quiet: bool = False) -> Iterator[Track]:
    """One bar, of which `completed` steps are done already."""
    with bars(quiet=quiet) as add:
        bar = add(description, total)
        bar.advance(completed)
        yield bar


@contextmanager
def without_bars(quiet: bool = True) -> Iterator[None]:
    """Draws no bar within, in any thread of this process; does nothing where not `quiet`."""
    global _hidden
    before, _hidden = _hidden, _hidden or quiet
    try:
        yield
    finally:
        _hidden = before
