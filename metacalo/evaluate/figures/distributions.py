"""Distributions and mean profiles, each with the ratio to the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.curves import Curves, histogram, profile, spectrum
from metacalo.evaluate.figures.panels import (
    difference_panel,
    error_bars,
    log_scale,
    points_panel,
    ratio_panel,
    split,
    steps_panel,
)
from metacalo.evaluate.figures.style import add_legend, new_figure
from metacalo.evaluate.observables import Observables

__all__ = [
    "DIFFERENCES",
    "HISTOGRAMS",
    "LAYER_MEANS",
    "RADIAL",
    "UNITS",
    "cell_spectrum",
    "density_label",
    "distribution",
    "histogram_panel",
    "lateral_profile",
    "layer_difference",
    "layer_mean",
    "layer_occupancy",
    "longitudinal_profile",
]

Array = NDArray[np.float64]
Take = Callable[[Observables], Array]

HISTOGRAMS: Final[dict[str, tuple[str, Take]]] = {
    "response": ("$E_{total}\\ /\\ E_{incident}$", lambda seen: seen.response),
    "total_energy": ("$E_{total}$ (MeV)", lambda seen: seen.layer_energy.sum(axis=1)),
    "longitudinal_mean": ("mean depth (layers)", lambda seen: seen.longitudinal_mean),
    "longitudinal_width": ("width in depth (layers)", lambda seen: seen.longitudinal_width),
    "lateral_mean": ("mean radius", lambda seen: seen.lateral_mean),
    "lateral_width": ("width in radius", lambda seen: seen.lateral_width),
    "centre_x": ("centre in x", lambda seen: seen.centre_x),
    "centre_y": ("centre in y", lambda seen: seen.centre_y),
    "width_x": ("width in x", lambda seen: seen.width_x),
    "width_y": ("width in y", lambda seen: seen.width_y),
    "occupancy": ("occupancy (fraction of cells with energy)", lambda seen: seen.occupancy),
    "leading_fraction": ("energy fraction of the leading tenth of the cells", lambda seen: seen.leading_fraction),
    "max_fraction": ("most energetic cell / $E_{incident}$", lambda seen: seen.max_fraction),
}
"""Name -> label of the axis, and the (N,) values of a sample; those of `RADIAL` in cells along r."""

RADIAL: Final = frozenset({"lateral_mean", "lateral_width", "centre_x", "centre_y", "width_x", "width_y"})
"""Histograms of lengths across the axis, which are drawn in mm where the size of a cell is known."""

UNITS: Final = ("mm", "cells", "layers", "MeV")
"""Units of the axes, of which densities have the inverse."""

LAYER_MEANS: Final[dict[str, str]] = {
    "layer_mean_r": "mean radius in the layer",
    "layer_width_r": "width in radius in the layer",
    "layer_width_x": "width in x in the layer",
    "layer_width_y": "width in y in the layer",
}
"""Observables (N, Z) above zero, in cells along r -> label of the axis."""

DIFFERENCES: Final[dict[str, str]] = {
    "layer_centre_x": "centre in x of the layer",
    "layer_centre_y": "centre in y of the layer",
}
"""Observables (N, Z) of either sign, in cells along r -> label of the axis."""


def distribution(compared: Compared, name: str) -> Figure:
    """The histogram of one of `HISTOGRAMS`."""
    label, take = HISTOGRAMS[name]
    size, unit = compared.radial_cell if name in RADIAL else (1.0, "")
    label += f" ({unit})" if unit else ""
    curves = histogram([size * take(found) for found in compared.seen])
    figure, top, below = _axes(compared)
    histogram_panel(top, curves)
    top.set_ylabel(density_label(curves, label))
    ratio_panel(below, curves)
    below.set_xlabel(label)
    return figure


def density_label(curves: Curves, label: str) -> str:
    """Label of a density over an axis whose label ends in its unit in brackets, or has none."""
    if curves.logarithmic:
        return "probability density in ln(x)"
    unit = label.rpartition("(")[2].removesuffix(")") if label.endswith(")") and "(" in label else ""
    return f"probability density (1 / {unit.removesuffix('s')})" if unit in UNITS else "probability density"


def histogram_panel(axes: Axes, curves: Curves) -> None:
    """Steps with error bars from zero on."""
    steps_panel(axes, curves)
    error_bars(axes, curves)
    axes.set_ylim(0, 1.12 * float((curves.values + curves.errors).max()) or 1.0)


def longitudinal_profile(compared: Compared) -> Figure:
    """Mean fraction of the shower's energy in each layer."""
    curves = profile(compared.layer_edges, [found.layer_fraction for found in compared.seen])
    return _profile(compared, curves, "layer", "mean energy fraction of a layer")


def lateral_profile(compared: Compared) -> Figure:
    """Mean fraction of the shower's energy in each ring."""
    curves = profile(compared.ring_edges, [found.ring_fraction for found in compared.seen])
    return _profile(compared, curves, f"r ({compared.radial_cell[1]})", "mean energy fraction of a ring")


def layer_occupancy(compared: Compared) -> Figure:
    """Mean fraction of each layer's cells that have energy."""
    curves = profile(compared.layer_edges, [found.layer_occupancy for found in compared.seen])
    return _profile(compared, curves, "layer", "mean occupancy of the layer")


def cell_spectrum(compared: Compared) -> Figure:
    """Mean number of cells per bin of their energy."""
    return _profile(
        compared, spectrum([found.spectrum for found in compared.seen]), "cell energy (MeV)", "mean number of cells"
    )


def layer_mean(compared: Compared, name: str) -> Figure:
    """Mean per layer of one of `LAYER_MEANS`, over the showers with energy there, with the ratio."""
    return _points(compared, name, LAYER_MEANS[name], ratio_panel)


def layer_difference(compared: Compared, name: str) -> Figure:
    """Mean per layer of one of `DIFFERENCES`, over the showers with energy there, with the difference."""
    return _points(compared, name, DIFFERENCES[name], difference_panel)


def _points(compared: Compared, name: str, label: str, panel: Callable[[Axes, Curves], None]) -> Figure:
    size, unit = compared.radial_cell
    curves = profile(compared.layer_edges, [size * getattr(found, name) for found in compared.seen])
    figure, top, below = _axes(compared)
    points_panel(top, curves)
    panel(below, curves)
    below.set_xlabel("layer")
    top.set_ylabel(f"{label} ({unit})")
    return figure


def _profile(compared: Compared, curves: Curves, below: str, beside: str) -> Figure:
    figure, top, ratio = _axes(compared)
    steps_panel(top, curves)
    log_scale(top, curves)
    ratio_panel(ratio, curves)
    ratio.set_xlabel(below)
    top.set_ylabel(beside)
    return figure


def _axes(compared: Compared) -> tuple[Figure, Axes, Axes]:
    figure = new_figure(5.4, 5.0)
    top = add_legend(figure, compared.labels, compared.heading)
    return figure, *split(figure, figure.add_gridspec(1, 1, left=0.165, right=0.965, top=top, bottom=0.11)[0])
