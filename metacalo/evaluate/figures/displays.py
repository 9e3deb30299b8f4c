"""Event displays: showers in three dimensions, and unrolled along each pair of axes."""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

from metacalo.detectors.grid import Grid
from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.style import Heading, add_heading, new_figure

__all__ = ["mean_showers", "projections", "shown_rows", "single_showers", "single_showers_3d"]

Array = NDArray[np.float64]

_SHOWN: Final = (0.15, 0.5, 0.85)  # quantiles of the reference's energies that are shown
_DECADES: Final = 5  # of energy in one picture
_COLOURS: Final = "viridis_r"  # the most energetic cells are the darkest
_ANGLE_WEIGHT: Final = 0.1  # of a radian in theta against a factor e in energy
_PIECES: Final = 96  # of a circle, so that wide phi cells are drawn round


def shown_rows(compared: Compared) -> list[list[int]]:
    """For each energy shown, the row of the reference and those of the other samples that come closest.

    Closest in ln E, and among those of (nearly) one energy in theta.
    """
    reference = compared.samples[0]
    log_energy = np.log(np.asarray(reference.energy, np.float64))
    wanted = [int(np.abs(log_energy - level).argmin()) for level in np.quantile(log_energy, _SHOWN)]
    rows = []
    for first in dict.fromkeys(wanted):
        others = []
        for sample in compared.samples[1:]:
            apart = np.abs(np.log(np.asarray(sample.energy, np.float64)) - log_energy[first])
            turned = np.abs(np.asarray(sample.theta, np.float64) - float(reference.theta[first]))
            others.append(int(np.argmin(apart + _ANGLE_WEIGHT * turned)))
        rows.append([first, *others])
    return rows


def projections(shower: Array) -> dict[str, Array]:
    """Energies of a shower (R, PHI, Z) summed over one axis each: `rz` (R, Z), `phiz` (PHI, Z) and `rphi` (R, PHI)."""
    return {"rz": shower.sum(axis=1), "phiz": shower.sum(axis=0), "rphi": shower.sum(axis=2)}


def single_showers_3d(compared: Compared) -> Figure:
    """Single showers as points at their cells' places, a row for each energy and a column for each sample."""
    rows, grid = shown_rows(compared), compared.grid
    showers = [[_shower(compared, column, row) for column, row in enumerate(line)] for line in rows]
    norm = _norm([shower for line in showers for shower in line])
    columns = len(compared.labels)
    width, height = 3.5 * columns + 0.9, 2.7 * len(rows) + 0.75
    figure = new_figure(width, height)
    top = add_heading(figure, compared.heading) - 0.35 / height
    place = {"left": 0.005, "right": 1 - 0.95 / width, "top": top, "bottom": 0.005}
    cells = figure.add_gridspec(len(rows), columns, wspace=0.0, hspace=0.0, **place)
    for line, (chosen, found) in enumerate(zip(rows, showers, strict=True)):
        for column, shower in enumerate(found):
            axes = figure.add_subplot(cells[line, column], projection="3d", computed_zorder=False)
            _draw_3d(axes, shower, grid, norm)
            energy = float(compared.samples[column].energy[chosen[column]]) / 1000
            axes.text2D(0.03, 0.93, f"{energy:.3g} GeV", transform=axes.transAxes, fontsize=10, va="top")
            if line == 0:
                axes.set_title(compared.labels[column], fontsize=11, pad=2)
    bar = figure.add_axes((1 - 0.85 / width, 0.15, 0.16 / width, 0.7))
    figure.colorbar(ScalarMappable(norm, _COLOURS), cax=bar, label="cell energy (MeV)")
    return figure


def single_showers(compared: Compared) -> Figure:
    """The shower of middle energy of each sample, unrolled."""
    rows = shown_rows(compared)
    middle = rows[len(rows) // 2]
    showers = [_shower(compared, column, row) for column, row in enumerate(middle)]
    energies = [float(sample.energy[row]) / 1000 for sample, row in zip(compared.samples, middle, strict=True)]
    labels = [f"{label}\n{energy:.3g} GeV" for label, energy in zip(compared.labels, energies, strict=True)]
    return _unrolled(compared.grid, compared.heading, labels, showers)


def mean_showers(compared: Compared) -> Figure:
    """The mean shower of each sample, unrolled."""
    labels = [f"{label}\nmean of {len(seen):,}" for label, seen in zip(compared.labels, compared.seen, strict=True)]
    return _unrolled(compared.grid, compared.heading, labels, compared.means)


def _shower(compared: Compared, sample: int, row: int) -> Array:
    return np.asarray(compared.samples[sample].showers[row], np.float64)


def _norm(energies: list[Array]) -> LogNorm:
    """From the least energy above zero, or five decades below the largest, to the largest."""
    largest = max((float(found.max(initial=0.0)) for found in energies), default=0.0) or 1.0
    floor = largest / 10**_DECADES
    least = min((float(found[found > floor].min(initial=largest)) for found in energies), default=floor)
    return LogNorm(min(least, largest / 10), largest)


def _sizes(grid: Grid) -> tuple[float, float, str]:
    """Size of a cell along r and along z, and its unit."""
    if isfinite(grid.dr_mm) and isfinite(grid.dz_mm):
        return grid.dr_mm, grid.dz_mm, "mm"
    return 1.0, 1.0, "cells"


def _draw_3d(axes: Axes3D, shower: Array, grid: Grid, norm: LogNorm) -> None:
    dr, dz, unit = _sizes(grid)
    radius, depth = dr * grid.n_r, dz * grid.n_z
    if shower.any():
        _draw_cells(axes, shower, grid, norm)
    around = np.linspace(0, 2 * np.pi, 61)
    for end in (0.0, depth):
        axes.plot(np.full(61, end), radius * np.cos(around), radius * np.sin(around), color="0.65", linewidth=0.7)
    for angle in np.arange(4) * np.pi / 2:
        edge = radius * np.cos(angle), radius * np.sin(angle)
        axes.plot([0, depth], [edge[0]] * 2, [edge[1]] * 2, color="0.8", linewidth=0.6)
    axes.plot([-0.16 * depth, 0], [0, 0], [0, 0], color="black", linewidth=1.2)  # the particle comes in
    axes.text2D(0.97, 0.03, f"depth {depth:.4g}, radius {radius:.3g} {unit}", **_small(axes))
    axes.set_proj_type("ortho")
    axes.set_axis_off()
    axes.set_box_aspect((2.0, 1.0, 1.0), zoom=1.25)
    axes.set_xlim(-0.16 * depth, depth)
    axes.set_ylim(-radius, radius)
    axes.set_zlim(-radius, radius)
    axes.view_init(elev=18, azim=-62)
    for artist in (*axes.lines, *axes.collections):
        artist.set_clip_on(False)  # 3-D axes are square, the cylinder is longer


def _draw_cells(axes: Axes3D, shower: Array, grid: Grid, norm: LogNorm) -> None:
    dr, dz, _ = _sizes(grid)
    ring, sector, layer = np.nonzero(shower)
    order = np.argsort(shower[ring, sector, layer])  # the most energetic cells are drawn last
    ring, sector, layer = ring[order], sector[order], layer[order]
    energy = shower[ring, sector, layer]
    r, phi, z = (ring + 0.5) * dr, grid.phi_centres[sector], (layer + 0.5) * dz
    strength = np.clip(np.asarray(norm(np.maximum(energy, norm.vmin or 0.0))), 0, 1)
    axes.scatter(
        z,
        r * np.cos(phi),
        r * np.sin(phi),
        c=energy,
        s=1.0 + 22.0 * strength**2,
        alpha=0.3 + 0.7 * strength,
        norm=norm,
        cmap=_COLOURS,
        linewidths=0,
        depthshade=False,
        rasterized=True,
    )


def _small(axes: Axes) -> dict[str, Any]:
    return {"transform": axes.transAxes, "fontsize": 8, "color": "0.35", "ha": "right", "va": "bottom"}


def _unrolled(grid: Grid, heading: Heading, labels: list[str], showers: list[Array]) -> Figure:
    """A row for each shower, a column for each projection; one colour scale for a column."""
    dr, dz, unit = _sizes(grid)
    seen = [projections(shower) for shower in showers]
    height = 2.3 * len(seen) + 1.6
    figure = new_figure(11.5, height)
    top = add_heading(figure, heading) - 0.35 / height
    place = {"left": 0.115, "right": 0.955, "top": top, "bottom": 1.1 / height}
    ratios = (2.3,) * len(seen)
    cells = figure.add_gridspec(len(seen), 3, width_ratios=(1.25, 1.25, 0.8), height_ratios=ratios, **place)
    cells.update(hspace=0.28, wspace=0.24)
    r_edges, z_edges = dr * np.arange(grid.n_r + 1), dz * np.arange(grid.n_z + 1)
    phi_edges = np.linspace(-180, 180, grid.n_phi + 1)
    pieces = max(1, -(-_PIECES // grid.n_phi))
    circle = np.linspace(-np.pi, np.pi, grid.n_phi * pieces + 1)
    for column, (name, title) in enumerate(_TITLES.items()):
        norm = _norm([found[name] for found in seen])
        for line, found in enumerate(seen):
            projection = "polar" if name == "rphi" else None
            axes = figure.add_subplot(cells[line, column], projection=projection)
            energy = np.ma.masked_less_equal(found[name], 0.0)
            if name == "rphi":
                drawn: tuple[Any, ...] = (circle, r_edges, np.ma.repeat(energy, pieces, axis=1))
                axes.set_xticks([])
                axes.set_yticks([r_edges[-1]], [f"{r_edges[-1]:.3g} {unit}"], fontsize=8)
                axes.grid(visible=False)
            else:
                drawn = (z_edges, r_edges if name == "rz" else phi_edges, energy)
                axes.set_ylabel(f"r ({unit})" if name == "rz" else "$\\phi$ (degrees)")
                if line == len(seen) - 1:
                    axes.set_xlabel("z (layers)" if unit == "cells" else "z (mm)")
            axes.pcolormesh(*drawn, norm=norm, cmap=_COLOURS, rasterized=True)
            if line == 0:
                axes.set_title(title, fontsize=11)
            if column == 0:
                axes.text(-0.27, 0.5, labels[line], **_beside(axes))
        left, right = (figure.axes[-1].get_position().x0, figure.axes[-1].get_position().x1)
        bar = figure.add_axes((left, 0.55 / height, right - left, 0.1 / height))
        figure.colorbar(ScalarMappable(norm, _COLOURS), cax=bar, orientation="horizontal", label="energy (MeV)")
    return figure


_TITLES: Final = {"rz": "summed over $\\phi$", "phiz": "summed over r", "rphi": "summed over z"}


def _beside(axes: Axes) -> dict[str, Any]:
    return {"transform": axes.transAxes, "rotation": 90, "ha": "center", "va": "center", "fontsize": 10}
