"""Fidelity of a base on its tasks, for several numbers of shots, with all generators beside the Geant4 floor.

    python -m benchmarks.fidelity --base base-no-pblar --task pblar --shots 0 50 100 400 1000 --out out/fid

Every row adapts one generator to the shots (at 0 shots it is taken as it is), generates at the energies and angles of
showers that neither adaptation nor pretraining has seen, and compares. The frozen-shower library of the same shots
stands beside, and the generators of other bases (`--beside`). `table.md` and `table.json` are written anew after every
row; `--resume` goes on from there. The defaults take about 20 minutes on two cores, most of it for generating the
10,000 showers of a row among which different ones are counted (`--diversity`). `--ladder` adds a table of every energy
and angle, and `--samplers euler:4 heun:2` (or `all`) rows of other samplers of the diffusion generator, with a picture
of distances against milliseconds.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.fidelity.frontier import frontier
from benchmarks.fidelity.row import (
    BATCH,
    FROZEN,
    FidelitySettings,
    Wanted,
    adapted,
    fixed_files,
    measure,
    seen,
    split,
    task_of,
)
from benchmarks.fidelity.table import markdown
from benchmarks.measuring import workers
from metacalo.adapt import AdaptSettings
from metacalo.errors import ConfigError, MetacaloError, UnknownNameError
from metacalo.evaluate import profile_figure
from metacalo.evaluate.checks import FEWEST
from metacalo.generators.diffusion import DiffusionSettings
from metacalo.generators.samplers import SHORTCUT_STEPS
from metacalo.model_folders.base import Base, resolve_base
from metacalo.runtime.progress import track
from metacalo.showers.shower_file import open_showers
from metacalo.storage.checkpoint import atomic_file, load_json, save_json

ORDERLY_STEPS, RANDOM_STEPS = (1, 2, 4, 8, 16), (50, 400)  # of `--samplers all`
SPEED_SHOWERS, SPEED_SECONDS = 3 * BATCH, 10.0
LIBRARY = 400  # shots of the library whose speed is measured


def planned(
    settings: FidelitySettings,
    tasks: Sequence[str],
    shots: Sequence[int],
    seeds: Sequence[int],
    generators: list[str],
    samplers: Sequence[str] = (),
) -> tuple[list[Wanted], list[str]]:
    """The rows, and a sentence for each one that cannot be.

    Raises:
        MetacaloError: a base, a task, a generator or a folder is not there.
    """
    bases = {name: resolve_base(name) for name in settings.bases}
    known = {FROZEN, *(name for base in bases.values() for name in base.config.generators)}
    for name in generators:
        if name not in known:
            raise UnknownNameError("generator", name, known)
    if min(shots) < 0 or 1 in shots:
        raise ConfigError(f"--shots {' '.join(map(str, shots))}: 0, or 2 and more, are possible")
    if settings.fixed is not None and not Path(settings.fixed).is_dir():
        raise ConfigError(f"--fixed {settings.fixed}: there is no such folder")
    wanted, left_out = [], []
    for name in tasks:
        task = task_of(name, settings)
        with task.open() as file:
            unseen = ~seen(file.hashes(), bases.values())
        if settings.fixed is not None and not fixed_files(settings.fixed, task):
            left_out.append(f"{settings.fixed} holds no file {task.detector.name}_<E>GeV.h5")
        for number in sorted(set(shots)):
            left = len(split(~unseen, number, 0, len(unseen))[1])
            if number > len(unseen) or left < FEWEST:
                left_out.append(
                    f"{name} at {number} shots is left out: of {len(unseen):,} showers, {left} unseen ones would be "
                    f"left to compare with, {FEWEST} are needed; --data may name larger files"
                )
                continue
            wanted += [
                Wanted(name, number, base, generator, seed, sampler)
                for base in bases
                for generator in _generators(bases[base], generators, library=base == settings.bases[0] and number > 0)
                for seed in seeds
                for sampler in _samplers(bases[base], generator, samplers)
            ]
    return list(dict.fromkeys(wanted)), left_out


def _generators(base: Base, chosen: list[str], *, library: bool) -> Iterator[str]:
    for name in (*base.config.generators, *((FROZEN,) if library else ())):
        if not chosen or name in chosen:
            yield name


def _samplers(base: Base, generator: str, chosen: Sequence[str]) -> list[str]:
    """`name:steps` of the samplers of a row; the base's own where none is asked for.

    Raises:
        ConfigError: one is not `name:steps`, or the network has no such sampler.
    """
    if generator != "diffusion" or not chosen:
        return [""]
    settings = base.config.diffusion
    if list(chosen) != ["all"]:
        for sampler in chosen:
            name, colon, steps = sampler.partition(":")
            if not colon or not steps.isdecimal():
                raise ConfigError(f"--samplers {sampler}: give a sampler and its steps, such as euler:4, or all")
            DiffusionSettings.build(
                {**settings.model_dump(), "sampler": name, "steps": int(steps)}, source=f"--samplers {sampler}"
            )
        return list(chosen)
    possible = {
        "shortcut": SHORTCUT_STEPS if settings.dit.shortcuts else (),
        **{name: ORDERLY_STEPS for name in ("euler", "heun", "ddim") if settings.prediction != "noise"},
        "ddpm": RANDOM_STEPS,
    }
    return [f"{name}:{steps}" for name, numbers in possible.items() for steps in numbers]


def run(
    settings: FidelitySettings, wanted: list[Wanted], result: dict[str, Any], out: Path, jobs: int = 1
) -> dict[str, Any]:
    """Measures the rows that `result` does not hold yet, and writes it after each.

    Args:
        settings: see `FidelitySettings`.
        wanted: the rows of the table.
        result: as `fresh` makes it, or read from a table.json.
        out: folder for table.md, table.json and pictures.
        jobs: processes side by side, each with its share of the cores.
    """
    console = Console(soft_wrap=True, highlight=False)
    pictures = out / "showers" if settings.picture_shots else None
    todo = [row for row in wanted if row.key not in result["rows"]]
    with track("fidelity", len(wanted), completed=len(wanted) - len(todo)) as bar:
        for row, found in _measured(todo, settings, pictures, jobs):
            result["rows"][row.key] = found
            _write(result, wanted, out)
            bar.advance()
            values = {name: found["figures"][name]["value"] for name in ("mean_w1", "fpd", "low_level_auc")}
            figures = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)
            console.print(f"{row.key}: {figures} ({found['row_seconds']:.0f} s)")
    for row in wanted:
        label = row.label(settings)
        if label not in result["speed"]:
            result["speed"][label] = speed(row, settings)
    if any(row.sampler for row in wanted):
        with atomic_file(out / "frontier.png") as temporary:
            frontier(result, temporary)
    for task in dict.fromkeys(row.task for row in wanted):
        rows = [row for row in wanted if (row.task, row.shots) == (task, settings.picture_shots)]
        if pictures is not None:
            picture(rows, settings, pictures, out)
    _write(result, wanted, out)
    return result


def _measured(
    rows: list[Wanted], settings: FidelitySettings, pictures: Path | None, jobs: int
) -> Iterator[tuple[Wanted, dict[str, Any]]]:
    """Rows as they are finished."""
    if jobs < 2 or len(rows) < 2:
        yield from ((row, measure(row, settings, pictures)) for row in rows)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    with workers(jobs, threads) as pool:
        futures = {pool.submit(measure, row, settings, pictures): row for row in rows}
        try:
            yield from ((futures[done], done.result()) for done in as_completed(futures))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def speed(row: Wanted, settings: FidelitySettings) -> dict[str, Any]:
    """Milliseconds a shower of a generator, the least of some batches, on all cores."""
    base, task = resolve_base(row.base), task_of(row.task, settings)
    with task.open() as file:
        shots = file.load(slice(0, LIBRARY if row.generator == FROZEN else 0))
        conditions = [np.resize(part, SPEED_SHOWERS) for part in (file.energy, file.theta, file.phi)]
    model, _ = adapted(base, task.detector, shots, row, settings)
    taken, started = [], time.perf_counter()
    last = started
    for _ in model.generate(row.generator, *conditions, batch_size=BATCH, device=settings.device):
        taken.append(time.perf_counter() - last)
        last = time.perf_counter()
        if last - started > SPEED_SECONDS:
            break
    on_cpu = f"the CPU with {torch.get_num_threads()} threads"
    where = on_cpu if settings.device == "cpu" else torch.cuda.get_device_name(settings.device)
    return {"ms": 1e3 * min(taken) / BATCH, "batch": BATCH, "where": where}


def picture(rows: list[Wanted], settings: FidelitySettings, folder: Path, out: Path) -> None:
    """Draws response, profiles and voxel spectrum of the showers in `folder` of some rows, with ratios to Geant4.

    The rows are those of one task and number of shots; the first seed is drawn.
    """
    made = {row.label(settings): row.picture(settings, folder) for row in rows if row.seed == rows[0].seed}
    drawn = {label: path for label, path in made.items() if path.is_file()}
    if not drawn:
        return
    task = task_of(rows[0].task, settings)
    with task.open() as file:
        known = seen(file.hashes(), [resolve_base(base) for base in settings.bases])
        samples = {"Geant4": file.load(split(known, rows[0].shots, rows[0].seed, settings.showers)[1])}
    for label, path in drawn.items():
        with open_showers(path) as file:
            samples[label] = file.load()
    picture = out / f"profiles-{task.name.replace('/', '-')}.png"
    profile_figure(samples, picture, title=f"{task.detector.name}, {rows[0].shots} shots")


def fresh(settings: FidelitySettings, command: str, seeds: Sequence[int], left_out: list[str]) -> dict[str, Any]:
    """A result without rows."""
    bases = {name: resolve_base(name) for name in settings.bases}
    return {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "bases": {name: {"name": base.config.name, "hash": base.hash} for name, base in bases.items()},
        "adapt": AdaptSettings.resolve(settings.config).model_dump(mode="json"),
        "seeds": list(seeds),
        "ladder": False,
        "left_out": left_out,
        "speed": {},
        "rows": {},
    }


def resumed(new: dict[str, Any], path: Path) -> dict[str, Any]:
    """`new` with the rows of a table.json, if there is one and it was made with the same settings and bases.

    Raises:
        ConfigError: it was not.
    """
    if not path.is_file():
        return new
    old = load_json(path)
    names = [key for key, value in new["settings"].items() if old["settings"].get(key) != value]
    names += [what for key, what in (("bases", "weights of a base"), ("adapt", "config")) if old[key] != new[key]]
    if names:
        raise ConfigError(f"{path}: was made with other {', '.join(names)}; leave --resume out or give another --out")
    return new | {name: old[name] for name in ("rows", "speed")}


def _write(result: dict[str, Any], wanted: list[Wanted], out: Path) -> None:
    """Writes what there is, rows in the order in which they were asked for."""
    order = {row.key: index for index, row in enumerate(wanted)}
    result["rows"] = dict(sorted(result["rows"].items(), key=lambda item: order.get(item[0], len(order))))
    save_json(out / "table.json", result)
    with atomic_file(out / "table.md") as temporary:
        temporary.write_text("\n".join([*markdown(result), ""]), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--base", default="base-no-pblar", help="name or folder")
    made.add_argument("--beside", nargs="+", action="extend", default=[], help="other bases, for rows of their own")
    made.add_argument("--task", nargs="+", action="extend", default=[], help="name, folder or shower file")
    made.add_argument("--shots", type=int, nargs="+", default=[0, 50, 100, 400, 1000])
    made.add_argument("--generator", nargs="+", default=[], help="by default all of the base, and frozen")
    made.add_argument("--seeds", type=int, nargs="+", default=[1], help="one row for each; the table has their mean")
    made.add_argument("--data", help="folder of tasks in place of those that ship")
    made.add_argument("--fixed", help="folder of <task>_<E>GeV.h5, for the response at fixed energies")
    made.add_argument("--config", help="TOML of `metacalo adapt`")
    made.add_argument("--showers", type=int, help="generated, and of the reference, at most (3000)")
    made.add_argument("--beside-showers", type=int, help="generated by the other bases, at most (--showers)")
    made.add_argument("--diversity", type=int, help="generated to count different ones among (10000)")
    made.add_argument("--rotations", type=int, help="fifths that classifiers are tested on, 0 to 5 (3)")
    made.add_argument("--picture-shots", type=int, help="shots of the models in the picture, 0 = none (400)")
    made.add_argument("--device", help="cpu or cuda")
    made.add_argument("--samplers", nargs="+", default=[], help="of diffusion: name:steps, or all")
    made.add_argument("--ladder", action="store_true", help="add a table of every energy and angle")
    made.add_argument("--jobs", type=int, default=2, help="rows side by side")
    made.add_argument("--resume", action="store_true", help="keep the rows of an interrupted run")
    made.add_argument("--out", type=Path, default=Path("out/fid"))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses, runs and writes; an error that a user can cause is one sentence."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser().parse_args(arguments))
    base, beside, shots, seeds = (options[name] for name in ("base", "beside", "shots", "seeds"))
    out, tasks = options["out"], options["task"] or ["pblar"]
    try:
        chosen = {name: options[name] for name in FidelitySettings.model_fields if name != "bases"}
        settings = FidelitySettings.resolve(None, bases=(base, *beside), **chosen)
        wanted, left_out = planned(settings, tasks, shots, seeds, options["generator"], options["samplers"])
        result = fresh(settings, shlex.join(["python", "-m", "benchmarks.fidelity", *arguments]), seeds, left_out)
        result = resumed(result, out / "table.json") if options["resume"] else result
        result["ladder"] = options["ladder"]
        run(settings, wanted, result, out, options["jobs"])
    except MetacaloError as error:
        sys.exit(f"fidelity: {error}")
    Console(soft_wrap=True).print(f"{out / 'table.md'} written", highlight=False)


if __name__ == "__main__":
    main()
