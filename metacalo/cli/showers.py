"""Commands on shower files: evaluate, score, inspect, convert, tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from metacalo.cli.app import command_line, say, show, warn
from metacalo.cli.options import (
    Absorber,
    Active,
    BaseOfModel,
    Config,
    Description,
    DetectorOfBase,
    Force,
    ModelPath,
    Out,
    Quiet,
    described_detector,
    named_detector,
)
from metacalo.cli.settings_options import Given, SettingsOptions, command
from metacalo.errors import ConfigError

__all__ = ["convert", "evaluate", "inspect", "score", "tasks"]


@command(
    SettingsOptions("metacalo.evaluate:EvaluateSettings", {"max_showers": "--showers"}),
    formerly={"--max-showers": "max_showers"},
)
def evaluate(
    generated: Annotated[
        list[str], typer.Option("--generated", help="Shower file (or task) to judge; may be repeated.")
    ],
    reference: Annotated[str, typer.Option("--reference", help="Full-simulation showers: a file or task.")],
    given: Given,
    out: Out = Path("out/evaluation"),
    labels: Annotated[str | None, typer.Option("--labels", help="What the files are called: AR,diffusion.")] = None,
    unseen_by: Annotated[
        str | None, typer.Option("--unseen-by", help="Leave out the rows this model has seen.")
    ] = None,
    base: Annotated[Path | None, typer.Option("--base", help="Where that model's base lies.")] = None,
    config: Config = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compare generated showers with full simulation, every figure beside its Geant4-against-Geant4 floor."""
    from metacalo.evaluate import EvaluateSettings, all_warnings, evaluate_files, labels_of, table
    from metacalo.model_folders.adapted import seen_hashes
    from metacalo.model_folders.provenance_card import card_of

    settings = EvaluateSettings.resolve(config, **given)
    named = labels_of(generated, labels.split(",") if labels else None)
    metrics = evaluate_files(
        generated,
        reference,
        out,
        labels=named,
        cards=dict(zip(named, map(card_of, generated), strict=True)),
        seen_hashes=seen_hashes(unseen_by, base=base) if unseen_by else None,
        seen_by={"unseen_by": str(unseen_by), "base": str(base) if base else None} if unseen_by else None,
        settings=settings,
        command=command_line(),
        force=force,
    )
    for warning in all_warnings(metrics):
        warn(warning)
    if not quiet:
        show(table(metrics["samples"]))
        report = {"report": out / "report.html", "figures": out / "figures"} if settings.pages else {}
        made = {**report, "numbers": out / "metrics.json", "picture": out / "profiles.png"}
        say("   ".join(f"{what} {path}" for what, path in made.items() if path.exists()))


@command()
def inspect(
    file: Annotated[str, typer.Argument(help="Shower file (HDF5), or the name of a task.")],
    group: Annotated[str | None, typer.Option("--group", help="Which detector of a file that holds several.")] = None,
    showers: Annotated[
        int | None, typer.Option("--showers", help="How many to look at, drawn evenly; by default up to 20,000.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="PNG of the mean shower to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Tell what a shower file is, and what is wrong with it; exit code 1 where `metacalo adapt` would refuse it."""
    from metacalo.inspection.inspection import inspect as run
    from metacalo.inspection.inspection_table import draw_inspection, inspection_table

    found = run(file, group=group, showers=showers, quiet=quiet)
    if picture is not None:
        draw_inspection(found, picture, force=force)
    if as_json:
        say(json.dumps(found.as_json(), indent=2, allow_nan=False))
    elif not quiet:
        show(inspection_table(found))
    if found.refused:
        raise typer.Exit(1)


@command(
    SettingsOptions("metacalo.convert:ConvertSettings", {"to": "--format"}),
    formerly={"--to": "to"},
)
def convert(
    source: Annotated[
        str, typer.Argument(help="Shower file of any convention, name of a task, or a Par04 ROOT ntuple.")
    ],
    out: Annotated[Path, typer.Option("--out", help="HDF5 file to write.")],
    given: Given,
    group: Annotated[str | None, typer.Option("--group", help="Which detector of a file that holds several.")] = None,
    detector: Annotated[
        str | None, typer.Option("--detector", help="Detector to describe: task, file or toml.")
    ] = None,
    absorber: Absorber = None,
    active: Active = None,
    description: Description = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write a shower file in another convention, on a coarser mesh, or with its detector described."""
    from metacalo.convert import ConvertSettings
    from metacalo.convert import convert as run
    from metacalo.runtime.wording import counted

    settings = ConvertSettings.resolve(None, **given)
    described = described_detector(absorber, active, description) or named_detector(detector)
    written = run(
        source, out, settings, group=group, described=described, force=force, quiet=quiet, command=command_line()
    )
    if not quiet:
        number = counted(written.showers, "shower")
        say(f"{number} of {written.grid} cells written to {written.path} ({written.convention})")


@command(
    SettingsOptions("metacalo.scoring.scores:ScoreSettings", {"unseen": "--unseen/--all"}),
    formerly={"--at-most": "at_most"},
)
def score(
    model: ModelPath,
    given: Given,
    file: Annotated[str | None, typer.Argument(help="Shower file to score, or the name of a task.")] = None,
    out: Out = Path("out/scores.h5"),
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="Second file or task; its showers are separated from those of the first by their scores."
        ),
    ] = None,
    at_most: Annotated[
        str | None,
        typer.Option("--showers", metavar="<int>", help="How many of a file, drawn at random; all by default."),
    ] = None,
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Score showers by how likely a model thinks them, and list the least likely."""
    from metacalo.scoring.score_report import score_files
    from metacalo.scoring.score_tables import outlier_table, score_table
    from metacalo.scoring.scores import ScoreSettings

    if file is None and at_most is not None and not at_most.lstrip("+-").isdecimal():
        warn(f"--showers {at_most}: the file is an argument now (metacalo score {at_most}); the old way works for now")
        file, at_most = at_most, None
    if file is None:
        message = "the shower file to score is missing; give it: metacalo score FILE --model MODEL"
        raise ConfigError(message)
    settings = ScoreSettings.resolve(config, **given, at_most=at_most)
    found = score_files(
        model,
        file,
        out,
        settings,
        against=against,
        base=base,
        detector=named_detector(detector),
        force=force,
        quiet=quiet,
        command=command_line(),
    )
    if not quiet:
        show(score_table(found))
        if settings.outliers:
            show(outlier_table(found))
        say(f"scores {out}   summary {out.with_suffix('.json')}")


@command(formerly={"--folder": "folders"})
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="Task to show; all are listed without. 'new' writes a description to fill in.")
    ] = None,
    file: Annotated[Path, typer.Argument(help="What 'new' writes.")] = Path("detector.toml"),
    folders: Annotated[
        list[Path] | None, typer.Option("--tasks", help="Folder of tasks of your own. May be repeated.")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """List the tasks, show one, or begin a new one: metacalo tasks new my.toml."""
    from metacalo.detectors.template import write_template
    from metacalo.runtime.wording import counted
    from metacalo.showers.tasks import data_folder, discover_tasks, resolve_task

    if name == "new":
        written = write_template(file, force=force)
        if not quiet:
            say(f"{written} describes a detector; change it, then metacalo simulate --detector {written}")
        return
    places = [data_folder("tasks"), *(folders or [])]
    if name is not None:
        task = resolve_task(name, *places)
        if quiet:
            return
        say(task.detector.to_toml().rstrip())
        detector = task.detector
        say(f"X0 {detector.X0_mm:.2f} mm   R_M {detector.R_M_mm:.1f} mm   E_c {detector.E_c_MeV:.2f} MeV")
        say(f"{counted(task.n_showers, 'shower')} in {task.path.name}")
        return
    columns = ("task", "absorber", "active", "X0 mm", "R_M mm", "E_c MeV", "grid", "showers")
    table = Table(*columns, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for task in discover_tasks(*places).values():
        d = task.detector
        sizes = (f"{d.X0_mm:.2f}", f"{d.R_M_mm:.1f}", f"{d.E_c_MeV:.2f}", str(d.grid), str(task.n_showers))
        table.add_row(escape(task.name), d.absorber or "-", d.active, *sizes)
    if not quiet:
        show(table)
