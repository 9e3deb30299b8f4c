"""Panels: the reference filled with its error band, the others as lines or points, and their ratio below."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from metacalo.evaluate.figures.curves import Curves
from metacalo.evaluate.figures.style import BAND, REFERENCE, colour, marker

__all__ = ["difference_panel", "error_bars", "log_scale", "points_panel", "ratio_panel", "split", "steps_panel"]

Array = NDArray[np.float64]

_REACHES: Final = (0.02, 0.05, 0.1, 0.2, 0.5)  # of a ratio from 1
_ASIDE: Final = 0.6  # of a bin's width, over which the samples' points stand side by side
_SHOWN: Final = 0.9  # fraction of the points that a ratio's range must show


def split(figure: Figure, cell: SubplotSpec) -> tuple[Axes, Axes]:
    """Axes for values, and below them for ratios, on one horizontal axis."""
    rows = cell.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.08)
    top = figure.add_subplot(rows[0])
    top.tick_params(labelbottom=False)
    return top, figure.add_subplot(rows[1], sharex=top)


def steps_panel(axes: Axes, curves: Curves) -> None:
    """Steps: the reference filled, its error a band, the other samples as lines."""
    value, error = curves.values[0], curves.errors[0]
    axes.stairs(value, curves.edges, fill=True, color=REFERENCE, alpha=0.5)
    axes.stairs(value + error, curves.edges, baseline=value - error, fill=True, color=BAND, linewidth=0)
    for index, value in enumerate(curves.values[1:]):
        axes.stairs(value, curves.edges, color=colour(index), linewidth=1.6)
    _horizontal(axes, curves)


def _horizontal(axes: Axes, curves: Curves) -> None:
    axes.set_xlim(curves.edges[0], curves.edges[-1])
    if curves.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())


def error_bars(axes: Axes, curves: Curves) -> None:
    """Errors of all but the reference, where there is something."""
    for index, (value, error) in enumerate(zip(curves.values[1:], curves.errors[1:], strict=True)):
        shown = value > 0
        places = _places(curves, index)[shown]
        axes.errorbar(places, value[shown], error[shown], fmt="none", color=colour(index), linewidth=1)


def points_panel(axes: Axes, curves: Curves) -> None:
    """Points with bars, the reference as steps with a band: for values that need no zero on their axis."""
    value, error = curves.values[0], curves.errors[0]
    axes.stairs(value, curves.edges, baseline=None, color=REFERENCE, linewidth=2.5)
    axes.stairs(value + error, curves.edges, baseline=value - error, fill=True, color=BAND, linewidth=0)
    _points(axes, curves)
    _horizontal(axes, curves)
    ends = np.stack([curves.values - curves.errors, curves.values + curves.errors])
    ends = ends[np.isfinite(ends)]
    if len(ends):
        low, high = float(ends.min()), float(ends.max())
        margin = 0.12 * (high - low) or 0.1 * (abs(high) or 1.0)
        axes.set_ylim(low - margin, high + 1.5 * margin)


def _points(axes: Axes, curves: Curves) -> None:
    for index, (value, error) in enumerate(zip(curves.values[1:], curves.errors[1:], strict=True)):
        shown = np.isfinite(value)
        axes.errorbar(
            _places(curves, index)[shown],
            value[shown],
            error[shown],
            fmt=marker(index),
            markersize=3.2,
            linewidth=1,
            color=colour(index),
        )


def _places(curves: Curves, index: int) -> Array:
    """Where the points of a generated sample stand: side by side in the middle of each bin."""
    shift = _ASIDE * (index - (len(curves.values) - 2) / 2) / max(1, len(curves.values) - 1)
    if curves.logarithmic and len(curves.edges) > 2:
        return np.asarray(curves.centres * (curves.edges[1] / curves.edges[0]) ** shift)
    return np.asarray(curves.centres + shift * np.diff(curves.edges))


def ratio_panel(axes: Axes, curves: Curves) -> None:
    """Ratios to the reference, in a range that shows nine points of ten."""
    ratios = curves.ratios()
    _against(axes, ratios, 1.0)
    largest = max(_largest(ratios.values[1:] - 1), _largest(ratios.errors[1:]))
    reach = next((reach for reach in _REACHES if largest < _SHOWN * reach), 1.0)
    axes.set_ylim(1 - reach, 1 + reach)
    axes.set_ylabel("ratio to\nGeant4", loc="center", fontsize=10)


def difference_panel(axes: Axes, curves: Curves) -> None:
    """Differences from the reference, for what may be zero or negative."""
    differences = curves.differences()
    _against(axes, differences, 0.0)
    reach = 1.3 * max(_largest(differences.values[1:]), 2 * _largest(differences.errors[:1])) or 1.0
    axes.set_ylim(-reach, reach)
    axes.set_ylabel("difference", loc="center", fontsize=10)


def _against(axes: Axes, curves: Curves, level: float) -> None:
    error = curves.errors[0]
    axes.stairs(level + error, curves.edges, baseline=level - error, fill=True, color=BAND, linewidth=0)
    axes.axhline(level, color="black", linewidth=0.8)
    _points(axes, curves)


def _largest(values: Array) -> float:
    """Modulus that nine of ten values keep below, in the sample that needs most."""
    finite = [np.abs(row[np.isfinite(row)]) for row in values]
    return max((float(np.quantile(row, _SHOWN)) for row in finite if len(row)), default=0.0)


def log_scale(axes: Axes, curves: Curves) -> None:
    """A logarithmic axis over what is above zero, six decades at most; none where nothing is."""
    positive = curves.values[curves.values > 0]
    if len(positive):
        axes.set_yscale("log")
        axes.set_ylim(max(positive.min() / 2, positive.max() / 1e6), positive.max() * 2.5)
