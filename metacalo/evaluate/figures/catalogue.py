"""The figures of a report, in their order: what each is called, what it shows, and what draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from matplotlib.figure import Figure

from metacalo.evaluate.figures import conditions, displays, distributions, layers
from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.pull_matrix import pull_matrix

__all__ = ["CATALOGUE", "Entry"]


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        name: of its file, without the ending.
        section: heading that it stands under.
        caption: what it shows, a sentence.
        draw: makes it; None where the samples have nothing to show.
        wide: it takes the whole width of a page.
        picture: it has too many points for SVG.
    """

    name: str
    section: str
    caption: str
    draw: Callable[[Compared], Figure | None]
    wide: bool = False
    picture: bool = False


def _distribution(name: str, section: str, caption: str) -> Entry:
    return Entry(name, section, caption, partial(distributions.distribution, name=name))


def _layer(name: str, caption: str) -> Entry:
    draw = distributions.layer_mean if name in distributions.LAYER_MEANS else distributions.layer_difference
    return Entry(name, _LAYERS, caption, partial(draw, name=name))


_LADDER: Final = "Fixed energies and angles"
_ENERGY: Final = "Energy"
_PROFILES: Final = "Profiles and moments"
_CELLS: Final = "Cells"
_LAYERS: Final = "Layers"
_DISPLAYS: Final = "Event displays"

CATALOGUE: Final[tuple[Entry, ...]] = (
    Entry(
        "ladder",
        _LADDER,
        "At each energy and angle: shifts of means in Geant4's spreads, ratios of widths, differences of correlations. "
        "Colours are their size in errors, white below two.",
        pull_matrix,
        wide=True,
    ),
    _distribution("response", _ENERGY, "Deposited over incident energy."),
    _distribution("total_energy", _ENERGY, "Deposited energy."),
    Entry(
        "response_mean",
        _ENERGY,
        "Mean response in bins of incident energy, with bootstrap errors.",
        conditions.response_means,
    ),
    Entry(
        "resolution",
        _ENERGY,
        "Width over mean of the response in bins of incident energy, with bootstrap errors.",
        conditions.response_widths,
    ),
    Entry(
        "longitudinal_profile",
        _PROFILES,
        "Mean fraction of a shower's energy in each layer.",
        distributions.longitudinal_profile,
    ),
    Entry(
        "lateral_profile", _PROFILES, "Mean fraction of a shower's energy in each ring.", distributions.lateral_profile
    ),
    _distribution("longitudinal_mean", _PROFILES, "Energy-weighted mean depth of each shower."),
    _distribution("longitudinal_width", _PROFILES, "Energy-weighted standard deviation of depth."),
    _distribution("lateral_mean", _PROFILES, "Energy-weighted mean distance from the axis."),
    _distribution("lateral_width", _PROFILES, "Energy-weighted standard deviation of the distance from the axis."),
    _distribution("centre_x", _PROFILES, "Energy-weighted mean of x = r cos phi."),
    _distribution("centre_y", _PROFILES, "Energy-weighted mean of y = r sin phi."),
    _distribution("width_x", _PROFILES, "Energy-weighted standard deviation of x."),
    _distribution("width_y", _PROFILES, "Energy-weighted standard deviation of y."),
    Entry(
        "profile_by_energy",
        _PROFILES,
        "Mean longitudinal profile in four bins of incident energy.",
        conditions.profile_by_energy,
        wide=True,
    ),
    Entry(
        "profile_by_angle",
        _PROFILES,
        "Mean longitudinal profile in three bins of the angle to the normal of the front face.",
        conditions.profile_by_angle,
        wide=True,
    ),
    Entry(
        "cell_spectrum",
        _CELLS,
        "Mean number of cells per shower in bins of their energy.",
        distributions.cell_spectrum,
    ),
    _distribution("occupancy", _CELLS, "Fraction of the cells that have energy."),
    _distribution(
        "leading_fraction", _CELLS, "Part of the energy in the most energetic tenth of the cells with energy."
    ),
    _distribution("max_fraction", _CELLS, "Most energetic cell over incident energy."),
    Entry(
        "layer_energies",
        _LAYERS,
        "Energy over incident energy in layers from the start of the shower to its end.",
        layers.layer_energies,
        wide=True,
    ),
    Entry(
        "layer_energy_map",
        _LAYERS,
        "Mean energy fraction by layer and incident energy: Geant4's, and the ratio of each sample to it.",
        layers.layer_energy_map,
        wide=True,
    ),
    Entry(
        "layer_correlations",
        _LAYERS,
        "Pearson correlations of the layers' fractions of the energy around their mean at the shower's energy.",
        layers.layer_correlations,
        wide=True,
    ),
    Entry(
        "layer_occupancy", _LAYERS, "Mean fraction of a layer's cells that have energy.", distributions.layer_occupancy
    ),
    _layer("layer_mean_r", "Mean distance from the axis within each layer."),
    _layer("layer_width_r", "Standard deviation of the distance from the axis within each layer."),
    _layer("layer_centre_x", "Mean of x within each layer."),
    _layer("layer_centre_y", "Mean of y within each layer."),
    _layer("layer_width_x", "Standard deviation of x within each layer."),
    _layer("layer_width_y", "Standard deviation of y within each layer."),
    Entry(
        "showers_3d",
        _DISPLAYS,
        "Single showers: Geant4's at three energies, and those of each sample that are closest in energy and angle. A "
        "point is a cell with energy.",
        displays.single_showers_3d,
        wide=True,
        picture=True,
    ),
    Entry(
        "showers_unrolled",
        _DISPLAYS,
        "The shower of middle energy of each sample, summed along each axis of the mesh.",
        displays.single_showers,
        wide=True,
        picture=True,
    ),
    Entry(
        "mean_showers",
        _DISPLAYS,
        "The mean shower of each sample, which single showers scatter around.",
        displays.mean_showers,
        wide=True,
        picture=True,
    ),
)
