"""The study as Markdown and as pictures: what adaptation gains from each base and by each method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.meta.row import BOUND, FROM_SCRATCH
from benchmarks.meta.training import BASELINE
from metacalo.evaluate.figures.style import new_figure
from metacalo.runtime.pictures import drawing, save_picture

__all__ = ["markdown", "paired", "pictures", "steps_to"]

Row = Mapping[str, Any]


def paired(rows: Sequence[Row], others: Sequence[Row], key: str) -> tuple[float, float | None, int]:
    """Mean of `key` of `rows` less that of `others` of the same seeds, its standard error (None for one), and how many.

    Example:
        >>> ours, theirs = ([{"seed": s, "loss": v + s} for s in (1, 2)] for v in (1.0, 3.0))
        >>> paired(ours, theirs, "loss")
        (-2.0, 0.0, 2)
    """
    known = {row["seed"]: row[key] for row in others}
    differences = [row[key] - known[row["seed"]] for row in rows if row["seed"] in known]
    if not differences:
        return float("nan"), None, 0
    error = float(np.std(differences, ddof=1)) / sqrt(len(differences)) if len(differences) > 1 else None
    return float(np.mean(differences)), error, len(differences)


def steps_to(row: Row, loss: float) -> int | None:
    """The first check of an adaptation at which the held-back loss was no more than `loss`.

    Example:
        >>> steps_to({"checks": [[0, 3.0], [10, 2.0], [20, 1.0]]}, 2.0), steps_to({"checks": [[0, 3.0]]}, 2.0)
        (10, None)
    """
    return next((int(step) for step, value in row["checks"] if value <= loss), None)


def markdown(result: Mapping[str, Any]) -> str:
    """All tables; see `benchmarks.meta`."""
    rows, settings = list(result["rows"].values()), result["settings"]
    lines = [
        "# Meta-learning",
        "",
        f"    {result['command']}",
        "",
        f"Generator {settings['generator']}; seeds {', '.join(map(str, settings['seeds']))} of the shots and of "
        "adaptation. Loss: of unseen showers, less that of multi-task training before the first step of adaptation on "
        "the same normaliser, in units of 0.001, mean over seeds, in brackets the standard error. `to multitask`: the "
        "loss less that of multi-task training + the same method, seed by seed. Distances are means over observables "
        "in standard deviations. `steps`: until the held-back loss is the best one of multi-task training + the same "
        "method (`-`: in no run). Seconds are those of normaliser and network. From scratch: fresh weights behind "
        "metacalo's normaliser (`scratch`) or the usual preprocessing (`usual`, `normaliser.log_normaliser`), both of "
        f"the shots alone. `{BOUND}`: multi-task training moved by all showers of the detector that are not compared "
        "with, under the normaliser of the shots, as far as weights can gain.",
    ]
    for heldout in settings["heldout"]:
        of = [row for row in rows if row["heldout"] == heldout]
        if of:
            lines += ["", f"## {heldout} never seen", "", *_bases(result["bases"].get(heldout, {}))]
            lines += ["", "### Against training from scratch", "", *_gains(of, settings)]
            lines += ["", "### Loss less that of multi-task training", "", *_matrix(of, settings)]
            lines += ["", "### Algorithms", "", *_arms(of, settings, by_algorithm=True)]
            lines += ["", "### Methods, after multi-task training", "", *_arms(of, settings, by_algorithm=False)]
    if result["missing"]:
        lines += ["", f"Not measured, the budget being spent: {len(result['missing'])} rows; `--resume` goes on."]
    return "\n".join(lines) + "\n"


def _bases(bases: Mapping[str, Row]) -> list[str]:
    lines = ["| base | outer steps | seconds | inner rate |", "|---|---:|---:|---:|"]
    for name, base in bases.items():
        rate = "-" if base["inner_rate"] is None else f"{base['inner_rate']:g}"
        lines.append(f"| {name} | {base['steps']:,} | {base['seconds']:.0f} | {rate} |")
    return lines


def _method(algorithm: str, best: str) -> str:
    return "full" if algorithm in FROM_SCRATCH else best


def _gains(rows: Sequence[Row], settings: Mapping[str, Any]) -> list[str]:
    """How much lower the geometric mean of W1 is after adaptation than from scratch, seed by seed."""
    lines = [
        "| shots | geometric W1, multi-task + "
        + settings["best_method"]
        + "".join(f" | {name} | lower by" for name in FROM_SCRATCH)
        + " |",
        "|---" * (2 + 2 * len(FROM_SCRATCH)) + "|",
    ]
    for shots in settings["shots"]:
        of = {
            name: {
                r["seed"]: r["geometric_w1"]
                for r in rows
                if (r["shots"], r["algorithm"], r["method"]) == (shots, name, method)
            }
            for name, method in ((BASELINE, settings["best_method"]), *((name, "full") for name in FROM_SCRATCH))
        }
        cells = [str(shots), f"{np.mean(list(of[BASELINE].values())):.3f}" if of[BASELINE] else "-"]
        for name in FROM_SCRATCH:
            both = sorted(of[name].keys() & of[BASELINE].keys())
            lower = [100 * (1 - of[BASELINE][seed] / of[name][seed]) for seed in both]
            cells += (
                [f"{np.mean([of[name][seed] for seed in both]):.3f}", f"{np.mean(lower):.0f} %"] if both else ["-", "-"]
            )
        if len(set(cells[2:])) > 1:
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _matrix(rows: Sequence[Row], settings: Mapping[str, Any]) -> list[str]:
    """The paired differences of loss alone: algorithms down, shots across."""
    best, shots = settings["best_method"], settings["shots"]
    lines = ["| algorithm | " + " | ".join(f"{n} shots" for n in shots) + " |", "|---|" + "---:|" * len(shots)]
    for name in (*settings["algorithms"], BOUND):
        arms = [[row for row in rows if (row["algorithm"], row["method"]) == (arm, best)] for arm in (name, BASELINE)]
        at = [[[row for row in arm if row["shots"] == n] for arm in arms] for n in shots]
        if name != BASELINE and any(found for found, _ in at):
            lines.append(f"| {name} | " + " | ".join(_difference(*pair) for pair in at) + " |")
    return lines


def _arms(rows: Sequence[Row], settings: Mapping[str, Any], *, by_algorithm: bool) -> list[str]:
    head = "| shots | algorithm | method | share | loss | to multitask | mean W1 | geometric | FPD | steps | seconds |"
    lines = [head, "|---|---|---|" + "---:|" * 8]
    best = settings["best_method"]
    for shots in settings["shots"]:
        here = [row for row in rows if row["shots"] == shots]
        if by_algorithm:
            arms = [(name, _method(name, best)) for name in (*FROM_SCRATCH, *settings["algorithms"], BOUND)]
        else:
            arms = [(BASELINE, method) for method in settings["methods"]] if shots else []
        for algorithm, method in arms:
            found = [row for row in here if (row["algorithm"], row["method"]) == (algorithm, method)]
            baseline = [row for row in here if (row["algorithm"], row["method"]) == (BASELINE, best)]
            if found:
                lines.append(_line(shots, (algorithm, method), best, found, baseline))
    return lines


def _line(shots: int, arm: tuple[str, str], best: str, found: Sequence[Row], baseline: Sequence[Row]) -> str:
    algorithm, method = arm

    def mean(value: Callable[[Row], float], form: str) -> str:
        values = [value(row) for row in found]
        error = f"({np.std(values, ddof=1) / sqrt(len(values)):{form}})" if len(values) > 1 else ""
        return f"{np.mean(values):{form}}{error}"

    reached = [
        steps_to(row, min(loss for _, loss in other["checks"]))
        for row in found
        for other in baseline
        if other["seed"] == row["seed"] and other["checks"]
    ]
    scratch = algorithm in FROM_SCRATCH
    steps = [number for number in reached if number is not None]
    cells = (
        str(shots),
        algorithm,
        "from scratch" if scratch else method,
        f"{100 * found[0]['share']:.1f} %",
        "-" if scratch else mean(lambda row: 1e3 * (row["loss"] - row["unmoved"]), ".2f"),
        "-" if scratch or (algorithm, method) == (BASELINE, best) else _difference(found, baseline),
        mean(lambda row: row["w1"], ".3f"),
        mean(lambda row: row["geometric_w1"], ".3f"),
        mean(lambda row: row["fpd"], ".2f"),
        f"{np.mean(steps):.0f}" if steps and not scratch else "-",
        f"{np.mean([row['seconds']['normaliser'] + row['seconds']['network'] for row in found]):.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def _difference(found: Sequence[Row], baseline: Sequence[Row]) -> str:
    value, error, n = paired(found, baseline, "loss")
    if not n:
        return "-"
    return f"{1e3 * value:+.2f}" + ("" if error is None else f"({1e3 * error:.2f})")


def pictures(result: Mapping[str, Any], out: Path) -> None:
    """`<held-out task>.png`: loss and distance against shots, a line for each algorithm and for scratch."""
    rows, settings = list(result["rows"].values()), result["settings"]
    for heldout in settings["heldout"]:
        of = [row for row in rows if row["heldout"] == heldout]
        if not of:
            continue
        with drawing(f"{heldout}.png"):
            figure = new_figure(10, 4)
            figure.set_layout_engine("constrained")
            axes = figure.subplots(1, 2)
            for name in (*settings["algorithms"], *FROM_SCRATCH):
                method = _method(name, settings["best_method"])
                mine = [row for row in of if (row["algorithm"], row["method"]) == (name, method)]
                if name not in FROM_SCRATCH:
                    _curve(axes[0], mine, lambda row: 1e3 * (row["loss"] - row["unmoved"]), name)
                if name in (*FROM_SCRATCH, BASELINE):
                    _curve(axes[1], mine, lambda row: row["geometric_w1"], "adapted" if name == BASELINE else name)
            axes[0].set(xlabel="shots", ylabel="loss of unseen showers, less the unmoved base's [0.001]")
            axes[1].set(xlabel="shots", ylabel="geometric mean of W1 [standard deviations]", yscale="log")
            for axis in axes:
                axis.set_xscale("symlog", linthresh=10)
                axis.legend(frameon=False, fontsize=8)
            figure.suptitle(f"{heldout}, never seen")
            save_picture(figure, out / f"{heldout}.png")


def _curve(axis: Any, rows: Sequence[Row], value: Callable[[Row], float], label: str) -> None:
    shots = sorted({row["shots"] for row in rows})
    values = [[value(row) for row in rows if row["shots"] == n] for n in shots]
    errors = [np.std(of, ddof=1) / sqrt(len(of)) if len(of) > 1 else 0.0 for of in values]
    axis.errorbar(shots, [np.mean(of) for of in values], errors, label=label, marker="o", markersize=3, capsize=2)
