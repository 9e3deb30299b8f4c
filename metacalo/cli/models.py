"""Commands that make models and showers: pretrain, adapt, generate, export, and what they cost: benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from metacalo.cli.app import command_line, say, show
from metacalo.cli.options import (
    Absorber,
    Active,
    BaseOfModel,
    Config,
    Description,
    DetectorOfBase,
    Force,
    LogDir,
    ModelPath,
    NewDetector,
    Out,
    Quiet,
    Resume,
    described_detector,
    named_detector,
)
from metacalo.cli.settings_options import Given, SettingsOptions, command

__all__ = ["adapt", "benchmark", "export", "generate", "pretrain"]


@command(SettingsOptions("metacalo.pretraining.settings:PretrainSettings", tables={"meta": ("algorithm", "engine")}))
def pretrain(
    given: Given,
    out: Out = Path("pretrained/my-base"),
    config: Config = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            metavar="CHOICE",
            help="Only this stage. One of tokenizer, ar, diffusion, distil. May be repeated.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="CHOICE", help="Configuration by name. One of calodit, tiny.")
    ] = None,
    log_dir: LogDir = None,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and do nothing.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Meta-train a base across detectors: tokenizer, autoregressive prior, diffusion transformer, distillation.

    Several processes train together under torchrun: torchrun --nproc-per-node 2 -m metacalo pretrain ...
    """
    from metacalo.pretrain import pretrain as run
    from metacalo.pretraining.plan import plan_pretraining, plan_tables
    from metacalo.pretraining.presets import resolve_recipe

    name = None if config else out.name
    settings = resolve_recipe(preset, config, **{"name": name, **given})
    stages: Any = tuple(stage) if stage else None
    if dry_run:
        for table in plan_tables(plan_pretraining(settings, stages)):
            show(table)
        return
    written = run(settings, out, stages=stages, force=force, resume=resume, command=command_line(), log_dir=log_dir)
    if not quiet:
        say(f"base written to {written}" if written else f"stages finished; run the others to complete {out}")


@command(SettingsOptions("metacalo.adapt:AdaptSettings"))
def adapt(
    detector: NewDetector,
    given: Given,
    out: Out = Path("out/adapted"),
    config: Config = None,
    absorber: Absorber = None,
    active: Active = None,
    description: Description = None,
    log_dir: LogDir = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a base to the showers of a new detector."""
    from metacalo.adapt import AdaptSettings
    from metacalo.adapt import adapt as run
    from metacalo.adaptation.before_after import summary_table

    settings = AdaptSettings.resolve(config, **given)
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


@command(
    SettingsOptions("metacalo.generate:GenerateSettings", {"steps": "--sampler-steps"}),
    formerly={"--steps": "steps"},
)
def generate(
    model: ModelPath,
    given: Given,
    out: Out = Path("out/showers.h5"),
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Generate showers with an adapted model, or with a base at zero shots."""
    from metacalo.generate import GenerateSettings
    from metacalo.generate import generate as run

    settings = GenerateSettings.resolve(config, **given)
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


@command(
    SettingsOptions("metacalo.export:ExportSettings", {"steps": "--sampler-steps"}),
    formerly={"--steps": "steps"},
)
def export(
    model: ModelPath,
    given: Given,
    out: Out = Path("out/model.onnx"),
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write a generator into one ONNX or TorchScript file, for simulation programs in C++."""
    from metacalo.export import ExportSettings
    from metacalo.export import export as run

    settings = ExportSettings.resolve(config, **given)
    written = run(
        model, out, settings, base=base, detector=named_detector(detector), command=command_line(), force=force
    )
    if not quiet:
        say(f"generator written to {written}, described in {written}.json")


@command(SettingsOptions("metacalo.benchmark:BenchmarkSettings"))
def benchmark(
    model: ModelPath,
    given: Given,
    base: BaseOfModel = None,
    detector: DetectorOfBase = None,
    config: Config = None,
    quiet: Quiet = False,
) -> None:
    """Measure what a shower costs on this machine, beside full simulation."""
    from metacalo.benchmark import BenchmarkSettings, cost_table
    from metacalo.benchmark import benchmark as run

    settings = BenchmarkSettings.resolve(config, **given)
    costs = run(model, settings, base=base, detector=named_detector(detector))
    if not quiet:
        show(cost_table(costs, settings))
