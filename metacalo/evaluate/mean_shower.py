"""A picture of the mean shower of one file: its deposits around the axis, and its profiles."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from metacalo.detectors.grid import Grid
from metacalo.evaluate.figures.style import drawable, new_figure
from metacalo.runtime.pictures import own_settings, rendered

__all__ = ["mean_shower_picture"]

Array = NDArray[np.float64]
DECADES = 5


def mean_shower_picture(mean: Array, grid: Grid, title: str = "", suffix: str = "png") -> bytes:
    """Draws r against z (mean energy of a cell), r against phi, and both profiles, and returns the file's content.

    Args:
        mean: the mean shower, (R, PHI, Z), MeV.
        grid: its mesh; axes are in mm where it has cell sizes, else in cells.
        title: written above.
        suffix: format of the file, `png`, `pdf` or `svg`.
    """
    (dr, r_unit), (dz, z_unit) = (
        (size, "mm") if np.isfinite(size) else (1.0, "cells") for size in (grid.dr_mm, grid.dz_mm)
    )
    r, z = dr * np.arange(grid.n_r + 1.0), dz * np.arange(grid.n_z + 1.0)
    phi = np.linspace(-np.pi, np.pi, grid.n_phi + 1)
    with own_settings():
        figure = new_figure(13, 8)
        (side, front), (along, across) = figure.subplots(2, 2, width_ratios=(1.4, 1))
        figure.subplots_adjust(left=0.06, right=0.97, bottom=0.07, top=0.92, hspace=0.22, wspace=0.18)
        for axes, edges, values, label in (
            (side, (z, r), mean.mean(axis=1), f"z ({z_unit})"),
            (front, (phi, r), mean.mean(axis=2), r"$\phi$ (rad)"),
        ):
            greatest = float(values.max()) or 1.0
            shown = np.ma.masked_less_equal(values, 0.0)
            scale = LogNorm(greatest / 10**DECADES, greatest)
            drawn = axes.pcolormesh(*edges, shown, norm=scale, cmap="viridis", rasterized=True)
            figure.colorbar(drawn, ax=axes, label="mean energy of a cell (MeV)")
            axes.set_xlabel(label)
            axes.set_ylabel(f"r ({r_unit})")
        along.stairs(mean.sum(axis=(0, 1)), z, fill=True, alpha=0.6)
        along.set_xlim(z[0], z[-1])
        along.set_xlabel(f"z ({z_unit})")
        along.set_ylabel("mean energy of a layer (MeV)")
        across.stairs(mean.sum(axis=(1, 2)), r, fill=True, alpha=0.6)
        across.set_xlim(r[0], r[-1])
        across.set_xlabel(f"r ({r_unit})")
        across.set_ylabel("mean energy of a ring (MeV)")
        if mean.any():
            across.set_yscale("log")
        figure.suptitle(drawable(title, 90), fontsize=16, fontweight="bold")
        return rendered(figure, suffix)
