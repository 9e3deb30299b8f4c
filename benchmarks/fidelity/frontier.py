"""Distances and AUCs of samplers against the milliseconds that a shower takes, as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes

from metacalo.evaluate.figures.style import colour, marker, new_figure
from metacalo.runtime.pictures import own_settings, rendered
from metacalo.typing import PathLike

__all__ = ["frontier"]

FIGURES: Final = {
    "high_level_auc": "AUC observables",
    "low_level_auc": "AUC voxels",
    "fpd": "FPD",
    "mean_w1": "mean W1",
}


def frontier(result: Mapping[str, Any], path: PathLike) -> None:
    """Draws the rows of a table.json that have a speed, a line for each sampler, into the PNG `path`."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"].values():
        if row["label"] in result["speed"]:
            lines.setdefault(row["label"].partition(":")[0], []).append(row)
    with own_settings():
        figure = new_figure(13, 9)
        grid = figure.subplots(2, 2)
        for axes, (name, title) in zip(grid.flat, FIGURES.items(), strict=True):
            for index, (label, rows) in enumerate(lines.items()):
                _line(axes, label, index, rows, result, name)
            axes.set_xscale("log")
            axes.set_xlabel("ms per shower")
            axes.set_ylabel(title)
        grid.flat[0].legend(frameon=False)
        Path(path).write_bytes(rendered(figure, "png"))


def _line(
    axes: Axes, label: str, index: int, rows: list[Mapping[str, Any]], result: Mapping[str, Any], name: str
) -> None:
    rows = [row for row in rows if row["figures"][name]["value"] is not None]
    rows.sort(key=lambda row: float(result["speed"][row["label"]]["ms"]))
    found = [row["figures"][name] for row in rows]
    axes.errorbar(
        [result["speed"][row["label"]]["ms"] for row in rows],
        [entry["value"] for entry in found],
        yerr=[entry["error"] or 0.0 for entry in found],
        label=label,
        color=colour(index),
        marker=marker(index),
        capsize=2,
    )
