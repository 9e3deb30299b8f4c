"""Commands on results: reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacalo.cli.app import say, show
from metacalo.cli.options import (
    BaseOfModel,
    Quiet,
)
from metacalo.cli.settings_options import command

__all__ = ["reproduce"]


@command()
def reproduce(
    result: Annotated[Path, typer.Argument(help="Folder of a model, base or evaluation, or HDF5 file of a command.")],
    detector: Annotated[
        str | None, typer.Option("--detector", help="Where the shower file of an adapted model lies now.")
    ] = None,
    base: BaseOfModel = None,
    quiet: Quiet = False,
) -> None:
    """Make a result again from what it says of itself, and compare bit for bit; exit code 1 where they differ."""
    from metacalo.reproduction.reproduce import reproduce as run
    from metacalo.reproduction.reproduce import reproduction_table

    found = run(result, detector=detector, base=None if base is None else str(base))
    if not quiet:
        show(reproduction_table(found))
        say(f"{result}: {'made again, bit for bit' if found.same else 'comes out different'}")
    if not found.same:
        raise typer.Exit(1)
