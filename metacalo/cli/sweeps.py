"""Command that tries settings: sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacalo.cli.app import app, command_line, say, show
from metacalo.cli.options import (
    Absorber,
    Active,
    BaseName,
    Config,
    Description,
    Device,
    Force,
    NewDetector,
    Out,
    Quiet,
    Seed,
    described_detector,
)

__all__ = ["sweep"]


@app.command()
def sweep(
    detector: NewDetector,
    out: Out = Path("out/sweep"),
    base: BaseName = None,
    shots: Annotated[int | None, typer.Option("--shots", help="Showers to adapt on, and to be judged on.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="ar or diffusion.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", help="Of the study, in all workers together.")] = None,
    space: Annotated[Path | None, typer.Option("--space", help="TOML file of what varies, and in what range.")] = None,
    objective: Annotated[str | None, typer.Option("--objective", help="w1, fpd or loss.")] = None,
    objectives: Annotated[
        tuple[str, str] | None, typer.Option("--objectives", help="Two, such as: w1 seconds, or fpd shower_ms.")
    ] = None,
    prune: Annotated[str | None, typer.Option("--prune", help="median, hyperband or none.")] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="A file *.db, or postgresql://user@host/database."),
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study in the storage.")] = None,
    config: Config = None,
    absorber: Absorber = None,
    active: Active = None,
    description: Description = None,
    seed: Seed = None,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Search for the adaptation and sampling settings that suit a detector; several processes may share the work."""
    from metacalo.sweep import SearchSpace, SweepSettings, findings_table
    from metacalo.sweep import sweep as run

    settings = SweepSettings.resolve(
        config,
        base=base,
        shots=shots,
        generator=generator,
        trials=trials,
        objectives=objectives or (None if objective is None else (objective,)),
        prune=prune,
        study=study,
        seed=seed,
        device=device,
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
