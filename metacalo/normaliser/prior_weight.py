"""How far a predicted normaliser is to be believed: the shots themselves tell.

A prediction that errs by a variance a of the spread of values is worth 1 / a values of the detector itself; a row that
is fitted to w values departs from it by a + 1 / w in the mean square. So the departures of the fitted rows give a
(Buehlmann and Straub 1970, credibility theory). A detector like those of pretraining is predicted well and needs
few shots of its own; one unlike all of them (a homogeneous crystal, say, where all others are sampled) must not be
drawn to a prediction that is wrong.
"""

from __future__ import annotations

from typing import Protocol

import torch

from metacalo.normaliser.marginals import LEVELS, ConditionalMarginals, scores_of_levels

__all__ = ["credibility"]

_WORTH = {"hits": 6.0, "shares": 200.0}
"""Values that a prediction of each stage is worth on a usual detector; other stages are too noisy to tell it."""

_LEAST, _MOST = 0.02, 3.0
_FEWEST_ROWS = 20
_FEWEST_VALUES = 1.0  # behind a row
_MIDDLE = slice(LEVELS.index(0.3), LEVELS.index(0.7) + 1)
_OUTER = (LEVELS.index(0.05), LEVELS.index(0.95))
_SMALLEST_SPREAD = 1e-6


class _HasTables(Protocol):
    @property
    def hits(self) -> ConditionalMarginals: ...
    @property
    def shares(self) -> ConditionalMarginals: ...


def credibility(fitted: _HasTables, predicted: _HasTables) -> float:
    """Factor on the values that a prediction counts for: 1 for a usual detector, 0.02 to 3.

    Args:
        fitted: tables of the shots alone.
        predicted: tables on the same knots.
    """
    factors = torch.ones(len(_WORTH))
    for i, (stage, usual) in enumerate(_WORTH.items()):
        worth = _worth(getattr(fitted, stage), getattr(predicted, stage))
        if worth is not None:
            factors[i] = worth / usual
    return float(torch.log(factors.clamp(_LEAST, _MOST)).mean().exp())


def _worth(fitted: ConditionalMarginals, predicted: ConditionalMarginals) -> float | None:
    """Values that the median row of a prediction is worth; None where too few rows have values."""
    known = fitted.weight > _FEWEST_VALUES
    if known.sum() < _FEWEST_ROWS:
        return None
    spread = 0.5 * (_spread(fitted) + _spread(predicted)).clamp_min(_SMALLEST_SPREAD)
    departure = (fitted.quantiles - predicted.quantiles)[..., _MIDDLE].mean(-1) / spread
    excess = (departure[known] ** 2 - 1 / fitted.weight[known]).median()
    return 1 / max(float(excess), 1e-9)


def _spread(table: ConditionalMarginals) -> torch.Tensor:
    """Standard deviation (S, K) of a normal with the same outer quantiles."""
    scores, (low, high) = scores_of_levels(), _OUTER
    return (table.quantiles[..., high] - table.quantiles[..., low]) / (scores[high] - scores[low])
