"""The table and the picture of `benchmarks.sampling`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from metacalo.evaluate.rounding import quoted
from metacalo.runtime.pictures import own_settings, rendered
from metacalo.typing import PathLike

__all__ = ["frontier", "markdown"]

Found = Mapping[str, Any]

FIGURES = {
    "high_level_auc": "AUC observables",
    "low_level_auc": "AUC voxels",
    "fpd": "FPD",
    "mean_w1": "mean W1",
}
_COLOURS = ("#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1", "#7a21dd", "#b9ac70", "#717581")  # Petroff 2021
_MARKERS = "osD^vP*X"
_WIDE = 10.0  # of values that want a logarithmic axis
_PLACES = {"hspace": 0.25, "wspace": 0.22, "left": 0.08, "right": 0.98, "bottom": 0.07, "top": 0.9}


def label(point: Found, result: Found) -> str:
    """The generator and its sampler, and the base where it is not the first one."""
    first = next(iter(result["bases"]))
    parts = [point["generator"], point["sampler"], None if point["base"] == first else f"({Path(point['base']).name})"]
    return " ".join(part for part in parts if part)


def markdown(result: Found) -> list[str]:
    """The lines of table.md; a cell is a value with the error of its last digits, see `fidelity_table`."""
    settings, points = result["settings"], list(result["points"].values())
    bases = ", ".join(f"{base['name']} (`{base['hash'][:12]}`)" for base in result["bases"].values())
    told = f"adapted to {settings['shots']} shots" if settings["shots"] else "at zero shots"
    lines = [
        "# Sampling",
        "",
        f"    {result['command']}",
        "",
        f"Base {bases}, {told}, task {settings['task']}. Milliseconds a shower in the fastest batch of 100, on "
        f"{result['where']}, from the condition to MeV. In brackets the error of the last digits. Rows `Geant4` are "
        "the floor: unseen showers against others, for that number of generated showers. A classifier that has fewer "
        "showers to learn from sees less: compare AUCs of rows with as many showers.",
        "",
    ]
    titles = ("generator", "steps", "evaluations", "ms/shower", "showers", *FIGURES.values(), "E_total/E_inc", "width")
    lines += [_line(titles), "|---|" + "---:|" * (len(titles) - 1)]
    floors: dict[int, list[str]] = {}
    for point in points:
        made, response = point["showers"]["generated"], point["response"]
        counts = (str(point[name]) if point[name] else "-" for name in ("steps", "evaluations"))
        cells = [label(point, result), *counts, f"{point['ms']:.3g}", f"{made:,}", *_quoted(point, "value", "error")]
        lines.append(_line([*cells, *(f"{response['generated'][name]:.4f}" for name in ("mean", "width"))]))
        reference = (f"{response['reference'][name]:.4f}" for name in ("mean", "width"))
        floor = ["Geant4", "-", "-", "-", f"{made:,}", *_quoted(point, "floor", "floor_error"), *reference]
        floors.setdefault(made, floor)
    return lines + [_line(floors[made]) for made in sorted(floors, reverse=True)]


def _quoted(point: Found, value: str, error: str) -> list[str]:
    return [quoted(entry[value], entry[error]) if (entry := point[name]) else "-" for name in FIGURES]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def frontier(result: Found, path: PathLike) -> None:
    """Draws each figure against milliseconds per shower, a line for each sampler, into one PNG."""
    lines: dict[str, list[Found]] = {}
    for point in result["points"].values():
        lines.setdefault(label(point, result), []).append(point)
    with own_settings():
        figure = Figure(figsize=(13, 9), dpi=110)
        FigureCanvasAgg(figure)
        grid = figure.subplots(2, 2, gridspec_kw=_PLACES)
        for axes, (name, title) in zip(grid.flat, FIGURES.items(), strict=True):
            _panel(axes, lines, name)
            axes.set_ylabel(title)
        handles, labels = grid.flat[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=min(5, max(1, len(labels))), frameon=False)
        Path(path).write_bytes(rendered(figure, "png"))


def _panel(axes: Axes, lines: Mapping[str, list[Found]], name: str) -> None:
    known = {told: [point for point in points if point[name]] for told, points in lines.items()}
    shown = [point for points in known.values() for point in points]
    if not shown:
        return
    times, values = [point["ms"] for point in shown], [point[name]["value"] for point in shown]
    axes.margins(y=0.08)
    axes.set_xlim(min(times) / 1.5, 1.5 * max(times))
    _logarithmic(axes, "x")
    for index, (told, points) in enumerate(known.items()):
        points.sort(key=lambda point: float(point["ms"]))
        axes.errorbar(
            [point["ms"] for point in points],
            [point[name]["value"] for point in points],
            yerr=[point[name]["error"] or 0.0 for point in points],
            label=told,
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            capsize=2,
        )
    for point in shown:
        place = (point["ms"], point[name]["value"])
        axes.annotate(str(point["evaluations"] or ""), place, (3, 4), textcoords="offset points", fontsize=8)
    most = max(shown, key=lambda point: int(point["showers"]["generated"]))
    axes.axhline(most[name]["floor"] or 0.0, color="black", linestyle=":", label="Geant4")
    if min(values) > 0 and max(values) > _WIDE * min(values):
        _logarithmic(axes, "y")
    axes.set_xlabel("ms per shower, batch 100")


def _logarithmic(axes: Axes, name: Literal["x", "y"]) -> None:
    axes.set(**{f"{name}scale": "log"})
    axis: Axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
