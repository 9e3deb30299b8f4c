"""Command that tries settings: sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacalo.cli.app import command_line, say, show
from metacalo.cli.options import (
    Absorber,
    Active,
    Config,
    Description,
    Force,
    NewDetector,
    Out,
    Quiet,
    described_detector,
)
from metacalo.cli.settings_options import Given, SettingsOptions, command

__all__ = ["sweep"]


@command(SettingsOptions("metacalo.sweep:SweepSettings"))
def sweep(
    detector: NewDetector,
    given: Given,
    out: Out = Path("out/sweep"),
    space: Annotated[Path | None, typer.Option("--space", help="TOML file of what varies, and in what range.")] = None,
    objective: Annotated[
        str | None,
        typer.Option("--objective", metavar="CHOICE", help="What trials are judged by. One of w1, fpd, loss."),
    ] = None,
    objectives: Annotated[
        tuple[str, str] | None, typer.Option("--objectives", help="Two, such as: w1 seconds, or fpd shower_ms.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="A file *.db, or postgresql://user@host/database."),
    ] = None,
    config: Config = None,
    absorber: Absorber = None,
    active: Active = None,
    description: Description = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Search for the adaptation and sampling settings that suit a detector; several processes may share the work."""
    from metacalo.sweep import SearchSpace, SweepSettings, findings_table
    from metacalo.sweep import sweep as run

    settings = SweepSettings.resolve(
        config, **given, objectives=objectives or (None if objective is None else (objective,))
    )
    if space is not None:
        settings = settings.with_space(SearchSpace.from_toml(space))
    described = described_detector(absorber, active, description)
    result = run(
        detector,
        out,
        settings,
        storage=storage,
        described=described,
        force=force,
        quiet=quiet,
        command=command_line(),
    )
    if not quiet:
        show(findings_table(result.found))
        who = "written" if result.written else "was written by another worker of the study"
        say(f"model {result.out} {who}   report {result.out / 'sweep.html'}")
        say(f"showers: metacalo generate --model {result.out} --generator {result.generator}")
