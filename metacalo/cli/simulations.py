"""Commands that begin at a description: simulate, design."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacalo.cli.app import app, command_line, say, show
from metacalo.cli.options import (
    BaseName,
    Config,
    Force,
    Out,
    Quiet,
    Resume,
    Seed,
)

__all__ = ["design", "simulate"]

Showers = Annotated[int | None, typer.Option("--showers", help="How many.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes of Geant4; by default one for each core.")]
Physics = Annotated[
    str | None, typer.Option("--physics", help="Physics constructor or list of Geant4, such as FTFP_BERT.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Geant4 prints.")]


@app.command()
def simulate(
    detector: Annotated[Path | None, typer.Option("--detector", help="detector.toml to simulate.")] = None,
    out: Out = Path("out/shots.h5"),
    showers: Showers = None,
    energy: Annotated[str | None, typer.Option("--energy", help="GeV: 10, or 1:100.")] = None,
    theta: Annotated[str | None, typer.Option("--theta", help="rad: a value or low:high.")] = None,
    phi: Annotated[str | None, typer.Option("--phi", help="rad: a value or low:high.")] = None,
    particle: Annotated[str | None, typer.Option("--particle", help="e-, e+, gamma, ...")] = None,
    physics: Physics = None,
    family: Annotated[
        Path | None, typer.Option("--family", help="TOML of a family: many random detectors in one file.")
    ] = None,
    workers: Workers = None,
    setup: Annotated[bool, typer.Option("--setup", help="Tell which data sets are there, and get the others.")] = False,
    config: Config = None,
    seed: Seed = None,
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Simulate showers of a described detector with Geant4 (with the extra geant4)."""
    from metacalo.simulate.families import simulate_family
    from metacalo.simulate.run import SimulateSettings
    from metacalo.simulate.run import simulate as run
    from metacalo.simulate.setup import data_set_table, download, required_option

    if setup:
        show(data_set_table())
        say(download())
        return
    settings = SimulateSettings.resolve(
        config,
        showers=showers,
        energy=energy,
        theta=theta,
        phi=phi,
        particle=particle,
        physics=physics,
        workers=workers,
        seed=seed,
    )
    ways = {"force": force, "resume": resume, "quiet": quiet, "verbose": verbose}
    if family is not None:
        done = simulate_family(family, out, settings, **ways).sentence()
    else:
        done = run(required_option(detector), out, settings, **ways).sentence()
    if not quiet:
        say(done)


@app.command()
def design(
    detector: Annotated[Path, typer.Argument(help="detector.toml of the design.")],
    out: Out = Path("out/design"),
    showers: Annotated[int | None, typer.Option("--showers", help="Shots to simulate and adapt to.")] = None,
    reference: Annotated[
        int | None, typer.Option("--reference", help="Showers to simulate besides, for the report to compare with.")
    ] = None,
    base: BaseName = None,
    classifiers: Annotated[bool | None, typer.Option(help="Train the two classifiers of the report.")] = None,
    physics: Physics = None,
    workers: Workers = None,
    config: Config = None,
    seed: Seed = None,
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Simulate a described detector, adapt to its showers, generate, and report (with the extra geant4)."""
    from metacalo.design import DesignSettings
    from metacalo.design import design as run
    from metacalo.evaluate import table

    settings = DesignSettings.resolve(
        config,
        showers=showers,
        reference=reference,
        seed=seed,
        simulate={"physics": physics, "workers": workers},
        adapt={"base": base},
        evaluate={"classifiers": classifiers},
    )
    made = run(
        detector, out, settings, force=force, resume=resume, quiet=quiet, verbose=verbose, command=command_line()
    )
    if not quiet:
        show(table(made.metrics["samples"]))
        say(made.sentence())
