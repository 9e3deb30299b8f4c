"""Response and profiles by incident energy and angle."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.curves import Curves, profile
from metacalo.evaluate.figures.panels import log_scale, points_panel, ratio_panel, split, steps_panel
from metacalo.evaluate.figures.style import add_legend, new_figure
from metacalo.evaluate.fluctuations import response_by_energy
from metacalo.runtime.wording import ranged

__all__ = ["profile_by_angle", "profile_by_energy", "response_curves", "response_means", "response_widths"]

Array = NDArray[np.float64]

_ENERGY_BINS: Final = 4
_ANGLE_BINS: Final = 3
_NARROW: Final = 1.0  # degrees that are one angle
_SHOWERS_PER_BIN: Final = 40
_MOST_BINS: Final = 8


def response_curves(compared: Compared) -> tuple[Curves, Curves]:
    """Mean of E_total / E_inc, and resolution sigma / mu, in bins of incident energy in GeV, with bootstrap errors."""
    bins = int(np.clip(len(compared.seen[0]) // _SHOWERS_PER_BIN, 2, _MOST_BINS))
    edges = compared.energy_edges(bins)
    binned = [response_by_energy(found, edges) for found in compared.seen]
    means = Curves(edges / 1000, *(np.stack([getattr(one, name) for one in binned]) for name in ("mean", "mean_error")))
    scale = np.divide(1.0, means.values, out=np.full_like(means.values, np.nan), where=means.values > 0)
    widths, errors = (np.stack([getattr(one, name) for one in binned]) for name in ("width", "width_error"))
    return means, Curves(edges / 1000, widths * scale, errors * scale)


def response_means(compared: Compared) -> Figure | None:
    """Mean response against incident energy; None where there is but one."""
    if compared.one_energy:
        return None
    return _against_energy(compared, response_curves(compared)[0], "mean of $E_{total}\\ /\\ E_{incident}$")


def response_widths(compared: Compared) -> Figure | None:
    """Resolution against incident energy; None where there is but one."""
    if compared.one_energy:
        return None
    return _against_energy(compared, response_curves(compared)[1], "resolution $\\sigma\\ /\\ \\mu$ of $E_{total}$")


def _against_energy(compared: Compared, curves: Curves, label: str) -> Figure:
    figure = new_figure(5.4, 5.0)
    top = add_legend(figure, compared.labels, compared.heading)
    upper, lower = split(figure, figure.add_gridspec(1, 1, left=0.165, right=0.965, top=top, bottom=0.11)[0])
    points_panel(upper, curves)
    ratio_panel(lower, curves)
    lower.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lower.xaxis.set_major_formatter("{x:g}")
    upper.set_ylabel(label)
    lower.set_xlabel("$E_{incident}$ (GeV)")
    return figure


def profile_by_energy(compared: Compared) -> Figure | None:
    """Longitudinal profiles in four bins of incident energy; None where there is but one energy."""
    if compared.one_energy:
        return None
    panels = [
        (ranged(low / 1000, high / 1000, "GeV"), compared.in_energy(low, high))
        for low, high in pairwise(compared.energy_edges(_ENERGY_BINS))
    ]
    return _profiles(compared, panels)


def profile_by_angle(compared: Compared) -> Figure | None:
    """Longitudinal profiles in three bins of the angle to the normal; None where there is but one angle."""
    angles = compared.angles()
    low, high = float(angles[0].min()), float(angles[0].max())
    if high - low < _NARROW:
        return None
    panels = [
        (f"{first:.0f}° to {last:.0f}° to the normal", [(found >= first) & (found <= last) for found in angles])
        for first, last in pairwise(np.linspace(low, high, _ANGLE_BINS + 1))
    ]
    return _profiles(compared, panels)


def _profiles(compared: Compared, panels: list[tuple[str, list[NDArray[np.bool_]]]]) -> Figure:
    columns = 2 if len(panels) % 2 == 0 else len(panels)
    rows = -(-len(panels) // columns)
    figure = new_figure(4.6 * columns + 0.4, 3.9 * rows + 0.8)
    top = add_legend(figure, compared.labels, compared.heading)
    place = {"left": 0.05 + 0.09 / columns, "right": 0.985, "top": top - 0.01, "bottom": 0.105 / rows + 0.02}
    grid = figure.add_gridspec(rows, columns, hspace=0.22, wspace=0.24, **place)
    for index, (label, chosen) in enumerate(panels):
        fractions = [found.layer_fraction[rows] for found, rows in zip(compared.seen, chosen, strict=True)]
        curves = profile(compared.layer_edges, fractions)
        upper, lower = split(figure, grid[index // columns, index % columns])
        steps_panel(upper, curves)
        log_scale(upper, curves)
        upper.text(0.95, 0.93, label, transform=upper.transAxes, ha="right", va="top", fontsize=11)
        upper.set_ylabel("mean energy fraction of a layer")
        ratio_panel(lower, curves)
        lower.set_xlabel("layer")
    return figure
