"""What several processes buy, and what pretraining on five detectors of a million showers each would cost.

    python -m benchmarks.speed processes --processes 1 2 --out out/scaling

Each number of processes is a run of torchrun on the same tasks with the networks of the default recipe: mixed steps
and meta-steps of both generators, as showers per second. On the CPU the clock is that of the busiest process's
own work (`measuring`): what processes with a core each would take, whatever else the machine does; waiting for one
another is not in it. Below: hours for LEMURS, from floating-point operations and from the preparation of data.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import seconds_of_work
from metacalo.generators.base import ShowerGenerator, bf16
from metacalo.meta.algorithms import Algorithm, resolve_algorithm
from metacalo.meta.engines import resolve_engine
from metacalo.model_folders.base import build_generator
from metacalo.pretraining.plan import base_config
from metacalo.pretraining.settings import PretrainSettings
from metacalo.runtime.distributed import Ranks, joined_ranks
from metacalo.storage.checkpoint import load_json, save_json
from metacalo.training_data.episodes import TaskStream
from metacalo.training_data.sampler import EpisodeSampler, draw_generators
from metacalo.training_data.shower_pool import ShowerPool
from metacalo.training_data.task_streams import pretraining_tasks, training_data

TASKS, CAPACITY = 4, 512
LEMURS = 5_000_000  # showers: 5 detectors, a million each
PASSES = 20  # over all showers, of each generator
PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0}  # dense bfloat16, of the data sheets
UTILISATION = (0.01, 0.10)  # assumed: networks this narrow are bound by kernel launches and memory, not by arithmetic


class Measured(NamedTuple):
    """One kind of step of one generator.

    Attributes:
        generator: ar or diffusion.
        kind: mixed or meta.
        showers: of a step, of all processes together.
        seconds: of a step, of the busiest process.
        prepared: of these, before the network sees anything.
    """

    generator: str
    kind: str
    showers: int
    seconds: float
    prepared: float


def measure(ranks: Ranks, device: str, steps: int) -> dict[str, Any]:
    """All steps, medians of `steps` after one that warms up; operations and encoding by the first process."""
    recipe = PretrainSettings.build({"device": device, "most_tasks": TASKS, "capacity": CAPACITY})
    place = ranks.device(device)
    data = training_data(
        pretraining_tasks((), ())[:TASKS],
        reserve_one_in=0,
        capacity=CAPACITY,
        cells=False,
        quiet=not ranks.first,
    )
    config = base_config(recipe, data.grid, data.counts, None, "")
    measured, flops = [], {}
    for name in recipe.generators:
        torch.manual_seed(1)
        model = build_generator(name, config)
        if name == "ar":
            _fill_codebooks(model, data.streams[0].draw(64, torch.Generator()).latents)
        model = model.to(place).train()
        kind = resolve_algorithm(recipe.meta.algorithm)
        algorithm = kind(model, resolve_engine(recipe.meta.engine), rate=recipe.meta.inner_rate)
        sampler = EpisodeSampler(data.streams, torch.Generator().manual_seed(1), slices=recipe.slices, ranks=ranks)
        for step in (_mixed(model, sampler, recipe, place), _meta(algorithm, sampler, recipe, place, ranks)):
            measured.append(_timed(name, step, algorithm, ranks, place, steps))
        batch = data.streams[0].draw(8, torch.Generator()).to(place)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(model.loss(batch, torch.Generator()))
        flops[name] = counter.get_total_flops() / 8
    return {"steps": [each._asdict() for each in measured], "flop": flops, "encode": _encoding(data.streams[0])}


class _Step(NamedTuple):
    kind: str
    showers: int
    draw: Callable[[], Any]
    take: Callable[[Any, torch.Generator], torch.Tensor]


def _mixed(model: ShowerGenerator, sampler: EpisodeSampler, recipe: PretrainSettings, place: str) -> _Step:
    n = recipe.train_ar.batch

    def take(batch: Any, noise: torch.Generator) -> torch.Tensor:
        with bf16(place):
            loss: torch.Tensor = model.loss(batch, noise) * batch.share
        torch.autograd.backward(loss)
        return loss

    return _Step("mixed", n, lambda: sampler.mixed_batch(n).to(place), take)


def _meta(algorithm: Algorithm, sampler: EpisodeSampler, recipe: PretrainSettings, place: str, ranks: Ranks) -> _Step:
    meta = recipe.meta
    sizes = {"inner_steps": meta.inner_steps, "support": meta.support, "query": meta.query}

    def draw() -> Any:
        return [episode.to(place) for episode in sampler.episodes(meta.tasks, **sizes)]

    def take(episodes: Any, noise: torch.Generator) -> torch.Tensor:
        noises = draw_generators(meta.tasks, noise)
        with bf16(place):
            return algorithm.share_of_step(episodes, [noises[i] for i in ranks.share(meta.tasks)], meta.tasks)

    return _Step("meta", meta.tasks * (meta.inner_steps * meta.support + meta.query), draw, take)


def _timed(name: str, step: _Step, algorithm: Algorithm, ranks: Ranks, place: str, steps: int) -> Measured:
    clock = "cpu" if place == "cpu" else "cuda"
    whole, prepared, noise = [], [], torch.Generator().manual_seed(2)
    for _ in range(1 + steps):
        algorithm.model.zero_grad(set_to_none=True)
        started = seconds_of_work(clock)
        drawn = step.draw()
        prepared.append(seconds_of_work(clock) - started)
        ranks.add_up(algorithm.parameters(), step.take(drawn, noise))
        whole.append(seconds_of_work(clock) - started)
    # sums over processes of what each alone fills in: all see the times of all
    own = [0.0] * (2 * ranks.world)
    own[2 * ranks.rank : 2 * ranks.rank + 2] = median(whole[1:]), median(prepared[1:])
    times = ranks.total(own)
    return Measured(name, step.kind, step.showers, max(times[::2]), max(times[1::2]))


def _fill_codebooks(model: Any, latents: Any) -> None:
    """Fills the codebooks once: their k-means is no part of a step."""
    model.tokenizer.train().loss(latents)
    model.tokenizer.eval()


def _encoding(stream: TaskStream) -> float:
    """Seconds in which a shower of a new part of a large file is read and encoded."""
    pool, _ = stream.draw_rows(1, torch.Generator())
    with stream.task.open() as file:
        started = seconds_of_work()
        ShowerPool(file.load(slice(0, 256)), pool.normaliser, stream.task.detector, cells=False)
    return (seconds_of_work() - started) / 256


def hours(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Hours of one process for LEMURS by what bounds them: lowest and highest."""
    draws = LEMURS * PASSES
    flop = sum(found["flop"].values()) * draws
    bounds = [
        (f"arithmetic on one {gpu}", *(flop / (peak * 1e12 * share) / 3600 for share in reversed(UTILISATION)))
        for gpu, peak in PEAK_TFLOPS.items()
    ]
    mixed = [step for step in found["steps"] if step["kind"] == "mixed"]
    prepared = sum(step["prepared"] / step["showers"] for step in mixed) * draws / 3600
    encoded = found["encode"] * len(mixed) * draws / 3600
    return [*bounds, ("preparation of data on one core", prepared, prepared + encoded)]


def tables(runs: dict[int, dict[str, Any]]) -> list[Table]:
    """Throughput by the number of processes, and hours for LEMURS."""
    speed = Table("generator", "step", title="throughput", title_justify="left")
    for column in ("showers", "processes", "s/step", "of it data", "showers/s", "efficiency"):
        speed.add_column(column, justify="right")
    first = min(runs)
    for world, found in runs.items():
        for step, alone in zip(found["steps"], runs[first]["steps"], strict=True):
            gain = alone["seconds"] * first / (step["seconds"] * world)
            cells = (f"{step['seconds']:.3f}", f"{step['prepared'] / step['seconds']:.0%}")
            rate = f"{step['showers'] / step['seconds']:.0f}"
            speed.add_row(
                step["generator"], step["kind"], str(step["showers"]), str(world), *cells, rate, f"{gain:.0%}"
            )
    lemurs = Table("bound", title=f"hours for {LEMURS:,} showers, {PASSES} passes of both generators")
    for column in ("from", "to"):
        lemurs.add_column(column, justify="right")
    for name, low, high in hours(runs[first]):
        lemurs.add_row(name, f"{low:.2g}", f"{high:.2g}")
    return [speed, lemurs]


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed processes", description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/scaling"))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.worker is not None:
        with joined_ranks() as ranks:
            found = measure(ranks, chosen.device, chosen.steps)
            if ranks.first:
                save_json(chosen.worker, found)
        return
    runs = {}
    for world in chosen.processes:
        file = chosen.out / f"processes-{world}.json"
        worker = ["--worker", str(file), "--device", chosen.device, "--steps", str(chosen.steps)]
        launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        subprocess.run([sys.executable, "-m", *launch, "-m", "benchmarks.speed.processes", *worker], check=True)
        runs[world] = load_json(file)
    for table in tables(runs):
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
