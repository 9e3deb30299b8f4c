"""What is strange about a sample of showers that could be read: one sentence each, with what to do.

Reading refuses what cannot be; here is what can be, and yet is most often a mistake of units, axes or merging.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from metacalo.showers.census import Census, Wrong
from metacalo.showers.detector import Detector
from metacalo.showers.hdf5 import LARGEST_RESPONSE

__all__ = ["scale_of", "suspicions"]

GREATEST_RESPONSE: Final = 1.3
"""Above what any scale gives; fluctuations of single showers aside."""
LEAST_RESPONSE: Final = 0.001
"""Below the sampling fraction of any calorimeter in use."""
DRIFT: Final = 0.1
BLOCKS: Final = 10
SIGNIFICANCE: Final = 6.0

Array = NDArray[np.float64]


def suspicions(census: Census, energy: Array) -> list[str]:
    """Sentences about the voxels, the response and the axes of a sample; none for a good one.

    Args:
        census: what was seen of its voxels.
        energy: incident energies (n,) in MeV of the rows that were seen.
    """
    response = census.totals / np.where(energy > 0, energy, np.nan)
    return [*_voxels(census), *_response(response, census.rows, energy), *_axes(census.mean)]


def scale_of(response: float, detector: Detector | None) -> str:
    """Whether deposits are raw or divided by the sampling fraction, by the mean response."""
    if not np.isfinite(response) or response <= 0:
        return "not known"
    if detector is not None and detector.homogeneous:
        return "homogeneous calorimeter: raw deposits"
    raw, divided = "raw deposits in the active material", "deposits divided by the sampling fraction"
    if detector is None:
        return divided if response > 0.5 else raw
    # showers deposit somewhat less in the active sheets than a minimum ionising particle
    fraction = detector.sampling_fraction or 0.8 * detector.mip_sampling_fraction
    return divided if abs(np.log(response)) < abs(np.log(response / fraction)) else raw


def _voxels(census: Census) -> list[str]:
    told = (
        (census.negative, "voxel{s} below 0", "set to 0, or drop the row{s}"),
        (census.not_finite, "voxel{s} NaN or infinite", "drop the row{s}"),
        (census.empty, "shower{s} without a deposit", "drop what is no real miss"),
        (census.duplicates(), "shower{s} equal to an earlier one", "drop what would count twice"),
    )
    return [_counted(wrong, what, mend) for wrong, what, mend in told if wrong.count]


def _counted(wrong: Wrong, what: str, mend: str) -> str:
    rows = ", ".join(map(str, wrong.rows)) + (", ..." if wrong.showers > len(wrong.rows) else "")
    inside = f" in {wrong.showers:,} showers" if 1 < wrong.showers != wrong.count else ""
    several = "s" if wrong.showers > 1 else ""
    named = what.format(s="s" if wrong.count > 1 else "")
    return f"{wrong.count:,} {named}{inside} (row{several} {rows}); {mend.format(s=several)}"


def _response(response: Array, rows: NDArray[np.int64], energy: Array) -> list[str]:
    usable = np.isfinite(response) & (response > 0)
    response, rows, energy = response[usable], rows[usable], energy[usable]
    if not len(response):
        return []
    found, median = [], float(np.median(response))
    beyond = response > LARGEST_RESPONSE
    if median > GREATEST_RESPONSE:
        found.append(
            f"showers deposit {median:.3g} times their incident energy: are energies in GeV, or was the sampling "
            "fraction divided by twice? Both are needed in MeV"
        )
    elif beyond.any():
        found.append(
            f"{int(beyond.sum()):,} showers deposit more than {LARGEST_RESPONSE:g} times their incident energy "
            f"(row {rows[beyond][0]}); mend or drop them"
        )
    elif median < LEAST_RESPONSE:
        found.append(
            f"showers deposit {median:.3g} of their incident energy: are deposits in GeV? Both are needed in MeV"
        )
    return found + _drift(response, rows, energy)


def _drift(response: Array, rows: NDArray[np.int64], energy: Array) -> list[str]:
    """Response along the file, apart from what the energy does to it: files are often sorted by energy."""
    if len(response) < 10 * BLOCKS:
        return []
    ratio = np.log(response)
    level = np.log(energy) - np.log(energy).mean()
    powers = np.vander(level, 3 if np.ptp(level) > 0 else 1)
    ratio = ratio - powers @ np.linalg.lstsq(powers, ratio, rcond=None)[0]
    parts = np.array_split(ratio, BLOCKS)
    medians = np.array([np.median(part) for part in parts])
    # spread of the median of normal values, from quartiles, which outliers do not move
    spreads = [np.subtract(*np.quantile(part, [0.75, 0.25])) / 1.35 * 1.25 / np.sqrt(len(part)) for part in parts]
    low, high = int(np.argmin(medians)), int(np.argmax(medians))
    apart = medians[high] - medians[low]
    if apart < np.log1p(DRIFT) or apart < SIGNIFICANCE * np.hypot(spreads[low], spreads[high]):
        return []
    at = [int(np.array_split(rows, BLOCKS)[block][0]) for block in (low, high)]
    return [
        f"the response moves by {np.expm1(apart):.0%} along the file (least from row {at[0]}, most from row {at[1]}): "
        "were showers of two scales or detectors merged?"
    ]


def _axes(mean: Array) -> list[str]:
    """A shower around its axis is nearly even in phi, and least so in depth or distance."""
    if mean.sum() <= 0 or mean.shape[1] < 2:
        return []
    r, phi, z = (mean.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3))
    uneven = [float(profile.std() / profile.mean()) for profile in (r, phi, z)]
    if uneven[1] > 0.5 and uneven[1] > min(uneven[0], uneven[2]):
        name, spread = ("r", uneven[0]) if uneven[0] < uneven[2] else ("z", uneven[2])
        return [
            f"energy is less even in phi than in {name} (spread {uneven[1]:.2f} against {spread:.2f}): axes must be "
            "(r, phi, z), are they in another order?"
        ]
    if len(r) > 2 and r[len(r) // 2 :].sum() > 0.7 * r.sum():
        return ["most energy lies in the outer half of r: the first cell of r must be the one at the shower's axis"]
    return []
