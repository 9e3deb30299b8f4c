"""What is drawn, as numbers: binned values of several samples with their statistical errors, and their ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metacalo.evaluate.observables import SPECTRUM_EDGES

__all__ = ["Curves", "histogram", "histogram_edges", "profile", "spectrum"]

Array = NDArray[np.float64]

_TAIL: Final = 0.003  # of the reference beyond either end of a histogram
_DECADE: Final = 30.0  # from such a ratio of its ends on, an axis is logarithmic


class Curves(NamedTuple):
    """Values of S samples in K bins. NaN where a sample has none.

    Attributes:
        edges: of the bins, (K + 1,), increasing.
        values: (S, K); the first sample is the reference.
        errors: statistical errors, (S, K).
    """

    edges: Array
    values: Array
    errors: Array

    @property
    def logarithmic(self) -> bool:
        """Whether the bins are of equal width in the logarithm."""
        edges = self.edges
        return bool(edges[0] > 0 and np.allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0])))

    @property
    def centres(self) -> Array:
        """Middle of each bin, the geometric one where the bins are logarithmic, (K,)."""
        first, last = self.edges[:-1], self.edges[1:]
        return np.asarray(np.sqrt(first * last) if self.logarithmic and len(first) > 1 else (first + last) / 2)

    def ratios(self) -> Curves:
        """Values and errors over the reference's values; NaN where that is not above zero.

        The reference's own ratio is 1, with its relative error: the band that the others are seen against.
        """
        positive = np.nan_to_num(self.values[0]) > 0
        scale = np.divide(1.0, self.values[0], out=np.full_like(self.values[0], np.nan), where=positive)
        return Curves(self.edges, self.values * scale, self.errors * scale)

    def differences(self) -> Curves:
        """Values less those of the reference, with the errors of each sample alone."""
        return Curves(self.edges, self.values - self.values[0], self.errors)


def profile(edges: Array, samples: Sequence[Array]) -> Curves:
    """Means over the showers, and their errors, of arrays (N, K) with one column for each bin; NaN is no value."""
    figures = [_mean(sample) for sample in samples]
    return Curves(edges, np.stack([mean for mean, _ in figures]), np.stack([error for _, error in figures]))


def _mean(sample: Array) -> tuple[Array, Array]:
    known = np.isfinite(sample)
    count = known.sum(axis=0)
    some = count > 0
    mean = np.divide(np.where(known, sample, 0.0).sum(axis=0), count, out=np.full(count.shape, np.nan), where=some)
    squares = np.where(known, sample - mean, 0.0) ** 2
    variance = np.divide(squares.sum(axis=0), count, out=np.full(count.shape, np.nan), where=some)
    return mean, np.sqrt(variance / np.maximum(count, 1))


def histogram_edges(reference: Array, bins: int = 24) -> Array:
    """Edges (bins + 1,) over the range of `reference` (N,): logarithmic where it is above zero and wide.

    A quantity that is never negative does not get a negative edge.

    Example:
        >>> histogram_edges(np.array([1.0, 2.0, 3.0]), bins=2).round(2)
        array([0.71, 2.  , 3.29])
    """
    low, high = np.quantile(reference, [_TAIL, 1 - _TAIL]) if len(reference) else (0.0, 0.0)
    if low > 0 and high > _DECADE * low:
        margin = (high / low) ** 0.05
        return np.asarray(np.geomspace(low / margin, high * margin, bins + 1))
    margin = 0.15 * (high - low) or 0.5 * (abs(low) or 1.0)
    start = low - margin
    if len(reference) and reference.min() >= 0:
        start = max(start, 0.0)
    return np.linspace(start, high + margin, bins + 1)


def histogram(samples: Sequence[Array], bins: int = 24) -> Curves:
    """Densities of arrays (N,) over the range of the first; the outer bins take what lies beyond.

    A density is per unit of the axis, or of its natural logarithm where bins are logarithmic. Errors are those of the
    counts (Poisson).
    """
    edges = histogram_edges(samples[0], bins)
    empty = Curves(edges, np.zeros((1, bins)), np.zeros((1, bins)))
    widths = np.diff(np.log(edges)) if empty.logarithmic else np.diff(edges)
    counts = np.stack([np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] for found in samples])
    norm = 1.0 / (np.maximum([len(found) for found in samples], 1)[:, None] * widths)
    return Curves(edges, counts * norm, np.sqrt(counts) * norm)


def spectrum(samples: Sequence[Array]) -> Curves:
    """Mean numbers of voxels per shower in five bins a decade of their energy in MeV, from `Observables.spectrum`."""
    merged = [counts.reshape(len(counts), -1, 2).sum(axis=2) for counts in samples]
    filled = np.flatnonzero(sum(counts.sum(axis=0) for counts in merged))
    first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (0, 0)
    edges = 10.0 ** SPECTRUM_EDGES[::2][first : last + 2]
    return profile(edges, [counts[:, first : last + 1] for counts in merged])
