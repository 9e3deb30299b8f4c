"""One picture that shows a physicist where two samples agree and where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context
from mplhep import style
from numpy.typing import NDArray

from metacalo.evaluate.observables import SPECTRUM_EDGES, Observables, observables
from metacalo.showers.hdf5 import Showers
from metacalo.typing import PathLike

__all__ = ["STYLE", "profile_figure"]

Array = NDArray[np.float64]

_COLOURS: Final = ("#5790fc", "#e42536", "#f89c20", "#964a8b", "#9c9ca1", "#7a21dd")  # Petroff 2021, as CMS uses
_REFERENCE: Final = "#b9ac70"
_SHOWN: Final = "_sample"  # marks the handles for the legend
_BAND: Final = (0.0, 0.0, 0.0, 0.3)
_HISTOGRAMS: Final = {
    "response": "$E_{total}\\ /\\ E_{incident}$",
    "longitudinal_mean": "mean shower depth (layers)",
    "occupancy": "occupancy (fraction of voxels with energy)",
}
STYLE: Final = {
    "font.size": 11,
    "axes.labelsize": 12,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 11,
    "xtick.major.size": 5,
    "xtick.minor.size": 2.5,
    "ytick.major.size": 5,
    "ytick.minor.size": 2.5,
    "axes.linewidth": 1.0,
    "lines.linewidth": 1.4,
}


def profile_figure(samples: Mapping[str, Showers], path: PathLike, title: str = "") -> None:
    """Draws profiles, response, voxel spectrum, occupancy and shower depth of several samples into one PNG.

    Args:
        samples: label -> showers; the first is the reference, drawn filled, and the ratios are to it.
        path: the PNG file.
        title: written above the panels.

    Bands and bars are statistical errors: of the mean in profiles, of the count in histograms.

    """
    seen = {label: observables(sample.showers, sample.energy) for label, sample in samples.items()}
    with context([style.CMS, STYLE]):
        figure = Figure(figsize=(14, 9), dpi=110)
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 3, hspace=0.24, wspace=0.27, left=0.06, right=0.985, top=0.89, bottom=0.065)
        for column, profile in enumerate((_longitudinal, _lateral, _spectrum)):
            cell = grid[0, column].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.06)
            top = figure.add_subplot(cell[0])
            top.tick_params(labelbottom=False)
            profile(top, figure.add_subplot(cell[1], sharex=top), list(seen.values()))
        for column, (name, label) in enumerate(_HISTOGRAMS.items()):
            axes = figure.add_subplot(grid[1, column])
            _histogram(axes, [getattr(found, name) for found in seen.values()])
            axes.set_xlabel(label)
        handles = [patch for patch in figure.axes[0].patches if patch.get_label() == _SHOWN]
        labels = [f"{label} ({len(found):,} showers)" for label, found in seen.items()]
        across = len(labels) if sum(map(len, labels)) < 110 else (len(labels) + 1) // 2
        figure.legend(handles, labels, loc="center right", bbox_to_anchor=(0.99, 0.945), ncols=across, frameon=False)
        figure.text(0.06, 0.945, title, fontsize=16, fontweight="bold", verticalalignment="center")
        figure.savefig(path, format="png")


def _longitudinal(top: Axes, ratio: Axes, seen: list[Observables]) -> None:
    edges = np.arange(seen[0].layer_fraction.shape[1] + 1.0)
    _profiles(top, ratio, edges, [found.layer_fraction for found in seen])
    ratio.set_xlabel("layer")
    top.set_ylabel("mean fraction of energy per layer")


def _lateral(top: Axes, ratio: Axes, seen: list[Observables]) -> None:
    edges = np.arange(seen[0].ring_fraction.shape[1] + 1.0)
    _profiles(top, ratio, edges, [found.ring_fraction for found in seen])
    ratio.set_xlabel("r (cells)")
    top.set_ylabel("mean fraction of energy per ring")


def _spectrum(top: Axes, ratio: Axes, seen: list[Observables]) -> None:
    merged = [found.spectrum.reshape(len(found), -1, 2).sum(axis=2) for found in seen]
    filled = np.flatnonzero(sum(counts.sum(axis=0) for counts in merged))
    first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (0, 0)
    edges = 10.0 ** SPECTRUM_EDGES[::2][first : last + 2]
    _profiles(top, ratio, edges, [counts[:, first : last + 1] for counts in merged])
    top.set_xscale("log")
    ratio.set_xlabel("voxel energy (MeV)")
    top.set_ylabel("mean number of voxels")


def _profiles(top: Axes, ratio: Axes, edges: Array, seen: list[Array]) -> None:
    """Means over the showers of (N, K) arrays, on a logarithmic axis."""
    means = [found.mean(axis=0) for found in seen]
    errors = [found.std(axis=0) / np.sqrt(max(len(found), 1)) for found in seen]
    _draw(top, edges, means, errors)
    _ratio(ratio, edges, means, errors)
    positive = np.concatenate([mean[mean > 0] for mean in means])
    if len(positive):
        top.set_yscale("log")
        top.set_ylim(max(positive.min() / 2, positive.max() / 1e6), positive.max() * 2.5)


def _histogram(axes: Axes, seen: list[Array], bins: int = 24) -> None:
    """Normalised histograms of (N,) arrays over the range of the reference; the outer bins take what lies beyond."""
    low, high = np.quantile(seen[0], [0.003, 0.997])
    margin = 0.15 * (high - low) or 0.5 * (abs(low) or 1.0)
    edges = np.linspace(max(low - margin, 0.0), high + margin, bins + 1)
    heights, errors = [], []
    for found in seen:
        counts = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0].astype(np.float64)
        norm = 1.0 / (max(len(found), 1) * np.diff(edges))
        heights.append(counts * norm)
        errors.append(np.sqrt(counts) * norm)
    _draw(axes, edges, heights, errors)
    for index, (height, error) in enumerate(zip(heights[1:], errors[1:], strict=True)):
        shown = height > 0
        axes.errorbar(
            _centres(edges)[shown], height[shown], error[shown], fmt="none", color=_colour(index), linewidth=1
        )
    axes.set_ylim(0, 1.2 * max(float((height + error).max()) for height, error in zip(heights, errors, strict=True)))
    axes.set_ylabel("probability density")


def _draw(axes: Axes, edges: Array, values: list[Array], errors: list[Array]) -> None:
    axes.stairs(values[0], edges, fill=True, color=_REFERENCE, alpha=0.5, label=_SHOWN)
    axes.stairs(values[0] + errors[0], edges, baseline=values[0] - errors[0], fill=True, color=_BAND, linewidth=0)
    for index, value in enumerate(values[1:]):
        axes.stairs(value, edges, color=_colour(index), linewidth=1.6, label=_SHOWN)
    axes.set_xlim(edges[0], edges[-1])


def _ratio(axes: Axes, edges: Array, values: list[Array], errors: list[Array]) -> None:
    """Ratio of every profile to the first one, in a range that shows nine points of ten."""
    filled = values[0] > 0
    scale = np.divide(1.0, values[0], out=np.zeros_like(values[0]), where=filled)
    axes.stairs(1 + errors[0] * scale, edges, baseline=1 - errors[0] * scale, fill=True, color=_BAND, linewidth=0)
    axes.axhline(1.0, color="black", linewidth=0.8)
    largest = 0.0
    for index, (value, error) in enumerate(zip(values[1:], errors[1:], strict=True)):
        axes.errorbar(
            _centres(edges)[filled],
            (value * scale)[filled],
            (error * scale)[filled],
            fmt="o",
            markersize=3,
            linewidth=1,
            color=_colour(index),
        )
        if filled.any():
            largest = max(largest, float(np.quantile(np.abs(value * scale - 1)[filled], 0.9)))
    reach = next((reach for reach in (0.1, 0.2, 0.5) if largest < 0.9 * reach), 1.0)
    axes.set_ylim(1 - reach, 1 + reach)
    axes.set_ylabel("ratio", loc="center")


def _centres(edges: Array) -> Array:
    """Middle of each bin, the geometric one where the bins are logarithmic."""
    geometric = edges[0] > 0 and np.allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0]))
    return np.asarray(np.sqrt(edges[1:] * edges[:-1]) if geometric else (edges[1:] + edges[:-1]) / 2)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
