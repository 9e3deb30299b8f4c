"""The `metacalo` command: parse, call one function, print."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metacalo.errors import MetacaloError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Few-shot adaptation of meta-trained generators of calorimeter showers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings; options given here win over it.")]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda.")]
Absorber = Annotated[str | None, typer.Option("--absorber", help="Absorber of a period in mm, such as Pb:2.0.")]
Active = Annotated[str | None, typer.Option("--active", help="Active layer of a period in mm, such as lAr:4.0.")]
Description = Annotated[Path | None, typer.Option("--description", help="detector.toml that describes the detector.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


@app.command()
def pretrain(
    out: Out = Path("pretrained/my-base"),
    config: Config = None,
    tasks: Annotated[list[str] | None, typer.Option("--tasks", help="Folder of tasks; may be repeated.")] = None,
    holdout: Annotated[list[str] | None, typer.Option("--holdout", help="Task to leave out, with its family.")] = None,
    initial: Annotated[str | None, typer.Option("--initial", help="Base to go on from.")] = None,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", help="Only this stage: tokenizer, ar, diffusion, distil.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Published configuration: calodit.")] = None,
    algorithm: Annotated[
        str | None,
        typer.Option("--algorithm", help="maml, fomaml, anil, meta-sgd, cavia, reptile or multitask."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="What takes inner steps: higher, torch or learn2learn.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the base.")] = None,
    seed: Seed = None,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and do nothing.")] = False,
    force: Force = False,
) -> None:
    """Meta-train a base across detectors: tokenizer, autoregressive prior, diffusion transformer, distillation."""
    from metacalo.plan import plan_pretraining, plan_tables
    from metacalo.presets import resolve_recipe
    from metacalo.pretrain import pretrain as run

    settings = resolve_recipe(
        preset,
        config,
        tasks=_tuple(tasks),
        holdout=_tuple(holdout),
        initial=initial,
        name=name or (None if config else out.name),
        seed=seed,
        device=device,
        meta={"algorithm": algorithm, "engine": engine},
    )
    stages: Any = tuple(stage) if stage else None
    if dry_run:
        for table in plan_tables(plan_pretraining(settings, stages)):
            _print(table)
        return
    written = run(settings, out, stages=stages, force=force, resume=resume, command=_command())
    _say(f"base written to {written}" if written else f"stages finished; run the others to complete {out}")


@app.command()
def adapt(
    detector: Annotated[str, typer.Option("--detector", help="Shower file, task folder or task name.")],
    out: Out = Path("out/adapted"),
    base: Annotated[str | None, typer.Option("--base", help="Name or folder of the base.")] = None,
    shots: Annotated[int | None, typer.Option("--shots", help="Showers to adapt on.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="ar, diffusion, both or frozen.")] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="What moves: conditioning, bias, low-rank, modulation, adapters or full."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps per generator, at most.")] = None,
    config: Config = None,
    absorber: Absorber = None,
    active: Active = None,
    description: Description = None,
    seed: Seed = None,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a base to the showers of a new detector."""
    from metacalo.adapt import AdaptSettings
    from metacalo.adapt import adapt as run
    from metacalo.comparison import summary_table

    settings = AdaptSettings.resolve(
        config, base=base, shots=shots, generator=generator, method=method, steps=steps, seed=seed, device=device
    )
    described = _described(absorber, active, description)
    result = run(detector, out, settings, described=described, force=force, quiet=quiet, command=_command())
    if not quiet:
        _print(summary_table(result.metrics))
        picture = result.out / "profiles.png"
        drawn = f"   picture {picture}" if picture.exists() else ""
        _say(f"model {result.out}{drawn}   {result.metrics['seconds']['total']:.1f} s")


@app.command()
def generate(
    model: Annotated[Path, typer.Option("--model", help="Adapted model, or a base with --detector.")],
    out: Out = Path("out/showers.h5"),
    showers: Annotated[int | None, typer.Option("--showers", help="How many.")] = None,
    energy: Annotated[str | None, typer.Option("--energy", help="GeV: 10, or 1:100 (log-uniform).")] = None,
    theta: Annotated[str | None, typer.Option("--theta", help="rad: a value or low:high.")] = None,
    phi: Annotated[str | None, typer.Option("--phi", help="rad: a value or low:high.")] = None,
    conditions: Annotated[str | None, typer.Option("--conditions", help="Copy energies and angles of a file.")] = None,
    unseen_by: Annotated[
        str | None, typer.Option("--unseen-by", help="Leave out the rows this model has seen.")
    ] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="ar, diffusion or frozen.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="par04 or calochallenge.")] = None,  # noqa: A002
    batch_size: Annotated[int | None, typer.Option("--batch-size")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="ar: of the prior, 1 = itself.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="ar: among the likeliest indices only.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="ar: among the likeliest of this share only.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="diffusion: sampler steps.")] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="diffusion: heun, euler, ab2, ddim, ddpm or shortcut.")
    ] = None,
    base: Annotated[Path | None, typer.Option("--base", help="Where the model's base lies.")] = None,
    detector: Annotated[str | None, typer.Option("--detector", help="Detector of a base: task, file or toml.")] = None,
    config: Config = None,
    seed: Seed = None,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Generate showers with an adapted model, or with a base at zero shots."""
    from metacalo.generate import GenerateSettings
    from metacalo.generate import generate as run

    settings = GenerateSettings.resolve(
        config,
        showers=showers,
        energy=energy,
        theta=theta,
        phi=phi,
        conditions=conditions,
        unseen_by=unseen_by,
        generator=generator,
        format=format,
        batch_size=batch_size,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        steps=steps,
        sampler=sampler,
        seed=seed,
        device=device,
    )
    written = run(model, out, settings, base=base, detector=_detector(detector), force=force)
    if not quiet:
        _say(f"showers written to {written}")


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
        settings=settings,
        command=_command(),
        force=force,
    )
    for warning in warnings_told(metrics):
        _warn(warning)
    if not quiet:
        _print(table(metrics["samples"]))
        report = f"report {out / 'report.html'}   " if settings.pages else ""
        _say(f"{report}figures {out / 'metrics.json'}   picture {out / 'profiles.png'}")


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
    """Tell what a shower file is, and what is wrong with it."""
    from metacalo.inspect import inspect as run
    from metacalo.inspect_table import draw_inspection, inspection_table

    found = run(file, group=group, showers=showers, quiet=quiet)
    if picture is not None:
        draw_inspection(found, picture, force=force)
    if as_json:
        _say(json.dumps(found.as_json(), indent=2, allow_nan=False))
    elif not quiet:
        _print(inspection_table(found))


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

    settings = ConvertSettings.resolve(None, to=to, grid=grid, mesh=mesh, scale=scale, showers=showers, rows=rows)
    described = _described(absorber, active, description) or _detector(detector)
    written = run(source, out, settings, group=group, described=described, force=force, quiet=quiet, command=_command())
    if not quiet:
        _say(f"{written.showers:,} showers of {written.grid} cells written to {written.path} ({written.convention})")


@app.command()
def score(
    model: Annotated[Path, typer.Option("--model", help="Adapted model, or a base with --detector.")],
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
    batch_size: Annotated[int | None, typer.Option("--batch-size")] = None,
    base: Annotated[Path | None, typer.Option("--base", help="Where the model's base lies.")] = None,
    detector: Annotated[str | None, typer.Option("--detector", help="Detector of a base: task, file or toml.")] = None,
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
        detector=_detector(detector),
        force=force,
        quiet=quiet,
        command=_command(),
    )
    if not quiet:
        _print(score_table(found))
        if settings.outliers:
            _print(outlier_table(found))
        _say(f"scores {out}   summary {out.with_suffix('.json')}")


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="Task to show; all are listed without.")] = None,
    folder: Annotated[list[Path] | None, typer.Option("--folder", help="Folder of tasks of your own.")] = None,
) -> None:
    """List the tasks, or show one."""
    from metacalo.showers.tasks import data_folder, discover_tasks, resolve_task

    folders = [data_folder("tasks"), *(folder or [])]
    if name is not None:
        task = resolve_task(name, *folders)
        _say(task.detector.to_toml().rstrip())
        detector = task.detector
        _say(f"X0 {detector.X0_mm:.2f} mm   R_M {detector.R_M_mm:.1f} mm   E_c {detector.E_c_MeV:.2f} MeV")
        _say(f"{task.n_showers} showers in {task.path.name}")
        return
    table = Table("task", "absorber", "active", "X0 mm", "R_M mm", "E_c MeV", "grid", "showers")
    for task in discover_tasks(*folders).values():
        d = task.detector
        sizes = (f"{d.X0_mm:.2f}", f"{d.R_M_mm:.1f}", f"{d.E_c_MeV:.2f}", str(d.grid), str(task.n_showers))
        table.add_row(escape(task.name), d.absorber or "-", d.active, *sizes)
    _print(table)


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(values) if values else None


def _described(absorber: str | None, active: str | None, description: Path | None) -> Any:
    """The detector that options describe, or None."""
    from metacalo.errors import DetectorError
    from metacalo.showers.detector import Detector

    if description is not None:
        return Detector.from_toml(description)
    if active is not None:
        return Detector.from_layers(absorber, active)
    if absorber is not None:
        message = f"--absorber {absorber} alone describes no calorimeter; give --active too"
        raise DetectorError(message)
    return None


def _detector(text: str | None) -> Any:
    from metacalo.showers.detector import Detector
    from metacalo.showers.tasks import resolve_task

    if text is None:
        return None
    return Detector.from_toml(text) if text.endswith(".toml") else resolve_task(text).detector


def _command() -> str:
    return shlex.join(["metacalo", *sys.argv[1:]])


def _print(what: object) -> None:
    console = Console()
    # a file or a pipe has no width of its own; tables must not be cut there
    (console if console.is_terminal else Console(width=140)).print(what)


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False, emoji=False)


def _warn(text: object) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"warning: {text}", markup=False, emoji=False)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _warn(message)


def main() -> None:
    """Entry point: an error that a user can cause is one sentence and exit code 2."""
    warnings.showwarning = _show_warning
    try:
        app()
    except MetacaloError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"metacalo: {error}", markup=False, emoji=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
