"""Fluctuations: how response spreads at each energy, and how the energies of layers go together."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metacalo.evaluate.observables import Observables

__all__ = [
    "ResponseByEnergy",
    "correlation_difference",
    "correlations",
    "energy_edges",
    "layer_residuals",
    "response_by_energy",
]

Array = NDArray[np.float64]

_CLIP: Final = 3.0  # standard deviations: a late layer is mostly empty, and hit hard now and then
_MEAN_DEGREE: Final = 3
_SPREAD_DEGREE: Final = 2
_LEAST_SPREAD: Final = 0.1  # of the layer's mean spread
_NARROW: Final = 1e-3  # range of ln energy in which nothing depends on energy
_ONE_ENERGY: Final = 0.02  # range of ln energy that is not worth bins


class ResponseByEnergy(NamedTuple):
    """E_total / E_inc in bins of incident energy. NaN where a bin has fewer than two showers.

    Attributes:
        edges: of the bins, (B + 1,), MeV.
        showers: how many are in each bin, (B,).
        mean, width: mean and standard deviation of the response, (B,).
        mean_error, width_error: their bootstrap errors, (B,).
    """

    edges: Array
    showers: NDArray[np.intp]
    mean: Array
    mean_error: Array
    width: Array
    width_error: Array


def energy_edges(energy: ArrayLike, bins: int = 5) -> Array:
    """Edges of bins of equal width in ln E over the range of `energy` (N,), MeV; of one bin for a single energy.

    Example:
        >>> energy_edges([1000.0, 5000.0, 100_000.0], bins=2).round()
        array([  1000.,  10000., 100000.])
    """
    lowest, highest = float(np.min(np.asarray(energy))), float(np.max(np.asarray(energy)))
    edges = np.geomspace(lowest, highest, 1 + (bins if np.log(highest / lowest) > _ONE_ENERGY else 1))
    edges[0], edges[-1] = lowest, highest
    return edges


def response_by_energy(seen: Observables, edges: ArrayLike, *, resamples: int = 200, seed: int = 0) -> ResponseByEnergy:
    """Mean and width of E_total / E_inc per bin of incident energy, with bootstrap errors.

    Args:
        seen: observables of N showers.
        edges: increasing edges of the bins (B + 1,), MeV, as from `energy_edges`; a shower at the last one is inside.
        resamples: bootstrap samples per bin.
        seed: of the bootstrap.
    """
    rng, limits = np.random.default_rng(seed), np.asarray(edges, dtype=np.float64)
    count = np.zeros(len(limits) - 1, np.intp)
    figures = np.full((4, len(count)), np.nan)
    for index in range(len(count)):
        low, high, last = limits[index], limits[index + 1], index == len(count) - 1
        response = seen.response[(seen.energy >= low) & ((seen.energy <= high) if last else (seen.energy < high))]
        count[index] = n = len(response)
        if n >= 2:
            drawn = response[rng.integers(0, n, (resamples, n))]
            means, widths = drawn.mean(axis=1), drawn.std(axis=1, ddof=1)
            figures[:, index] = response.mean(), means.std(), response.std(ddof=1), widths.std()
    return ResponseByEnergy(limits, count, *figures)


def layer_residuals(seen: Observables) -> Array:
    """Fluctuations of the layers' fractions of the energy around what is usual at the shower's energy, (N, Z).

    From the fraction of the shower's energy in each layer, a cubic in ln E_inc is taken off; the rest is taken over its
    spread, a parabola in ln E_inc fitted to the modulus, and clipped to 3 standard deviations. What remains has about
    the mean 0 and the width 1 at every energy.
    """
    x = np.log(seen.energy)
    x = (x - x.mean()) / (x.std() if np.ptp(x) > _NARROW else 1.0)
    rest = seen.layer_fraction - _fitted(x, seen.layer_fraction, _MEAN_DEGREE)
    spread = _fitted(x, np.abs(rest), _SPREAD_DEGREE) * np.sqrt(np.pi / 2)
    spread = np.maximum(spread, _LEAST_SPREAD * np.abs(rest).mean(axis=0))
    relative = np.divide(rest, spread, out=np.zeros_like(rest), where=spread > 0)
    return np.asarray(np.clip(relative, -_CLIP, _CLIP))


def _fitted(x: Array, columns: Array, degree: int) -> Array:
    design = np.vander(x, degree + 1)
    return np.asarray(design @ np.linalg.lstsq(design, columns, rcond=None)[0])


def correlation_difference(reference: Array, sample: Array) -> float:
    """Mean modulus of the difference of the correlations of all pairs of columns, of (N, K) and of (M, K).

    A column that is constant in a sample has no correlation there. For two samples of n showers of one distribution it
    is about 1.1 / sqrt n, where correlations are small.
    """
    pairs = np.triu_indices(reference.shape[1], 1)
    difference = correlations(reference)[pairs] - correlations(sample)[pairs]
    return float(np.abs(difference).mean()) if difference.size else 0.0


def correlations(columns: Array) -> Array:
    """Pearson correlations (K, K) of the columns of (N, K); 0 with a column that is constant."""
    centred = columns - columns.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    centred = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    return np.asarray(centred.T @ centred)
