"""Precision, recall, density and coverage: fidelity and diversity apart, by the nearest neighbours of each shower."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metacalo.evaluate.signatures import squared_distances

__all__ = ["Overlap", "overlap"]

Array = NDArray[np.float64]

_NEIGHBOURS: Final = 5
_CLIP: Final = 5.0  # standard deviations, as in FPD: a late shower is far from all others
_BLOCK: Final = 1024  # rows of a matrix of distances


class Overlap(NamedTuple):
    """How the regions that two samples fill overlap; the ball of a shower reaches to its fifth neighbour in its sample.

    Attributes:
        precision: share of generated showers inside a ball of the reference: whether each could be Geant4's.
        recall: share of reference showers inside a ball of the generated sample: whether each could be generated.
        density: balls of the reference that a generated shower is in, over 5; 1 is expected, an outlier hardly counts.
        coverage: share of the reference's balls with a generated shower inside.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(reference: Array, sample: Array, *, neighbours: int = _NEIGHBOURS) -> Overlap:
    """Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991), density and coverage (Naeem et al. 2020,
    arXiv:2002.09797), of samples of equal length.

    For equal distributions density is 1 and coverage 1 - 2^-k on average (Naeem et al., eq. 7 for equal lengths);
    precision and recall depend on the number of features and showers. Only values of equal numbers compare.

    Args:
        reference: (N, F), standardised.
        sample: (M, F), on the same scale.
        neighbours: k, to which the balls reach.

    Returns:
        NaN where a sample has no more showers than `neighbours`.
    """
    if min(len(reference), len(sample)) <= neighbours:
        return Overlap(*[float("nan")] * 4)
    x, y = (np.clip(rows, -_CLIP, _CLIP).astype(np.float32) for rows in (reference, sample))
    reach_x, reach_y = (_squared_reach(rows, neighbours) for rows in (x, y))
    balls = np.zeros(len(y), np.intp)
    covered, recalled = np.empty(len(x), bool), np.empty(len(x), bool)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = squared_distances(x[rows], y)
        inside = squared < reach_x[rows, None]
        balls += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (squared < reach_y).any(axis=1)
    return Overlap(
        float(np.mean(balls > 0)), float(recalled.mean()), float(balls.mean() / neighbours), float(covered.mean())
    )


def _squared_reach(rows: NDArray[np.float32], neighbours: int) -> NDArray[np.float32]:
    """Squared distance of each row to its k-th nearest other one, (N,)."""
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        squared = squared_distances(rows[start : start + _BLOCK], rows)
        squared[
            np.arange(len(squared)), start + np.arange(len(squared))
        ] = -1.0  # itself comes first, whatever rounding says
        found[start : start + _BLOCK] = np.partition(squared, neighbours, axis=1)[:, neighbours]
    return found
