"""The ladder: generated against reference showers at fixed energies and angles, where averages cannot hide anything.

A rung is one energy of a file that has a few, a narrow bin of a continuous spectrum, or a bin of the polar angle. On
each, the means of physical observables are compared in Geant4's spreads and their widths in ratio, with errors from the
numbers of showers. How the mean depends on the energy within a rung is fitted on the reference and taken out of both
samples. Bins of the angle keep their sign: showers lean one way at small theta and the other way at large theta.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from metacalo.evaluate.classifier import classify_observables
from metacalo.evaluate.metrics import Estimate
from metacalo.evaluate.observables import Observables
from metacalo.runtime.wording import ranged
from metacalo.showers.shower_file import Showers

__all__ = ["CORRELATIONS", "LADDER_OBSERVABLES", "Rung", "ladder"]

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

LADDER_OBSERVABLES: Final = (
    "response",
    "depth",
    "depth squared",
    "radius",
    "radius squared",
    "occupancy",
    "largest cell",
    "cos phi",
    "cos 2 phi",
)
"""Of each shower: E_total / E_inc; energy-weighted means of depth and distance from the axis and of their squares (of
depth, around its mean); fraction of the cells with energy; ln of the largest cell over E_inc; energy-weighted means of
cos phi and cos 2 phi."""

CORRELATIONS: Final = ("depth, radius", "depth, occupancy", "next layers")
"""Pearson correlations at fixed energy; `next layers` is the mean of those of neighbouring layers' energy fractions."""

_FEWEST: Final = 30  # showers of a rung, of either sample
_MOST_ENERGIES: Final = 20  # of a file of fixed energies
_SAME: Final = 0.005  # relative difference of two values of one energy
_BIN: Final = 0.6  # width in ln E
_SHOWERS_PER_BIN: Final = 100
_ANGLES: Final = np.array([-1.0, -0.45, -0.15, 0.15, 0.45, 1.0])  # edges in cos theta
_DEGREES: Final = {"energy": 1, "angle": 3}  # of the trend in ln E that is taken out
_LEAST_VARIANCE: Final = 0.1  # of a trend of the variance, over its mean
_BLOCKS: Final = 20  # of the jackknife
_TINY: Final = 1e-12
_BRIGHT: Final = 0.01  # mean fraction of the energy of layers that are correlated


@dataclass(frozen=True)
class Rung:
    """One energy or angle.

    Attributes:
        label: such as `10 GeV` or `cos theta 0.15 to 0.45`.
        kind: `energy` or `angle`.
        showers: of the generated sample and of the reference.
        shifts: mean of each of `LADDER_OBSERVABLES` less the reference's, in the reference's spread.
        widths: ratio of the standard deviations.
        correlations: generated less reference, of each of `CORRELATIONS`.
        auc: of boosted trees within an energy; None where it was not asked for.
    """

    label: str
    kind: str
    showers: tuple[int, int]
    shifts: dict[str, Estimate]
    widths: dict[str, Estimate]
    correlations: dict[str, Estimate]
    auc: Estimate | None

    def pulls(self) -> dict[str, float]:
        """Departures from the reference over their errors; those of means, widths (`width of ...`), correlations."""
        found = {name: shift.value / shift.error for name, shift in self.shifts.items()}
        found |= {f"width of {name}": (ratio.value - 1) / ratio.error for name, ratio in self.widths.items()}
        return found | {name: off.value / off.error for name, off in self.correlations.items()}

    @property
    def chi2(self) -> tuple[float, int]:
        """Sum of the squared pulls, as if observables were independent, and their number."""
        pulls = np.array(list(self.pulls().values()))
        finite = pulls[np.isfinite(pulls)]
        return float(finite @ finite), len(finite)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it; None for what is not finite."""

        def plain(estimates: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
            return {name: _plain(found) for name, found in estimates.items()}

        chi2, ndf = self.chi2
        return {
            "label": self.label,
            "kind": self.kind,
            "showers": {"generated": self.showers[0], "reference": self.showers[1]},
            "shifts": plain(self.shifts),
            "widths": plain(self.widths),
            "correlations": plain(self.correlations),
            "chi2": chi2,
            "ndf": ndf,
            "auc": None if self.auc is None else _plain(self.auc),
        }


def ladder(
    generated: Showers, reference: Showers, ours: Observables, theirs: Observables, *, classifiers: bool = False
) -> list[Rung]:
    """All rungs with 30 showers or more of both samples, energies first.

    Args:
        generated: showers to judge.
        reference: Geant4 showers.
        ours: observables of `generated`.
        theirs: observables of `reference`.
        classifiers: train boosted trees within each energy.
    """
    values = [_values(generated, ours), _values(reference, theirs)]
    rungs = []
    for label, kind, mine, its in _rungs(generated, reference):
        if min(len(mine), len(its)) < _FEWEST:
            continue
        degree = 0 if kind == "energy" and _one(reference.energy[its]) else _DEGREES[kind]
        x = [np.log(sample.energy[rows].astype(np.float64)) for sample, rows in ((generated, mine), (reference, its))]
        standard = {
            name: _standardised(x, values[0][name][mine], values[1][name][its], degree) for name in LADDER_OBSERVABLES
        }
        fractions = _layer_residuals(x, ours.layer_fraction[mine], theirs.layer_fraction[its], degree)
        auc = None
        if classifiers and kind == "energy":
            features = [seen.select(rows).features()[0] for seen, rows in ((theirs, its), (ours, mine))]
            auc = classify_observables(reference.select(its), features[0], generated.select(mine), features[1]).auc
        rungs.append(
            Rung(
                label,
                kind,
                (len(mine), len(its)),
                {name: _shift(*both) for name, both in standard.items()},
                {name: _width(*both) for name, both in standard.items()},
                _correlations(standard, fractions),
                auc,
            )
        )
    return rungs


def _values(sample: Showers, seen: Observables) -> dict[str, Array]:
    n_phi = sample.showers.shape[2]
    phi = (np.arange(n_phi) + 0.5) * (2 * np.pi / n_phi) - np.pi
    in_phi = sample.showers.sum(axis=(1, 3), dtype=np.float64)
    total = np.maximum(in_phi.sum(axis=1), _TINY)
    return {
        "response": seen.response,
        "depth": seen.longitudinal_mean,
        "depth squared": seen.longitudinal_width**2,
        "radius": seen.lateral_mean,
        "radius squared": seen.lateral_width**2 + seen.lateral_mean**2,
        "occupancy": seen.occupancy,
        "largest cell": np.log(np.maximum(seen.max_fraction, _TINY)),
        "cos phi": in_phi @ np.cos(phi) / total,
        "cos 2 phi": in_phi @ np.cos(2 * phi) / total,
    }


def _rungs(generated: Showers, reference: Showers) -> Iterator[tuple[str, str, Rows, Rows]]:
    """Label, kind, and the rows of both samples."""
    for low, high in _energies(reference.energy.astype(np.float64)):
        rows = [np.flatnonzero((sample.energy >= low) & (sample.energy < high)) for sample in (generated, reference)]
        if len(rows[1]):
            inside = reference.energy[rows[1]] / 1e3
            yield ranged(float(inside.min()), float(inside.max()), "GeV"), "energy", rows[0], rows[1]
    cosines = [np.cos(sample.theta.astype(np.float64)) for sample in (generated, reference)]
    if np.ptp(cosines[1]) > _ANGLES[3] - _ANGLES[2]:
        for least, most in pairwise(_ANGLES):
            mine, its = (np.flatnonzero((cosine >= least) & (cosine < most)) for cosine in cosines)
            yield f"cos theta {least:g} to {most:g}", "angle", mine, its


def _energies(energy: Array) -> list[tuple[float, float]]:
    """Ends of the rungs: around each of a few energies, else bins of equal width in ln E."""
    ordered = np.sort(energy)
    starts = np.flatnonzero(np.diff(np.log(ordered), prepend=-np.inf) > _SAME)
    if len(starts) <= _MOST_ENERGIES:
        ends = np.append(starts[1:], len(ordered)) - 1
        pairs = zip(ordered[starts], ordered[ends], strict=True)
        return [(low * (1 - _SAME), high * (1 + _SAME)) for low, high in pairs]
    width = float(np.log(ordered[-1] / ordered[0]))
    bins = int(np.clip(min(np.ceil(width / _BIN), len(energy) // _SHOWERS_PER_BIN), 1, None))
    edges = np.geomspace(ordered[0], ordered[-1] * (1 + 1e-6), bins + 1)
    return list(pairwise(edges))


def _one(energy: NDArray[np.floating]) -> bool:
    return bool(energy.max() <= energy.min() * (1 + _SAME))


def _standardised(x: list[Array], mine: Array, its: Array, degree: int) -> tuple[Array, Array]:
    """Both samples less the reference's mean and over its spread, both as they depend on ln E."""
    trend = _fit(x[1], its, degree)
    residuals = [values - trend(at) for values, at in zip((mine, its), x, strict=True)]
    square = residuals[1] ** 2
    variance, mean = _fit(x[1], square, min(degree, 1)), max(float(square.mean()), _TINY)
    spreads = [np.sqrt(np.maximum(variance(at), _LEAST_VARIANCE * mean)) for at in x]
    return residuals[0] / spreads[0], residuals[1] / spreads[1]


def _fit(x: Array, y: Array, degree: int) -> Polynomial:
    different = 1 + int(np.count_nonzero(np.diff(np.sort(x)) > _SAME))
    degree = min(degree, different - 1)
    if degree == 0:
        return Polynomial([y.mean()])
    fitted: Polynomial = Polynomial.fit(x, y, degree)
    return fitted


def _shift(mine: Array, its: Array) -> Estimate:
    spread = max(float(its.std()), _TINY)
    error = np.hypot(mine.std() / np.sqrt(len(mine)), its.std() / np.sqrt(len(its))) / spread
    return Estimate(float(mine.mean() - its.mean()) / spread, float(error))


def _width(mine: Array, its: Array) -> Estimate:
    """Ratio of widths; the variance of ln s is (kurtosis - 1) / 4 n."""
    ratio = float(mine.std() / max(its.std(), _TINY))
    variances = [(_kurtosis(values) - 1) / (4 * len(values)) for values in (mine, its)]
    return Estimate(ratio, max(ratio, _TINY) * float(np.sqrt(max(sum(variances), _TINY))))


def _kurtosis(values: Array) -> float:
    """Fourth central moment over the squared variance: 3 for a normal."""
    centred = values - values.mean()
    return float((centred**4).mean() / max(float((centred**2).mean() ** 2), _TINY))


def _layer_residuals(x: list[Array], mine: Array, its: Array, degree: int) -> tuple[Array, Array]:
    """Standardised energy fractions of the layers that hold a hundredth of the energy or more, (n, layer)."""
    bright = np.flatnonzero(its.mean(axis=0) > _BRIGHT)
    columns = [_standardised(x, mine[:, z], its[:, z], degree) for z in bright]
    if not columns:
        return np.zeros((len(mine), 0)), np.zeros((len(its), 0))
    return np.stack([one for one, _ in columns], axis=1), np.stack([other for _, other in columns], axis=1)


def _correlations(standard: dict[str, tuple[Array, Array]], fractions: tuple[Array, Array]) -> dict[str, Estimate]:
    """Differences of `CORRELATIONS`, with errors of a jackknife over blocks of showers."""
    sides = []
    for side in (0, 1):
        columns = [standard[name][side] for name in ("depth", "radius", "occupancy")]
        sides.append(_jackknife(np.stack(columns, axis=1), fractions[side]))
    return {
        name: Estimate(mine.value - its.value, float(np.hypot(mine.error, its.error)))
        for name, mine, its in zip(CORRELATIONS, *sides, strict=True)
    }


def _jackknife(columns: Array, fractions: Array) -> list[Estimate]:
    block = np.arange(len(columns)) % _BLOCKS
    whole = _correlation_values(columns, fractions)
    without = np.array([_correlation_values(columns[block != b], fractions[block != b]) for b in range(_BLOCKS)])
    errors = np.sqrt((_BLOCKS - 1) * without.var(axis=0))
    return [Estimate(float(value), float(error)) for value, error in zip(whole, errors, strict=True)]


def _correlation_values(columns: Array, fractions: Array) -> Array:
    found = _corrcoef(columns)
    layers = _corrcoef(fractions)
    neighbours = np.diagonal(layers, offset=1).mean() if layers.shape[0] > 1 else np.nan
    return np.array([found[0, 1], found[0, 2], neighbours])


def _corrcoef(columns: Array) -> Array:
    centred = columns - columns.mean(axis=0)
    unit: Array = centred / np.maximum(np.linalg.norm(centred, axis=0), _TINY)
    return unit.T @ unit


def _plain(found: Estimate) -> dict[str, float | None]:
    return {key: float(value) if np.isfinite(value) else None for key, value in found._asdict().items()}
