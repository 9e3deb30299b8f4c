"""How many steps a diffusion generator needs: fidelity against milliseconds per shower, sampler by sampler.

    python -m benchmarks.sampling --base base --task siw --out out/samp
    python -m benchmarks.sampling --base base --beside out/calodit --task siw --data full-tasks --out out/samp

Every sampler that the diffusion generator of a base can be sampled with is run at numbers of network evaluations from 1
to 400, and the autoregressive generator stands beside as one point. All make showers at the energies and angles of the
same unseen Geant4 showers, in batches of 100; a slow point makes fewer (`--seconds`), and the table tells how many.
`table.md`, `table.json` and `frontier.png` are written anew after every point; `--resume` goes on from there. A point
takes about a minute on two cores, most of it for the classifiers.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from rich.console import Console

from benchmarks.fidelity_row import BATCH, FidelitySettings, adapted, seen, split, task_of
from benchmarks.sampling_table import frontier, markdown
from metacalo.config import Device, Seed, Settings
from metacalo.errors import ConfigError, MetacaloError
from metacalo.evaluate import EvaluateSettings, compare
from metacalo.evaluate.checks import FEWEST
from metacalo.generators.diffusion import Diffusion, DiffusionSettings
from metacalo.generators.samplers import SHORTCUT_STEPS, SamplerName
from metacalo.model_folders.adapted import ShowerModel
from metacalo.model_folders.base import Base, resolve_base
from metacalo.runtime.progress import track
from metacalo.showers.shower_file import Showers
from metacalo.storage.checkpoint import atomic_file, load_json, save_json

__all__ = ["Point", "SamplingSettings", "main", "planned", "run"]

EVALUATIONS = (1, 2, 4, 8, 16, 50, 400)
MOST_ORDERLY, FEWEST_RANDOM = 50, 50  # evaluations beyond which a solver, or below which ancestral steps are not tried


class SamplingSettings(Settings):
    """What decides the figures of a point; a run can only be resumed with the same."""

    bases: tuple[str, ...] = Field(min_length=1, description="names or folders; no reference shower was seen by any")
    task: str = "siw"
    shots: int = Field(default=0, ge=0, description="showers that the bases are adapted to; 0 = as they are")
    data: str | None = Field(default=None, description="folder of tasks in place of those that ship")
    showers: int = Field(default=2000, ge=FEWEST, description="generated, and of the reference, at most")
    seconds: float = Field(default=60.0, gt=0, description="of generating a point, after which no batch is begun")
    evaluations: tuple[int, ...] = Field(default=EVALUATIONS, min_length=1)
    rotations: int = Field(default=3, ge=0, le=5, description="fifths that the classifiers are tested on; 0 = none")
    seed: Seed = 1
    device: Device = "cpu"


class Point(NamedTuple):
    """What is to be measured: a generator of a base, and how it is sampled (None: in its one way)."""

    base: str
    generator: str
    sampler: SamplerName | None = None
    steps: int | None = None

    @property
    def key(self) -> str:
        """Its name in table.json."""
        return " | ".join(str(part) for part in self if part is not None)

    @property
    def evaluations(self) -> int | None:
        """Network evaluations of a shower."""
        return self.steps if self.steps is None or self.sampler != "heun" else 2 * self.steps - 1


def planned(bases: dict[str, Base], evaluations: Sequence[int]) -> list[Point]:
    """The points: every generator of every base, the diffusion ones with every sampler that they can have."""
    return [
        point
        for name, base in bases.items()
        for generator in base.config.generators
        for point in (
            _samplings(name, base.config.diffusion, evaluations)
            if generator == "diffusion"
            else [Point(name, generator)]
        )
    ]


def _samplings(base: str, settings: DiffusionSettings, evaluations: Sequence[int]) -> Iterator[Point]:
    wanted: dict[SamplerName, list[int]] = {
        "shortcut": [n for n in evaluations if n in SHORTCUT_STEPS and settings.dit.shortcuts],
        "euler": [n for n in evaluations if n <= MOST_ORDERLY],
        "heun": [(n + 1) // 2 for n in evaluations if 2 < n <= MOST_ORDERLY],
        "ddim": [n for n in evaluations if n <= MOST_ORDERLY],
        "ddpm": [n for n in evaluations if n >= FEWEST_RANDOM],
    }
    for sampler, steps in wanted.items():
        if settings.prediction != "noise" or sampler == "ddpm":
            yield from (Point(base, "diffusion", sampler, n) for n in steps)


def run(settings: SamplingSettings, result: dict[str, Any], out: Path) -> dict[str, Any]:
    """Measures the points that `result` does not hold yet, and writes it after each.

    Raises:
        ConfigError: too few unseen showers are left to compare with.
        MetacaloError: a base or the task cannot be read.
    """
    bases = {name: resolve_base(name) for name in settings.bases}
    rows = FidelitySettings(bases=settings.bases, data=settings.data, device=settings.device)
    task = task_of(settings.task, rows)
    with task.open() as file:
        known = seen(file.hashes(), bases.values())
        chosen = split(known, settings.shots, settings.seed, settings.showers)
        shots, reference = (file.load(part) for part in chosen)
    if len(reference) < FEWEST:
        raise ConfigError(
            f"{settings.task}: {len(reference)} unseen showers are left to compare with, {FEWEST} are needed; --data "
            "may name larger files"
        )
    points = planned(bases, settings.evaluations)
    console = Console(soft_wrap=True, highlight=False)
    todo = [point for point in points if point.key not in result["points"]]
    models: dict[tuple[str, str], ShowerModel] = {}
    with track("sampling", len(points), completed=len(points) - len(todo)) as bar:
        for point in todo:
            which = point.base, point.generator
            if which not in models:
                base = bases[point.base]
                models[which], _ = adapted(base, task.detector, shots, point.generator, settings.seed, rows)
            found = _measured(point, models[which], reference, settings)
            result["points"][point.key] = found
            _write(result, out)
            bar.advance()
            told = ", ".join(f"{name} {found[name]['value']:.3f}" for name in ("mean_w1", "fpd"))
            console.print(f"{point.key}: {found['ms']:.2f} ms, {told} ({found['showers']['generated']} showers)")
    _write(result, out)
    return result


def _measured(point: Point, model: ShowerModel, reference: Showers, settings: SamplingSettings) -> dict[str, Any]:
    generator = model.generator(point.generator)
    if isinstance(generator, Diffusion):
        generator.choose(point.sampler, point.steps)
    sample, milliseconds = _generated(point, model, reference, settings)
    judge = EvaluateSettings(classifiers=settings.rotations > 0, rotations=max(1, settings.rotations))
    metrics = compare(sample, reference, judge)
    figures = {name: metrics[name] for name in ("mean_w1", "fpd", "low_level_auc", "high_level_auc", "response")}
    return {**point._asdict(), "evaluations": point.evaluations, "ms": milliseconds, **figures} | {
        "showers": metrics["showers"]
    }


def _generated(
    point: Point, model: ShowerModel, reference: Showers, settings: SamplingSettings
) -> tuple[Showers, float]:
    """Showers at the conditions of the reference, and milliseconds of each in the fastest batch of `BATCH`."""
    parts, taken, started = [], [], time.perf_counter()
    last = started
    for part in model.generate(
        point.generator,
        *(reference.energy, reference.theta, reference.phi),
        seed=settings.seed,
        batch_size=BATCH,
        device=settings.device,
    ):
        now = time.perf_counter()
        parts.append(part.showers)
        taken.append((now - last) / len(part))
        if now - started > settings.seconds:
            break
        last = time.perf_counter()
    showers = np.concatenate(parts)
    kept = reference[np.arange(len(showers))]
    return Showers(showers, kept.energy, kept.theta, kept.phi, model.detector), 1e3 * min(taken)


def _write(result: dict[str, Any], out: Path) -> None:
    save_json(out / "table.json", result)
    with atomic_file(out / "table.md") as temporary:
        temporary.write_text("\n".join([*markdown(result), ""]), encoding="utf-8")
    with atomic_file(out / "frontier.png") as temporary:
        frontier(result, temporary)


def fresh(settings: SamplingSettings, command: str) -> dict[str, Any]:
    """A result without points."""
    bases = {name: resolve_base(name) for name in settings.bases}
    on_cpu = f"the CPU with {torch.get_num_threads()} threads"
    return {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "bases": {name: {"name": base.config.name, "hash": base.hash} for name, base in bases.items()},
        "where": on_cpu if settings.device == "cpu" else torch.cuda.get_device_name(settings.device),
        "points": {},
    }


def resumed(new: dict[str, Any], path: Path) -> dict[str, Any]:
    """`new` with the points of a table.json, if there is one and it was made with the same settings and bases.

    Raises:
        ConfigError: it was not.
    """
    if not path.is_file():
        return new
    old = load_json(path)
    for name in ("settings", "bases", "where"):
        if old[name] != new[name]:
            raise ConfigError(f"{path}: was made with other {name}; leave --resume out or give another --out")
    return new | {"points": old["points"]}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--base", default="base", help="name or folder")
    made.add_argument("--beside", nargs="+", action="extend", default=[], help="other bases, for points of their own")
    made.add_argument("--task", help="name, folder or shower file (siw)")
    made.add_argument("--shots", type=int, help="adapt the bases to so many showers (0)")
    made.add_argument("--data", help="folder of tasks in place of those that ship")
    made.add_argument("--showers", type=int, help="generated, and of the reference, at most (2000)")
    made.add_argument("--seconds", type=float, help="of generating a point, after which no batch is begun (60)")
    made.add_argument("--evaluations", type=int, nargs="+", help="of the network (1 2 4 8 16 50 400)")
    made.add_argument("--rotations", type=int, help="fifths that classifiers are tested on, 0 to 5 (3)")
    made.add_argument("--seed", type=int)
    made.add_argument("--device", help="cpu or cuda")
    made.add_argument("--resume", action="store_true", help="keep the points of an interrupted run")
    made.add_argument("--out", type=Path, default=Path("out/samp"))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses, runs and writes; an error that a user can cause is one sentence."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser().parse_args(arguments))
    out = options["out"]
    try:
        chosen = {name: options[name] for name in SamplingSettings.model_fields if name != "bases"}
        settings = SamplingSettings.resolve(None, bases=(options["base"], *options["beside"]), **chosen)
        result = fresh(settings, shlex.join(["python", "-m", "benchmarks.sampling", *arguments]))
        run(settings, resumed(result, out / "table.json") if options["resume"] else result, out)
    except MetacaloError as error:
        sys.exit(f"sampling: {error}")
    Console(soft_wrap=True).print(f"{out / 'table.md'} and {out / 'frontier.png'} written", highlight=False)


if __name__ == "__main__":
    main()
