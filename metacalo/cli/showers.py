"""Commands on shower files: evaluate, score, inspect, convert, tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from metacalo.cli.app import app, command_line, say, show, warn
from metacalo.cli.options import (
    Absorber,
    Active,
    BaseOfModel,
    BatchSize,
    Config,
    Description,
    DetectorOfBase,
    Device,
    Force,
    ModelPath,
    Out,
    Quiet,
    Seed,
    described_detector,
    named_detector,
)

__all__ = ["convert", "evaluate", "inspect", "score", "tasks"]


@app.command()
def evaluate(
    generated: Annotated[list[Path], typer.Option("--generated", help="Shower file to judge; may be repeated.")],
    reference: Annotated[Path, typer.Option("--reference", help="Full-simulation showers.")],
    out: Out = Path("out/evaluation"),
    labels: Annotated[str | None, typer.Option("--labels", help="What the files are called: AR,diffusion.")] = None,
    unseen_by: Annotated[
        str | None, typer.Option("--unseen-by", help="Leave out the rows this model has seen.")
    ] = None,
    base: Annotated[Path | None, typer.Option("--base", help="Where that model's base lies.")] = None,
    classifiers: Annotated[bool | None, typer.Option(help="Train the two classifiers.")] = None,
    calochallenge: Annotated[
        bool | None, typer.Option(help="FPD and KPD by the CaloChallenge's definitions (where a file has its layout).")
    ] = None,
    pages: Annotated[bool | None, typer.Option(help="Write the report beside metrics.json.")] = None,
    max_showers: Annotated[int | None, typer.Option("--max-showers", help="Read of each file, at most.")] = None,
    config: Config = None,
    seed: Seed = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compare generated showers with full simulation, every figure beside its Geant4-against-Geant4 floor."""
    from metacalo.cards import card_of
    from metacalo.evaluate import EvaluateSettings, evaluate_files, labels_of, table, warnings_told
    from metacalo.model import seen_hashes

    settings = EvaluateSettings.resolve(
        config, classifiers=classifiers, calochallenge=calochallenge, pages=pages, max_showers=max_showers, seed=seed
    )
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
    for warning in warnings_told(metrics):
        warn(warning)
    if not quiet:
        show(table(metrics["samples"]))
        report = {"report": out / "report.html", "figures": out / "figures"} if settings.pages else {}
        made = {**report, "numbers": out / "metrics.json", "picture": out / "profiles.png"}
        say("   ".join(f"{what} {path}" for what, path in made.items() if path.exists()))


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="Shower file (HDF5).")],
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
    from metacalo.inspect import inspect as run
    from metacalo.inspect_table import draw_inspection, inspection_table

    found = run(file, group=group, showers=showers, quiet=quiet)
    if picture is not None:
        draw_inspection(found, picture, force=force)
    if as_json:
        say(json.dumps(found.as_json(), indent=2, allow_nan=False))
    elif not quiet:
        show(inspection_table(found))
    if found.refused:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Shower file of any convention, or a Par04 ROOT ntuple.")],
    to: Annotated[str, typer.Option("--to", help="par04, calochallenge or hgcal.")],
    out: Annotated[Path, typer.Option("--out", help="HDF5 file to write.")],
    group: Annotated[str | None, typer.Option("--group", help="Which detector of a file that holds several.")] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", help="Coarser mesh in r, phi, z, such as 9x16x45: cells are added up.")
    ] = None,
    mesh: Annotated[str | None, typer.Option("--mesh", help="Mesh of a ROOT ntuple, such as 18x50x45.")] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", help="Factor on deposits; CaloChallenge files hold them divided by the sampling fraction 0.033."
        ),
    ] = None,
    energy_scale: Annotated[
        float | None, typer.Option("--energy-scale", help="Factor on incident energies: 1000 for a file in GeV.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Deposits below it, in MeV of the new file, become 0.")
    ] = None,
    showers: Annotated[int | None, typer.Option("--showers", help="Only the first ones.")] = None,
    rows: Annotated[str | None, typer.Option("--rows", help="Only rows first:stop, such as 100:200.")] = None,
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
    from metacalo.wording import counted

    settings = ConvertSettings.resolve(
        None,
        to=to,
        grid=grid,
        mesh=mesh,
        scale=scale,
        energy_scale=energy_scale,
        threshold=threshold,
        showers=showers,
        rows=rows,
    )
    described = described_detector(absorber, active, description) or named_detector(detector)
    written = run(
        source, out, settings, group=group, described=described, force=force, quiet=quiet, command=command_line()
    )
    if not quiet:
        number = counted(written.showers, "shower")
        say(f"{number} of {written.grid} cells written to {written.path} ({written.convention})")


@app.command()
def score(
    model: ModelPath,
    showers: Annotated[Path, typer.Option("--showers", help="Shower file to score.")],
    out: Out = Path("out/scores.h5"),
    against: Annotated[Path | None, typer.Option("--against", help="Second file, to be told from the first.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="ar, diffusion or both.")] = None,
    times: Annotated[int | None, typer.Option("--times", help="diffusion: evaluations per shower.")] = None,
    cells: Annotated[
        bool | None, typer.Option(help="Count latents of cells that no generator sees, as normal.")
    ] = None,
    at_most: Annotated[int | None, typer.Option("--at-most", help="Showers of a file, drawn at random.")] = None,
    unseen: Annotated[bool | None, typer.Option("--unseen/--all", help="Leave out showers the model has seen.")] = None,
    outliers: Annotated[int | None, typer.Option("--outliers", help="How many of the least likely are told.")] = None,
    batch_size: BatchSize = None,
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    seed: Seed = None,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Score showers by how likely a model thinks them, and list the least likely."""
    from metacalo.score import ScoreSettings
    from metacalo.score_report import score_files
    from metacalo.score_tables import outlier_table, score_table

    settings = ScoreSettings.resolve(
        config,
        generator=generator,
        times=times,
        cells=cells,
        at_most=at_most,
        unseen=unseen,
        outliers=outliers,
        batch_size=batch_size,
        seed=seed,
        device=device,
    )
    found = score_files(
        model,
        showers,
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


@app.command()
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="Task to show; all are listed without. 'new' writes a description to fill in.")
    ] = None,
    file: Annotated[Path, typer.Argument(help="What 'new' writes.")] = Path("detector.toml"),
    folder: Annotated[list[Path] | None, typer.Option("--folder", help="Folder of tasks of your own.")] = None,
    force: Force = False,
) -> None:
    """List the tasks, show one, or begin a new one: metacalo tasks new my.toml."""
    from metacalo.showers.tasks import data_folder, discover_tasks, resolve_task
    from metacalo.showers.template import write_template
    from metacalo.wording import counted

    if name == "new":
        written = write_template(file, force=force)
        say(f"{written} describes a detector; change it, then metacalo simulate --detector {written}")
        return
    folders = [data_folder("tasks"), *(folder or [])]
    if name is not None:
        task = resolve_task(name, *folders)
        say(task.detector.to_toml().rstrip())
        detector = task.detector
        say(f"X0 {detector.X0_mm:.2f} mm   R_M {detector.R_M_mm:.1f} mm   E_c {detector.E_c_MeV:.2f} MeV")
        say(f"{counted(task.n_showers, 'shower')} in {task.path.name}")
        return
    table = Table("task", "absorber", "active", "X0 mm", "R_M mm", "E_c MeV", "grid", "showers")
    for task in discover_tasks(*folders).values():
        d = task.detector
        sizes = (f"{d.X0_mm:.2f}", f"{d.R_M_mm:.1f}", f"{d.E_c_MeV:.2f}", str(d.grid), str(task.n_showers))
        table.add_row(escape(task.name), d.absorber or "-", d.active, *sizes)
    show(table)
