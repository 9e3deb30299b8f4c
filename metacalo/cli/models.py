"""Commands that make models and showers: pretrain, adapt, generate, export, and what they cost: benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from metacalo.cli.app import app, command_line, say, show
from metacalo.cli.options import (
    Absorber,
    Active,
    BaseName,
    BaseOfModel,
    BatchSize,
    Config,
    Description,
    DetectorOfBase,
    Device,
    Force,
    LogDir,
    ModelPath,
    NewDetector,
    Out,
    Quiet,
    Resume,
    Seed,
    Steps,
    described_detector,
    named_detector,
    several,
)

__all__ = ["adapt", "benchmark", "export", "generate", "pretrain"]


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
    preset: Annotated[str | None, typer.Option("--preset", help="Configuration by name: calodit or tiny.")] = None,
    algorithm: Annotated[
        str | None,
        typer.Option("--algorithm", help="maml, fomaml, anil, meta-sgd, cavia, reptile or multitask."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="What takes inner steps: higher, torch or learn2learn.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the base.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Steps of each stage, at most.")] = None,
    log_dir: LogDir = None,
    seed: Seed = None,
    device: Device = None,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and do nothing.")] = False,
    force: Force = False,
) -> None:
    """Meta-train a base across detectors: tokenizer, autoregressive prior, diffusion transformer, distillation.

    Several processes train together under torchrun: torchrun --nproc-per-node 2 -m metacalo pretrain ...
    """
    from metacalo.plan import plan_pretraining, plan_tables
    from metacalo.presets import resolve_recipe
    from metacalo.pretrain import pretrain as run

    settings = resolve_recipe(
        preset,
        config,
        tasks=several(tasks),
        holdout=several(holdout),
        initial=initial,
        name=name or (None if config else out.name),
        max_steps=max_steps,
        seed=seed,
        device=device,
        meta={"algorithm": algorithm, "engine": engine},
    )
    stages: Any = tuple(stage) if stage else None
    if dry_run:
        for table in plan_tables(plan_pretraining(settings, stages)):
            show(table)
        return
    written = run(settings, out, stages=stages, force=force, resume=resume, command=command_line(), log_dir=log_dir)
    say(f"base written to {written}" if written else f"stages finished; run the others to complete {out}")


@app.command()
def adapt(
    detector: NewDetector,
    out: Out = Path("out/adapted"),
    base: BaseName = None,
    shots: Annotated[int | None, typer.Option("--shots", help="Showers to adapt on.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="ar, diffusion, both or frozen.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="What moves: conditioning, bias, conditioning+bias, modulation, low-rank, adapters or full.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps per generator, at most.")] = None,
    config: Config = None,
    absorber: Absorber = None,
    active: Active = None,
    description: Description = None,
    log_dir: LogDir = None,
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
    described = described_detector(absorber, active, description)
    result = run(
        detector,
        out,
        settings,
        described=described,
        force=force,
        quiet=quiet,
        command=command_line(),
        log_dir=log_dir,
    )
    if not quiet:
        show(summary_table(result.metrics))
        picture = result.out / "profiles.png"
        drawn = f"   picture {picture}" if picture.exists() else ""
        say(f"model {result.out}{drawn}   {result.metrics['seconds']['total']:.1f} s")


@app.command()
def generate(
    model: ModelPath,
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
    batch_size: BatchSize = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="ar: of the prior, 1 = itself.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="ar: among the likeliest indices only.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="ar: among the likeliest of this share only.")] = None,
    steps: Steps = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="diffusion: heun, euler, ab2, ddim, ddpm or shortcut.")
    ] = None,
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    seed: Seed = None,
    device: Device = None,
    resume: Resume = False,
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
    written = run(
        model,
        out,
        settings,
        base=base,
        detector=named_detector(detector),
        force=force,
        resume=resume,
        command=command_line(),
    )
    if not quiet:
        say(f"showers written to {written}")


@app.command()
def export(
    model: ModelPath,
    out: Out = Path("out/model.onnx"),
    generator: Annotated[str | None, typer.Option("--generator", help="ar or diffusion.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="onnx or torchscript.")] = None,  # noqa: A002
    interface: Annotated[
        str | None, typer.Option("--interface", help="par04 (Geant4's example), or named: with a seed, in MeV.")
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="ar: of the prior, 1 = itself.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="ar: among the likeliest indices only.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="ar: among the likeliest of this share only.")] = None,
    steps: Steps = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="diffusion: heun, euler, ab2, ddim or shortcut.")
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="Version of ONNX's operators, 18 to 20.")] = None,
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    seed: Annotated[int | None, typer.Option("--seed", help="par04 in ONNX: the same noise in every session.")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write a generator into one ONNX or TorchScript file, for simulation programs in C++."""
    from metacalo.export import ExportSettings
    from metacalo.export import export as run

    settings = ExportSettings.resolve(
        config,
        generator=generator,
        format=format,
        interface=interface,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        steps=steps,
        sampler=sampler,
        opset=opset,
        seed=seed,
    )
    written = run(
        model, out, settings, base=base, detector=named_detector(detector), command=command_line(), force=force
    )
    if not quiet:
        say(f"generator written to {written}, told in {written}.json")


@app.command()
def benchmark(
    model: ModelPath,
    energy: Annotated[float | None, typer.Option("--energy", help="GeV, of all showers.")] = None,
    showers: Annotated[int | None, typer.Option("--showers", help="Timed one by one, and as many in a batch.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Threads of each run.")] = None,
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    seed: Seed = None,
) -> None:
    """Measure what a shower costs on this machine, beside full simulation."""
    from metacalo.benchmark import BenchmarkSettings, cost_table
    from metacalo.benchmark import benchmark as run

    settings = BenchmarkSettings.resolve(config, energy=energy, showers=showers, threads=threads, seed=seed)
    costs = run(model, settings, base=base, detector=named_detector(detector))
    show(cost_table(costs, settings))
