"""How far a shower's score lies below what is usual at its energy.

Log-likelihoods depend on the energy: a shower of 1 GeV has fewer hits than one of 100 GeV, and other rings are empty.
So showers are ranked by the residual to a smooth trend in ln E, over the spread at that energy, both fitted robustly on
a reference. The trend is the median, a polynomial in ln E by median regression (Koenker & Bassett 1978); the spread is
the median size of the residuals, fitted alike, over that of a unit normal (0.6745). A minority of wrong showers in the
reference moves neither far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from sklearn.linear_model import QuantileRegressor

from metacalo.errors import ShowerFileError

__all__ = ["FEWEST", "EnergyTrend"]

Array = NDArray[np.float64]

FEWEST: Final = 20
"""Showers of a reference without which there is no trend."""

_DEGREE, _SPREAD_DEGREE = 3, 1
_LARGEST = 2000  # showers that a trend is fitted on
_NORMAL: Final = 0.6744897501960817  # median size of a unit normal
_NARROWEST = 0.2  # of the spread over all energies


@dataclass(frozen=True)
class EnergyTrend:
    """Median and spread of a score as functions of the energy.

    Attributes:
        median: of ln(E / MeV), in the unit of the score.
        spread: of ln(E / MeV), robust standard deviation.
        narrowest: least spread.
        energies: least and largest energy of the reference in MeV; beyond them both stay what they are there.
    """

    median: Polynomial
    spread: Polynomial
    narrowest: float
    energies: tuple[float, float]

    @classmethod
    def fit(cls, energy: NDArray[np.floating], score: NDArray[np.floating]) -> Self:
        """The trend of the scores (N,) of a reference at energies (N,) in MeV.

        Raises:
            ShowerFileError: there are fewer than 20 showers.
        """
        if len(energy) < FEWEST:
            raise ShowerFileError(
                f"{len(energy)} showers are too few to find unlikely ones beside the trend in energy; score at least "
                f"{FEWEST}"
            )
        x, y = np.log(np.asarray(energy, np.float64)), np.asarray(score, np.float64)
        if len(x) > _LARGEST:  # evenly in energy
            rows = np.argsort(x)[np.linspace(0, len(x) - 1, _LARGEST).round().astype(int)]
            x, y = x[rows], y[rows]
        median = _median_regression(x, y, _DEGREE)
        size = np.abs(y - median(x)) / _NORMAL
        narrowest = max(_NARROWEST * float(np.median(size)), float(np.finfo(np.float64).tiny))
        return cls(
            median,
            _median_regression(x, size, _SPREAD_DEGREE),
            narrowest,
            (float(np.min(energy)), float(np.max(energy))),
        )

    def deviation(self, energy: NDArray[np.floating], score: NDArray[np.floating]) -> Array:
        """Robust standard deviations above (below: negative) the trend, of scores (N,) at energies (N,) in MeV."""
        x = np.log(np.clip(np.asarray(energy, np.float64), *self.energies))
        spread = np.maximum(self.spread(x), self.narrowest)
        return np.asarray((np.asarray(score, np.float64) - self.median(x)) / spread, np.float64)


def _median_regression(x: Array, y: Array, degree: int) -> Polynomial:
    """Polynomial in x of least absolute deviation from y, of a lower degree where there are few different x."""
    low, high = float(x.min()), float(x.max())
    degree = min(degree, len(np.unique(x)) - 1) if high > low else 0
    if degree == 0:
        return Polynomial([float(np.median(y))])
    unit = Polynomial([-(low + high) / (high - low), 2 / (high - low)])
    scale = max(float(np.abs(y - np.median(y)).max()), float(np.finfo(np.float64).tiny))
    powers = unit(x)[:, None] ** np.arange(1, degree + 1)
    fitted = QuantileRegressor(quantile=0.5, alpha=0.0, solver="highs").fit(powers, (y - np.median(y)) / scale)
    made: Polynomial = Polynomial([fitted.intercept_, *fitted.coef_])(unit) * scale + float(np.median(y))
    return made
