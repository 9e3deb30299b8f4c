"""What looks like a mistake in a sample of showers that can be read: one sentence each, with what to do.

Reading refuses what cannot be; here is what can be, and yet is most often a mistake of units, axes or merging. Every
command that reads showers asks.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.showers.census import Census, Wrong
from metacalo.showers.shower_file import LARGEST_RESPONSE, ShowerFile, Showers

__all__ = ["sample_warnings", "scale_of", "spread_rows", "warn_of_conditions", "warn_of_file", "warn_of_showers"]

GREATEST_RESPONSE: Final = 1.3
"""Above what any scale gives; fluctuations of single showers aside."""
LEAST_RESPONSE: Final = 0.001
"""Below the sampling fraction of any calorimeter in use."""
LEAST_ENERGY: Final = 100.0
"""MeV; a sample whose median incident energy is below has its energies in GeV: electrons of less make no shower."""
LEAST_DEPOSIT: Final = 2e-4
"""MeV, of deposits divided by the sampling fraction; thresholds of readouts and of public files are 0.5 to 500 keV."""
TOO_DEEP: Final = 5.0
"""Radiation lengths by which showers lie deeper than those of their energy: 6.9 = ln(1000) if it is in GeV, 0 to 4 if
it is right (wide meshes, leakage)."""
CHECKED: Final = 512
"""Showers of a file that are read to check it."""
DRIFT: Final = 0.1
BLOCKS: Final = 10
SIGNIFICANCE: Final = 6.0

Array = NDArray[np.float64]


def sample_warnings(census: Census, energy: Array, detector: Detector | None = None) -> list[str]:
    """Sentences about the voxels, units, response and axes of a sample; none for a good one.

    Args:
        census: what was seen of its voxels.
        energy: incident energies (n,) in MeV of the rows that were seen.
        detector: where the showers are from, if that is known.
    """
    response = census.totals / np.where(energy > 0, energy, np.nan)
    units = _units(census, response, energy, detector)
    return [
        *_voxels(census),
        *(
            units
            or [*_response(response, census.rows, energy, detector), *_threshold(census, response, energy, detector)]
        ),
        *_axes(census.mean),
    ]


def warn_of_showers(showers: Showers, where: str | Path, rows: NDArray[np.int64] | None = None) -> None:
    """Warns of what looks like a mistake in showers that were read: one line each.

    Args:
        showers: at most `CHECKED` of them are looked at.
        where: what they are called, such as their file.
        rows: their numbers in the file.
    """
    few = showers[slice(0, CHECKED)]
    numbers = np.arange(len(few)) if rows is None else np.asarray(rows[: len(few)])
    census = Census(Grid(*few.showers.shape[1:]))
    census.add(numbers, few.showers, few.energy)
    for sentence in sample_warnings(census, few.energy.astype(np.float64), few.detector):
        warnings.warn(f"{where}: {sentence}", stacklevel=2)


def warn_of_conditions(energy: NDArray[np.floating], where: str | Path) -> None:
    """Warns if incident energies (n,) in MeV, of which showers are to be generated, seem to be in GeV."""
    if (typical := float(np.median(energy))) < LEAST_ENERGY:
        sentence = f"the median incident energy is {typical:.3g} MeV: {_in_gev('energies')}"
        warnings.warn(f"{where}: {sentence}", stacklevel=2)


def spread_rows(rows: range) -> list[NDArray[np.int64]]:
    """Four runs of rows, `CHECKED` at most in all, spread evenly: files are often sorted, or merged of several."""
    count = min(CHECKED, len(rows))
    runs = np.array_split(np.arange(count), min(4, count))
    gaps = np.linspace(0, len(rows) - count, len(runs)).round().astype(np.int64)
    return [rows.start + run + gap for run, gap in zip(runs, gaps, strict=True)]


def warn_of_file(file: ShowerFile) -> None:
    """`warn_of_showers` of `spread_rows` of a file.

    Raises:
        ShowerFileError: a voxel cannot be right, or a part of the file is damaged.
    """
    rows = np.concatenate(spread_rows(range(len(file))))
    warn_of_showers(file.load(rows), file.path if file.group is None else f"{file.path}, group {file.group}", rows)


def scale_of(response: float, detector: Detector | None) -> str:
    """Whether deposits are raw or divided by the sampling fraction, by the mean response."""
    if not np.isfinite(response) or response <= 0:
        return "not known"
    if detector is not None and detector.homogeneous:
        return "homogeneous calorimeter: raw deposits"
    raw, divided = "raw deposits in the active material", "deposits divided by the sampling fraction"
    if detector is None:
        return divided if response > 0.5 else raw
    return divided if abs(np.log(response)) < abs(np.log(response / _fraction(detector))) else raw


def _voxels(census: Census) -> list[str]:
    checks = (
        (census.negative, "voxel{s} below 0", "set to 0, or drop the row{s}"),
        (census.not_finite, "voxel{s} NaN or infinite", "drop the row{s}"),
        (census.empty, "shower{s} without a deposit", "drop what is no real miss"),
        (census.duplicates(), "shower{s} equal to an earlier one", "drop what would count twice"),
    )
    return [_counted(wrong, what, mend) for wrong, what, mend in checks if wrong.count]


def _counted(wrong: Wrong, what: str, mend: str) -> str:
    rows = ", ".join(map(str, wrong.rows)) + (", ..." if wrong.showers > len(wrong.rows) else "")
    inside = f" in {wrong.showers:,} showers" if 1 < wrong.showers != wrong.count else ""
    several = "s" if wrong.showers > 1 else ""
    named = what.format(s="s" if wrong.count > 1 else "")
    return f"{wrong.count:,} {named}{inside} (row{several} {rows}); {mend.format(s=several)}"


def _in_gev(what: str) -> str:
    options = [f"--{key} 1000" for word, key in (("energies", "energy-scale"), ("deposits", "scale")) if word in what]
    return f"{what} seem to be in GeV and are needed in MeV (metacalo convert FILE {' '.join(options)})"


def _fraction(detector: Detector | None) -> float:
    """Mean response of raw deposits, roughly; 1 where it is not known."""
    if detector is None or detector.homogeneous:
        return 1.0
    # showers deposit somewhat less in the active sheets than a minimum ionising particle
    return detector.sampling_fraction or 0.8 * detector.mip_sampling_fraction


def _is_near(response: float, detector: Detector | None) -> bool:
    """Whether a response is that of deposits in MeV, raw or divided by the sampling fraction, within a factor of 2."""
    return any(abs(np.log(response / fraction)) < np.log(2) for fraction in (1.0, _fraction(detector)))


def _units(census: Census, response: Array, energy: Array, detector: Detector | None) -> list[str]:
    """GeV in the place of MeV, of energies, deposits or both."""
    usable = np.isfinite(response) & (response > 0)
    if not usable.any():
        return []
    median, typical = float(np.median(response[usable])), float(np.median(energy[usable]))
    if typical < LEAST_ENERGY:
        what = "energies and deposits" if median < LARGEST_RESPONSE else "energies"
        return [f"the median incident energy is {typical:.3g} MeV: {_in_gev(what)}"]
    deposited = f"showers deposit {median:.3g} of their incident energy"
    if _is_near(median, detector):
        excess = _depth_excess(census, energy[usable], detector)
        if excess > TOO_DEEP and _has_tiny_deposits(census, median):
            deeper = f"showers lie {excess:.1f} X0 deeper than those of {typical:.3g} MeV"
            return [f"{deeper}: {_in_gev('energies and deposits')}"]
    elif _is_near(1000 * median, detector):
        return [f"{deposited}: {_in_gev('deposits')}"]
    elif median > LARGEST_RESPONSE and _is_near(median / 1000, detector):
        return [f"{deposited}: {_in_gev('energies')}"]
    return []


def _depth_excess(census: Census, energy: Array, detector: Detector | None) -> float:
    """By how many X0 showers lie deeper than ln(E / E_c) + 1.3, about which showers of e- and photons do."""
    profile = census.mean.sum(axis=(0, 1))
    if detector is None or profile.sum() <= 0:
        return 0.0
    depth = (np.arange(len(profile)) + 0.5) * detector.grid.dz_mm / detector.X0_mm
    expected = np.average(np.log(energy / detector.E_c_MeV), weights=energy) + 1.3
    return float(np.average(depth, weights=profile) - expected)


def _has_tiny_deposits(census: Census, response: float) -> bool:
    # on the scale of the incident energy, whatever that of the file is
    return bool(np.isfinite(census.smallest)) and census.smallest / min(response, 1.0) < LEAST_DEPOSIT


def _threshold(census: Census, response: Array, energy: Array, detector: Detector | None) -> list[str]:
    usable = np.isfinite(response) & (response > 0)
    if not usable.any() or not _has_tiny_deposits(census, float(np.median(response[usable]))):
        return []
    # without a detector, showers of 100 GeV and more in GeV and noisy ones of 100 MeV look the same
    unsure = detector is None and float(np.median(energy[usable])) < 10 * LEAST_ENERGY
    return [
        f"the smallest deposit is {1e6 * census.smallest:.2g} eV, far below the threshold of any readout (public files "
        "cut at 15.15 keV): cut at yours (metacalo convert FILE --threshold 0.01515, in MeV)"
        + (f"; or {_in_gev('energies and deposits')}" if unsure else "")
    ]


def _response(response: Array, rows: NDArray[np.int64], energy: Array, detector: Detector | None) -> list[str]:
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
    elif median < LEAST_RESPONSE and not _is_near(median, detector):
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
    # a shallow mesh has its maximum in the last half too, but no empty beginning
    if len(z) > 2 and z[len(z) // 2 :].sum() > 0.7 * z.sum() and z[: len(z) // 3].sum() < 0.05 * z.sum():
        return ["most energy lies in the last half of z: the first layer must be the one at the calorimeter's face"]
    return []
