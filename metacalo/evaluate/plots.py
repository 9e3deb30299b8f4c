"""One picture that shows a physicist where two samples agree and where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from metacalo.evaluate.figures.curves import Curves, histogram, profile, spectrum
from metacalo.evaluate.figures.panels import error_bars, log_scale, ratio_panel, split, steps_panel
from metacalo.evaluate.figures.style import handles, house_style, new_figure
from metacalo.evaluate.observables import Observables, observables
from metacalo.showers.hdf5 import Showers
from metacalo.typing import PathLike

__all__ = ["profile_figure"]

_HISTOGRAMS: Final = {
    "response": "$E_{total}\\ /\\ E_{incident}$",
    "longitudinal_mean": "mean shower depth (layers)",
    "occupancy": "occupancy (fraction of voxels with energy)",
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
    with house_style():
        figure = new_figure(14, 9)
        grid = figure.add_gridspec(2, 3, hspace=0.24, wspace=0.27, left=0.06, right=0.985, top=0.89, bottom=0.065)
        for column, (curves, below, beside) in enumerate(_profiles(list(seen.values()))):
            top, ratio = split(figure, grid[0, column])
            steps_panel(top, curves)
            log_scale(top, curves)
            ratio_panel(ratio, curves)
            ratio.set_xlabel(below)
            top.set_ylabel(beside)
        for column, (name, label) in enumerate(_HISTOGRAMS.items()):
            axes = figure.add_subplot(grid[1, column])
            curves = histogram([getattr(found, name) for found in seen.values()])
            steps_panel(axes, curves)
            error_bars(axes, curves)
            axes.set_ylim(0, 1.2 * float((curves.values + curves.errors).max()))
            axes.set_xlabel(label)
            axes.set_ylabel("probability density")
        labels = [f"{label} ({len(found):,} showers)" for label, found in seen.items()]
        across = len(labels) if sum(map(len, labels)) < 110 else (len(labels) + 1) // 2
        place: dict[str, Any] = {"loc": "center right", "bbox_to_anchor": (0.99, 0.945), "frameon": False}
        figure.legend(handles(len(labels)), labels, ncols=across, **place)
        figure.text(0.06, 0.945, title, fontsize=16, fontweight="bold", verticalalignment="center")
        figure.savefig(path, format="png")


def _profiles(seen: list[Observables]) -> list[tuple[Curves, str, str]]:
    """Curves with the names of their two axes."""
    layers, rings = (np.arange(part.shape[1] + 1.0) for part in (seen[0].layer_fraction, seen[0].ring_fraction))
    return [
        (profile(layers, [found.layer_fraction for found in seen]), "layer", "mean fraction of energy per layer"),
        (profile(rings, [found.ring_fraction for found in seen]), "r (cells)", "mean fraction of energy per ring"),
        (spectrum([found.spectrum for found in seen]), "voxel energy (MeV)", "mean number of voxels"),
    ]
