"""Layers: their energies, how they depend on the incident energy, and how they go together."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.curves import histogram
from metacalo.evaluate.figures.distributions import density_label, histogram_panel
from metacalo.evaluate.figures.panels import ratio_panel, split
from metacalo.evaluate.figures.style import add_heading, add_legend, new_figure
from metacalo.evaluate.fluctuations import correlations, layer_residuals

__all__ = ["chosen_layers", "layer_correlations", "layer_energies", "layer_energy_map"]

Array = NDArray[np.float64]

_DEPTHS: Final = (0.02, 0.15, 0.4, 0.7, 0.9, 0.98)  # fractions of the mean shower that end in the layers shown
_MAP_BINS: Final = 8
_SEEN: Final = 1e-3  # of the largest fraction: below, ratios are of single showers
_DIVERGING: Final = "RdBu_r"


def chosen_layers(compared: Compared) -> list[int]:
    """Layers from the start of the reference's mean shower to its end, six at most, increasing."""
    mean = compared.seen[0].layer_energy.sum(axis=0)
    if not mean.any():
        mean = np.ones_like(mean)
    reached = np.searchsorted(np.cumsum(mean) / mean.sum(), _DEPTHS)
    return sorted({min(int(layer), len(mean) - 1) for layer in reached})


def layer_energies(compared: Compared) -> Figure:
    """Histograms of the energy over the incident energy in chosen layers."""
    layers = chosen_layers(compared)
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    figure = new_figure(4.2 * columns + 0.6, 3.7 * rows + 0.9)
    top = add_legend(figure, compared.labels, compared.heading)
    place = {"left": 0.06 + 0.1 / columns, "right": 0.985, "top": top - 0.02, "bottom": 0.1 / rows + 0.02}
    grid = figure.add_gridspec(rows, columns, hspace=0.25, wspace=0.27, **place)
    for index, layer in enumerate(layers):
        curves = histogram([found.layer_energy[:, layer] / found.energy for found in compared.seen])
        upper, lower = split(figure, grid[index // columns, index % columns])
        histogram_panel(upper, curves)
        upper.text(0.95, 0.9, f"layer {layer}", transform=upper.transAxes, ha="right", va="top")
        upper.set_ylabel(density_label(curves, ""))
        ratio_panel(lower, curves)
        lower.set_xlabel("$E_{layer}\\ /\\ E_{incident}$")
    return figure


def layer_energy_map(compared: Compared) -> Figure:
    """Mean energy fraction by layer and incident energy: of the reference, and the ratio of each sample to it."""
    edges = compared.energy_edges(_MAP_BINS)
    means = [
        np.stack([_mean(found.layer_fraction[rows]) for rows in _bins(found.energy, edges)]) for found in compared.seen
    ]
    figure, grid = _maps(compared, rows=1, height=3.4)
    reference = means[0]
    largest = float(np.nanmax(reference, initial=0.0)) or 1.0
    first = figure.add_subplot(grid[0, 0])
    shown = np.ma.masked_invalid(np.where(reference > 0, reference, np.nan))
    mesh = first.pcolormesh(
        compared.layer_edges, edges / 1000, shown, norm=LogNorm(_SEEN * largest, largest), rasterized=True
    )
    figure.colorbar(mesh, ax=first, label="mean energy fraction of a layer", pad=0.02)
    for index, mean in enumerate(means[1:]):
        axes = figure.add_subplot(grid[0, index + 1])
        ratio = np.divide(mean, reference, out=np.full_like(mean, np.nan), where=reference > _SEEN * largest)
        norm, masked = Normalize(0.5, 1.5), np.ma.masked_invalid(ratio)
        mesh = axes.pcolormesh(compared.layer_edges, edges / 1000, masked, norm=norm, cmap=_DIVERGING, rasterized=True)
        figure.colorbar(mesh, ax=axes, label=f"ratio to {compared.labels[0]}", pad=0.02)
    for axes, label in zip(figure.axes[::2], compared.labels, strict=True):
        axes.set_title(label, fontsize=11)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("$E_{incident}$ (GeV)")
        axes.set_xlabel("layer")
    return figure


def layer_correlations(compared: Compared) -> Figure:
    """Correlations of the layers' energy fractions at fixed incident energy, and differences from the reference's."""
    found = [correlations(layer_residuals(seen)) for seen in compared.seen]
    figure, grid = _maps(compared, rows=2, height=6.6)
    for column, (matrix, label) in enumerate(zip(found, compared.labels, strict=True)):
        axes = figure.add_subplot(grid[0, column])
        axes.set_title(label, fontsize=11)
        _matrix(axes, matrix, 1.0, "correlation")
        if column:
            _matrix(figure.add_subplot(grid[1, column]), matrix - found[0], 0.5, "difference")
    return figure


def _matrix(axes: Axes, matrix: Array, reach: float, label: str) -> None:
    extent = (0, len(matrix), 0, len(matrix))
    shown: dict[str, Any] = {"origin": "lower", "extent": extent, "cmap": _DIVERGING, "interpolation": "nearest"}
    image = axes.imshow(matrix, norm=Normalize(-reach, reach), **shown)
    axes.figure.colorbar(image, ax=axes, label=label, pad=0.03, shrink=0.85)
    axes.set_xlabel("layer")
    axes.set_ylabel("layer")


def _maps(compared: Compared, rows: int, height: float) -> tuple[Figure, GridSpec]:
    columns = len(compared.labels)
    width, height = 4.4 * columns, height + 0.3
    figure = new_figure(width, height)
    top = add_heading(figure, compared.heading) - 0.35 / height
    edges = {"left": 0.75 / width, "right": 1 - 0.25 / width}
    return figure, figure.add_gridspec(rows, columns, top=top, bottom=0.6 / height, wspace=0.38, hspace=0.2, **edges)


def _bins(energy: Array, edges: Array) -> list[NDArray[np.bool_]]:
    index = np.clip(np.searchsorted(edges, energy, side="right") - 1, 0, len(edges) - 2)
    inside = (energy >= edges[0]) & (energy <= edges[-1])
    return [inside & (index == wanted) for wanted in range(len(edges) - 1)]


def _mean(rows: Array) -> Array:
    return rows.mean(axis=0) if len(rows) else np.full(rows.shape[1], np.nan)
