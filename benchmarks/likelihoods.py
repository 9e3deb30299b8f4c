"""What likelihoods tell apart: another detector, and defects of the same one.

    python -m benchmarks.likelihoods --showers 150 --out out/likelihoods

Scores showers of a task under a base at zero shots. Half of them set the trend; the others are scored as they are, and
as their detector would see them with a dead ring, or with all deposits one layer too deep; beside them, showers of
another task. It writes `table.md`, `table.json` and `scores.png`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from metacalo.errors import MetacaloError
from metacalo.evaluate.figures.style import new_figure
from metacalo.model_folders.adapted import load_model
from metacalo.runtime.pictures import drawing, save_picture
from metacalo.scoring.score_report import Judged, judge, summary
from metacalo.scoring.scores import ScoreSettings, fitted_to, score
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import Task, resolve_task
from metacalo.storage.checkpoint import atomic_folder, save_json

__all__ = ["dead_ring", "main", "shifted"]

_LABELS = {
    "log_likelihood_ar": "ar, ln P of the codes",
    "bound_ar": "ar, ln p of the latents",
    "bound_diffusion": "diffusion, ln p of the latents",
}
_COLOURS = ("#b9ac70", "#9c9ca1", "#e42536", "#5790fc", "#f89c20")
_RING = 2
_RANGE = (-12.0, 4.0)


def dead_ring(showers: Showers, ring: int = _RING) -> Showers:
    """The showers without the deposits in one ring, counted from 0."""
    voxels = showers.showers.copy()
    voxels[:, ring] = 0
    return replace(showers, showers=voxels)


def shifted(showers: Showers) -> Showers:
    """The showers one layer deeper: the first layer is empty, the last one lost."""
    voxels = np.zeros_like(showers.showers)
    voxels[..., 1:] = showers.showers[..., :-1]
    return replace(showers, showers=voxels)


def _draw(task: Task, n: int, seed: int) -> Showers:
    with task.open() as file:
        rows = np.random.default_rng(seed).permutation(len(file))[:n]
        return file.load(rows)


def _samples(task: Task, other: Task, n: int, seed: int) -> dict[str, Showers]:
    both = _draw(task, 2 * n, seed)
    theirs, name = both[n:], task.name
    return {
        f"{name} (trend)": both[:n],
        f"{name}, others": theirs,
        other.name: _draw(other, n, seed),
        f"{name}, ring {_RING} dead": dead_ring(theirs),
        f"{name}, one layer off": shifted(theirs),
    }


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    scores = next(iter(found.values()))["scores"]
    lines = ["| sample | " + " | ".join(_LABELS[name] for name in scores) + " |", "|---" * (1 + len(scores)) + "|"]
    for label, entry in found.items():
        against = [entry["scores"][name]["against"] for name in scores]
        figures = (
            f"{other['auc']:.3f} ± {other['auc_error']:.3f} ({other['mean_deviation']:+.1f})" for other in against
        )
        lines.append(f"| {label} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n"


def _draw_scores(judged: Mapping[str, Judged], path: Path) -> None:
    names = list(next(iter(judged.values())).deviations)
    with drawing(path.name):
        figure = new_figure(11, 3.4)
        figure.set_layout_engine("constrained")
        for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
            edges = np.linspace(*_RANGE, 33)
            for i, ((label, each), colour) in enumerate(zip(judged.items(), _COLOURS, strict=True)):
                # the outer bins take what lies beyond
                counts = np.histogram(np.clip(each.deviations[name], *_RANGE), edges)[0] / len(each.scores)
                axes.stairs(
                    counts, edges, color=colour, label=label, fill=i == 0, alpha=0.6 if i == 0 else 1, linewidth=1.5
                )
            axes.set_title(_LABELS[name], fontsize=10)
            axes.set_xlabel("robust standard deviations from the trend", fontsize=9)
        figure.axes[0].set_ylabel("share of the showers")
        figure.axes[0].legend(fontsize=8, frameon=False, loc="upper left")
        save_picture(figure, path)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--base", default="base", help="name or folder")
    made.add_argument("--task", default="siw", help="name, folder or shower file")
    made.add_argument("--other", default="scipb", help="name, folder or shower file")
    made.add_argument("--showers", type=int, default=150, help="of each sample")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--force", action="store_true", help="replace an existing result")
    made.add_argument("--out", type=Path, default=Path("out/likelihoods"))
    return made


def _run(options: argparse.Namespace, command: str) -> None:
    task, other = resolve_task(options.task), resolve_task(options.other)
    settings = ScoreSettings(seed=options.seed)
    samples = _samples(task, other, options.showers, options.seed)
    with atomic_folder(options.out, force=options.force) as folder:
        model = fitted_to(load_model(options.base, detector=task.detector), next(iter(samples.values())))
        scores = [score(model, sample, settings) for sample in samples.values()]
        judged = dict(zip(samples, judge(*scores), strict=True))
        trend, *labels = judged
        found = {label: summary([judged[trend], judged[label]], outliers=0) for label in labels}
        (folder / "table.md").write_text(_table(found), encoding="utf-8")
        save_json(folder / "table.json", {"command": command, "base_hash": model.base.hash, "samples": found})
        _draw_scores(judged, folder / "scores.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses, runs and writes; an error that a user can cause is one sentence."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    try:
        _run(options, shlex.join(["python", "-m", "benchmarks.likelihoods", *arguments]))
    except MetacaloError as error:
        sys.exit(f"likelihoods: {error}")
    Console(soft_wrap=True).print(f"{options.out / 'table.md'} and scores.png written", highlight=False)


if __name__ == "__main__":
    main()
