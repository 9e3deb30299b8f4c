"""One picture that shows a physicist where two samples agree and where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.curves import Curves, histogram, profile, spectrum
from metacalo.evaluate.figures.distributions import HISTOGRAMS, density_label, histogram_panel
from metacalo.evaluate.figures.panels import log_scale, ratio_panel, split, steps_panel
from metacalo.evaluate.figures.style import drawable, handles, new_figure
from metacalo.runtime.pictures import own_settings, save_picture
from metacalo.showers.shower_file import Showers
from metacalo.typing import PathLike

__all__ = ["profile_figure"]

_SHOWN: Final = ("response", "longitudinal_mean", "occupancy")
_WIDTH, _HEIGHT = 14.0, 9.4
_LETTERS: Final = 120  # of the legend in one line


def profile_figure(samples: Mapping[str, Showers], *paths: PathLike, title: str = "") -> None:
    """Draws profiles, voxel spectrum, response, shower depth and occupancy of several samples into one picture.

    Args:
        samples: label -> showers; the first is the reference, drawn filled, and the ratios are to it.
        paths: files to write, each in the format that its name ends in: `.png`, `.pdf`.
        title: written above the panels in place of the detector's name.

    Bands and bars are statistical errors: of the mean in profiles, of the count in histograms.

    Raises:
        ShowerFileError: a sample holds voxels or energies that cannot be.
        OutputError: a file cannot be written.
    """
    compared = Compared.of(samples)
    with own_settings():
        figure = new_figure(_WIDTH, _HEIGHT)
        _heading(figure, compared, title)
        grid = figure.add_gridspec(2, 3, hspace=0.24, wspace=0.29, left=0.065, right=0.985, top=0.885, bottom=0.065)
        for column, (curves, below, beside) in enumerate(_profiles(compared)):
            top, ratio = split(figure, grid[0, column])
            steps_panel(top, curves)
            log_scale(top, curves)
            ratio_panel(ratio, curves)
            ratio.set_xlabel(below)
            top.set_ylabel(beside)
        for column, name in enumerate(_SHOWN):
            _histogram(*split(figure, grid[1, column]), compared, name)
        save_picture(figure, *paths)


def _heading(figure: Figure, compared: Compared, title: str) -> None:
    heading = compared.heading
    labels = [f"{label} ({len(seen):,} showers)" for label, seen in zip(compared.labels, compared.seen, strict=True)]
    place: dict[str, Any] = {"verticalalignment": "center"}
    named = drawable(title or heading.detector, 80)
    figure.text(0.065, 0.972, named, fontsize=16, fontweight="bold", **place)
    figure.text(0.985, 0.972, heading.beam, fontsize=14, horizontalalignment="right", **place)
    columns = len(labels) if sum(map(len, labels)) < _LETTERS else -(-len(labels) // 2)
    figure.legend(
        handles(len(labels)),
        labels,
        loc="center",
        bbox_to_anchor=(0.525, 0.925),
        frameon=False,
        ncols=columns,
        columnspacing=1.6,
        fontsize=12,
    )


def _histogram(top: Axes, ratio: Axes, compared: Compared, name: str) -> None:
    label, take = HISTOGRAMS[name]
    curves = histogram([take(found) for found in compared.seen])
    histogram_panel(top, curves)
    top.set_ylabel(density_label(curves, label))
    ratio_panel(ratio, curves)
    ratio.set_xlabel(label)


def _profiles(compared: Compared) -> list[tuple[Curves, str, str]]:
    """Curves with the names of their two axes."""
    seen, unit = compared.seen, compared.radial_cell[1]
    return [
        (
            profile(compared.layer_edges, [found.layer_fraction for found in seen]),
            "layer",
            "mean energy fraction of a layer",
        ),
        (
            profile(compared.ring_edges, [found.ring_fraction for found in seen]),
            f"r ({unit})",
            "mean energy fraction of a ring",
        ),
        (spectrum([found.spectrum for found in seen]), "cell energy (MeV)", "mean number of cells"),
    ]
