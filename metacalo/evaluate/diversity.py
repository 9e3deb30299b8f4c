"""Diversity: whether generated showers are as different from one another as Geant4's are.

A library of a few hundred showers that are scaled and turned to order passes distances to a reference and voxel
classifiers, and yet an experiment that draws ten thousand of them sees each many times. In the space of signatures,
where scaling and turning change nothing, that shows at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metacalo.evaluate.signatures import Signatures, Trend, squared_distances

__all__ = ["Distinct", "Spacing", "distinct_showers", "nearest_ratio"]

_QUANTILE: Final = 0.01
_BLOCK: Final = 1024  # showers that are put into clusters at a time


@dataclass(frozen=True, eq=False)
class Spacing:
    """How far apart showers of a reference lie.

    Attributes:
        trend: the usual distance of a shower to the nearest other one, at its energy.
        close: the 1 % quantile of that distance over the trend; nearer ones count as the same shower.
    """

    trend: Trend
    close: float

    @classmethod
    def of(cls, reference: Signatures) -> Spacing:
        """The spacing of a reference sample, at least two showers."""
        distance = reference.nearest()
        trend = Trend.fit(reference.energy, distance)
        return cls(trend, float(np.quantile(distance / trend(reference.energy), _QUANTILE)))


class Distinct(NamedTuple):
    """How many showers of a sample are different ones.

    Attributes:
        showers: in the sample, N.
        distinct: clusters of showers that count as the same.
        effective: inverse Simpson index of the cluster sizes n, N^2 / sum n^2: N if all differ, and K if K showers
            are repeated equally often.
    """

    showers: int
    distinct: int
    effective: float


def nearest_ratio(reference: Signatures, sample: Signatures, spacing: Spacing) -> float:
    """Median distance to the nearest other shower within `sample`, over that within as many reference showers.

    Each distance is taken over the trend at its energy, so that the two need not have the same energies. About 1 for
    Geant4; 0 if most showers of the sample are there twice. The more showers, the nearer the nearest: the longer of the
    two samples is cut off to the length of the other.
    """
    n = min(len(reference), len(sample))
    expected, found = (np.median(part.nearest() / spacing.trend(part.energy)) for part in (reference[:n], sample[:n]))
    return float(found / expected) if expected > 0 else float("nan")


def distinct_showers(sample: Signatures, spacing: Spacing) -> Distinct:
    """Counts the different showers of a sample.

    One after another, a shower joins the nearest of the clusters whose first shower it is close to, by
    `spacing.close` times the trend at its energy, or becomes the first of a new cluster. Time grows as N times the
    number of clusters, memory as N.
    """
    leaders = np.empty(0, np.intp)  # first shower of each cluster
    cluster = np.empty(len(sample), np.intp)
    reach = (spacing.close * spacing.trend(sample.energy)) ** 2
    for start in range(0, len(sample), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(sample)))
        if len(leaders):
            squared = squared_distances(sample.vectors[rows], sample.vectors[leaders])
            nearest = squared.argmin(axis=1)
            cluster[rows] = np.where(squared[np.arange(len(rows)), nearest] < reach[rows], nearest, -1)
            rows = rows[cluster[rows] < 0]
        first, own = _within(squared_distances(sample.vectors[rows], sample.vectors[rows]), reach[rows])
        cluster[rows] = len(leaders) + own
        leaders = np.concatenate([leaders, rows[first]])
    sizes = np.bincount(cluster, minlength=1).astype(np.float64)
    return Distinct(len(sample), len(leaders), float(sizes.sum() ** 2 / max((sizes**2).sum(), 1.0)))


def _within(squared: NDArray[np.float32], reach: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Clusters among the showers of a block: rows of their first showers (K,), and the cluster of every row (n,)."""
    first: list[int] = []
    own = np.full(len(squared), -1)
    distance = np.full(len(squared), np.inf)
    for row in range(len(squared)):
        if own[row] < 0:
            nearer = (squared[row] < reach) & (squared[row] < distance)
            nearer[:row] &= False
            nearer[row] = True
            own[nearer], distance[nearer] = len(first), squared[row][nearer]
            first.append(row)
    return np.array(first, dtype=np.intp), own
