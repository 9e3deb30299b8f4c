"""How long, and how many showers, training from scratch needs for what adaptation to a few shots reaches.

    python -m benchmarks.time_to_quality --task pblar --out out/ttq

Everything runs in this process on the same threads: adaptation of a base to the shots, then training of the same
detector's own generator from fresh weights on all of its showers that are not compared with, until all distances
(arithmetic and geometric mean of W1 over observables, FPD) are those of the adapted model or Geant4's own, or `--limit`
is over. Only training counts as its time, not the generation of showers that tells when. Two rivals are trained:

    usual    the preprocessing that such networks have (logits of the cells' energies over the incident one, one
             standardisation for all) and the transformer of the preset calodit, which predicts v, so that 4 steps of
             Heun sample it
    tables   metacalo's own normaliser, of the showers alone, and its diffusion transformer

Then each rival is trained on fewer and fewer showers (`--efficiency` seconds each): how many it needs for the distances
of the adapted model. `--resume` keeps what is finished.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from rich.console import Console

from benchmarks.fidelity.row import split
from benchmarks.measuring import limit_threads, seconds_of_work
from benchmarks.meta.row import compared, distances
from metacalo.adapt import AdaptSettings, adapted_model
from metacalo.detectors.detector import Detector
from metacalo.errors import ConfigError, MetacaloError
from metacalo.evaluate.figures.style import new_figure
from metacalo.generators.base import bf16
from metacalo.generators.diffusion import CALODIT, Diffusion, DiffusionSettings
from metacalo.meta.outer_loop import average_decay
from metacalo.model_folders.adapted import ShowerModel, zero_shot
from metacalo.model_folders.base import Base, resolve_base
from metacalo.normaliser.preprocessing import PREPROCESSING, PreprocessingName
from metacalo.normaliser.response import convention_scale
from metacalo.runtime.pictures import drawing, save_picture
from metacalo.runtime.progress import track
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import Task, resolve_task
from metacalo.storage.checkpoint import atomic_file, load_json, save_json
from metacalo.training_data.shower_pool import ShowerPool

DISTANCES = ("w1", "geometric_w1", "fpd")
NAME: Literal["diffusion"] = "diffusion"
BATCH, AVERAGE = 64, 0.995
_EXTENDABLE = ("rivals", "fewer")  # settings that a resumed run may have others of
FIRST_LOOK, BETWEEN = 10.0, 2.0  # seconds to the first comparison, and the factor from one to the next


class Rival(NamedTuple):
    """A generator that is trained from scratch."""

    preprocessing: PreprocessingName
    settings: DiffusionSettings
    learning_rate: float


def rivals(base: Base) -> dict[str, Rival]:
    """The usual way and metacalo's own networks."""
    usual = CALODIT.model_copy(update={"prediction": "v", "sampler": "heun", "steps": 4, "clip": None})
    return {"tables": Rival("tables", base.config.diffusion, 2e-3), "usual": Rival("log", usual, 5e-4)}


def looks(limit: float) -> Iterator[float]:
    """Seconds of training at which showers are compared; the last one is `limit`.

    Example:
        >>> [round(seconds) for seconds in looks(20.0)]
        [10, 20]
    """
    for n in count():
        seconds = min(FIRST_LOOK * BETWEEN**n, limit)
        yield seconds
        if seconds >= limit:
            return


def passed(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether all distances are no more than those `wanted`."""
    return all(found[key] <= wanted[key] for key in DISTANCES)


def adaptation(base: Base, task: Task, shots: Showers, unseen: Showers, seed: int) -> dict[str, Any]:
    """Distances of the adapted model, and the seconds that normaliser and network took."""
    before = zero_shot(base, task.detector, scale=convention_scale(shots.showers, shots.energy))
    settings = AdaptSettings(base=base.config.name, shots=len(shots), generator=NAME, seed=seed)
    started = seconds_of_work()
    model, _ = adapted_model(before, shots, settings, quiet=True)
    seconds = seconds_of_work() - started
    return {"shots": len(shots), "seconds": seconds, **distances(model, NAME, unseen, seed, "cpu")}


def training(
    rival: Rival,
    base: Base,
    detector: Detector,
    showers: Showers,
    unseen: Showers,
    *,
    wanted: dict[str, Any],
    limit: float,
    seed: int,
    keep: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """Distances against seconds of training from fresh weights, until they are those `wanted` or `limit` is over.

    `keep` is given all that was found after each comparison.
    """
    torch.manual_seed(seed)
    noise = torch.Generator().manual_seed(seed)
    clock = seconds_of_work()
    normaliser = PREPROCESSING[rival.preprocessing].fit(showers)
    pool = ShowerPool(showers, normaliser, detector, cells="cells" in rival.settings.weights.components)
    network = Diffusion(rival.settings, base.config.grid, base.config.condition_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rival.learning_rate, betas=(0.9, 0.99), fused=True)
    average = deepcopy(network).eval()
    trained = seconds_of_work() - clock
    found: list[dict[str, Any]] = []
    steps = 0
    with track(f"{rival.preprocessing}, {len(showers)} showers", round(limit)) as bar:
        for until in looks(limit):
            clock, before = seconds_of_work(), trained
            network.train()
            while trained < until:
                batch = pool.batch(pool.rows(BATCH, noise), noise)
                optimizer.zero_grad(set_to_none=True)
                with bf16("cpu"):
                    loss = network.loss(batch, noise)
                torch.autograd.backward(loss)
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                steps += 1
                _take_in(average, network, steps)
                trained = before + seconds_of_work() - clock
            bar.advance(round(until) - round(before), loss=float(loss.detach()) if steps else 0.0)
            model = ShowerModel(base, detector, normaliser, {NAME: average})
            found.append({"seconds": trained, "steps": steps, **distances(model, NAME, unseen, seed, "cpu")})
            keep(found)
            if passed(found[-1], wanted):
                break
    return found


@torch.no_grad()
def _take_in(average: Diffusion, network: Diffusion, step: int) -> None:
    """As pretraining averages."""
    decay = average_decay(AVERAGE, step)
    for kept, parameter in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(parameter, 1 - decay)


def markdown(result: dict[str, Any]) -> str:
    """Time to quality, data efficiency, and the curves behind them."""
    adapted, wanted, limit = result["adapted"], _wanted(result), result["settings"]["limit"]
    lines = [
        "# Time to quality",
        "",
        f"    {result['command']}",
        "",
        f"Base {result['settings']['base']}, {result['settings']['task']}, {result['settings']['threads']} threads; "
        f"{result['showers']['unseen']:,} generated showers against as many unseen ones. Adapted to {adapted['shots']} "
        f"shots in {adapted['seconds']:.1f} s: W1 {_three(adapted)}; Geant4 itself: {_three(result['floor'])}.",
        "",
        "| from scratch | showers | seconds | steps | mean W1 | geometric | FPD | passed | time over adaptation's |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for key, curve in result["curves"].items():
        name, n = key.split(" | ")
        last = curve[-1]
        done = passed(last, wanted)
        ratio = f"{'' if done else '> '}{last['seconds'] / adapted['seconds']:.0f}"
        lines.append(
            f"| {name} | {int(n):,} | {last['seconds']:.0f} | {last['steps']:,} | {last['w1']:.3f} | "
            f"{last['geometric_w1']:.3f} | {last['fpd']:.2f} | {'yes' if done else 'no'} | {ratio} |"
        )
    lines += [
        "",
        f"Rows of all {result['showers']['most']:,} showers were trained for {limit:.0f} s at most, others for "
        f"{result['settings']['efficiency']:.0f} s; all until they pass the adapted model.",
    ]
    return "\n".join(lines) + "\n"


def _wanted(result: dict[str, Any]) -> dict[str, float]:
    """The distances of the adapted model, or of Geant4's own showers where they happen to be larger."""
    return {key: max(result["adapted"][key], result["floor"][key]) for key in DISTANCES}


def _three(found: dict[str, Any]) -> str:
    return f"{found['w1']:.3f} (geometric {found['geometric_w1']:.3f}), FPD {found['fpd']:.2f}"


def picture(result: dict[str, Any], out: Path) -> None:
    """`curves.png`: the distances against seconds, for training on all showers."""
    with drawing("curves.png"):
        figure = new_figure(12, 3.6)
        figure.set_layout_engine("constrained")
        axes = figure.subplots(1, 3)
        for axis, key, label in zip(
            axes, DISTANCES, ("mean W1 [standard deviations]", "geometric mean of W1", "FPD"), strict=True
        ):
            for name, curve in result["curves"].items():
                if name.endswith(f" {result['showers']['most']}"):
                    axis.plot(
                        [c["seconds"] for c in curve],
                        [c[key] for c in curve],
                        marker="o",
                        ms=3,
                        label=name.split(" ")[0],
                    )
            axis.plot(result["adapted"]["seconds"], result["adapted"][key], "k*", ms=10, label="adapted")
            axis.axhline(result["floor"][key], color="grey", ls=":", label="Geant4")
            axis.set(xscale="log", yscale="log", xlabel="seconds", ylabel=label)
            axis.legend(frameon=False, fontsize=8)
        save_picture(figure, out / "curves.png")


def _run(chosen: argparse.Namespace, command: str) -> None:
    out, file = Path(chosen.out), Path(chosen.out) / "table.json"
    settings = {key: value for key, value in vars(chosen).items() if key not in ("out", "resume")}
    limit_threads(chosen.threads)
    base, task = resolve_base(chosen.base), resolve_task(chosen.task)
    with task.open() as showers:
        seen = np.isin(showers.hashes(), base.seen)
        if seen.any():
            raise ConfigError(
                f"base '{base.config.name}' was trained on '{task.name}'; give one that never saw it by --base"
            )
        if min(chosen.shots, chosen.showers) < 20 or chosen.shots + chosen.showers > len(seen):
            raise ConfigError(
                f"{showers.path}: holds {len(seen)} showers, --shots {chosen.shots} and --showers {chosen.showers} "
                "want 20 or more each, and no more than that together"
            )
        order, unseen = split(seen, len(seen) - chosen.showers, chosen.seed, chosen.showers)
        every, reference = showers.load(order), showers.load(unseen)
    draw = np.random.default_rng(chosen.seed).permutation(len(every))
    if file.exists() and chosen.resume:
        result = {key: value for key, value in load_json(file).items() if key != "unfinished"}
        if any(result["settings"].get(key) != value for key, value in settings.items() if key not in _EXTENDABLE):
            raise ConfigError(f"{file}: was made with other settings; give --out another folder")
    else:
        result = {"command": command, "settings": settings, "curves": {}}
        result["showers"] = {"unseen": len(reference), "most": len(every)}
        result["floor"] = compared(reference, every.select(draw[: len(reference)]))
        result["adapted"] = adaptation(base, task, every.select(np.sort(draw[: chosen.shots])), reference, chosen.seed)
        out.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True, highlight=False)
    for name, rival in rivals(base).items():
        for n in (len(every), *(n for n in chosen.fewer if n < len(every))):
            key = f"{name} | {n}"
            if key in result["curves"] or name not in chosen.rivals:
                continue

            def keep(curve: list[dict[str, Any]], key: str = key) -> None:
                save_json(file, {**result, "unfinished": {key: curve}})

            curve = training(
                rival,
                base,
                task.detector,
                every.select(np.sort(draw[:n])),
                reference,
                wanted=_wanted(result),
                limit=chosen.limit if n == len(every) else chosen.efficiency,
                seed=chosen.seed,
                keep=keep,
            )
            result["curves"][key] = curve
            save_json(file, result)
            with atomic_file(out / "table.md") as temporary:
                temporary.write_text(markdown(result), encoding="utf-8")
            console.print(f"{key}: {curve[-1]['seconds']:.0f} s, W1 {curve[-1]['w1']:.3f}, FPD {curve[-1]['fpd']:.2f}")
    picture(result, out)
    console.print(f"{out / 'table.md'} written")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="base-no-pblar", help="one that never saw the task")
    parser.add_argument("--task", default="pblar")
    parser.add_argument("--shots", type=int, default=400)
    parser.add_argument("--showers", type=int, default=1000, help="generated, and kept as reference")
    parser.add_argument("--limit", type=float, default=3600, help="seconds of training on all showers, at most")
    parser.add_argument("--efficiency", type=float, default=300, help="seconds of training on fewer, at most")
    parser.add_argument("--fewer", type=int, nargs="*", default=[50, 100, 200, 400, 800, 1600], help="showers")
    parser.add_argument("--rivals", nargs="+", choices=("usual", "tables"), default=["tables", "usual"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--resume", action="store_true", help="keep what is finished")
    parser.add_argument("--out", default="out/ttq")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _run(parser.parse_args(given), f"python -m benchmarks.time_to_quality {' '.join(given)}")
    except MetacaloError as error:
        Console(stderr=True, soft_wrap=True).print(f"time_to_quality: {error}", markup=False)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
