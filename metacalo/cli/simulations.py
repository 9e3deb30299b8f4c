"""Commands that begin at a description: simulate, design."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacalo.cli.app import command_line, say, show
from metacalo.cli.options import Config, Force, Out, Quiet, Resume
from metacalo.cli.settings_options import Given, SettingsOptions, command

__all__ = ["design", "simulate"]

Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Geant4 prints.")]


@command(SettingsOptions("metacalo.simulate.run:SimulateSettings"))
def simulate(
    given: Given,
    detector: Annotated[
        Path | None, typer.Option("--detector", help="detector.toml, or name of a task, to simulate.")
    ] = None,
    out: Out = Path("out/shots.h5"),
    family: Annotated[
        Path | None, typer.Option("--family", help="TOML of a family: many random detectors in one file.")
    ] = None,
    setup: Annotated[bool, typer.Option("--setup", help="Tell which data sets are there, and get the others.")] = False,
    config: Config = None,
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
        if not quiet:
            show(data_set_table())
        done = download()
        if not quiet:
            say(done)
        return
    settings = SimulateSettings.resolve(config, **given)
    ways = {"force": force, "resume": resume, "quiet": quiet, "verbose": verbose}
    if family is not None:
        done = simulate_family(family, out, settings, **ways).sentence()
    else:
        done = run(required_option(detector), out, settings, **ways).sentence()
    if not quiet:
        say(done)


@command(
    SettingsOptions(
        "metacalo.design:DesignSettings",
        {"reference": "--reference-showers"},
        tables={"simulate": ("physics", "workers"), "adapt": ("base",), "evaluate": ("classifiers",)},
    ),
    formerly={"DETECTOR": "detector", "--reference": "reference"},
)
def design(
    detector: Annotated[Path, typer.Option("--detector", help="detector.toml of the design, or name of a task.")],
    given: Given,
    out: Out = Path("out/design"),
    config: Config = None,
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Simulate a described detector, adapt to its showers, generate, and report (with the extra geant4)."""
    from metacalo.design import DesignSettings
    from metacalo.design import design as run
    from metacalo.evaluate import table

    settings = DesignSettings.resolve(config, **given)
    made = run(
        detector, out, settings, force=force, resume=resume, quiet=quiet, verbose=verbose, command=command_line()
    )
    if not quiet:
        show(table(made.metrics["samples"]))
        say(made.sentence())
