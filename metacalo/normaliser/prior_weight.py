"""How far a predicted normaliser is to be believed, measured on the shots.

A prediction that errs by a variance a of the spread of values is worth 1 / a values of the detector itself; a row that
is fitted to w values departs from it by a + 1 / w in the mean square. So the departures of the fitted rows give a
(Buehlmann and Straub 1970, credibility theory). A detector like those of pretraining is predicted well and needs
few shots of its own; one unlike all of them (a homogeneous crystal, say, where all others are sampled) must not be
drawn to a prediction that is wrong.
"""

from __future__ import annotations

import torch

from metacalo.normaliser.marginals import LEVELS, ConditionalMarginals, scores_of_levels
from metacalo.normaliser.normaliser import Normaliser
from metacalo.normaliser.parts import PARTS

__all__ = ["credibility"]

_LEAST, _MOST = 0.02, 3.0
_FEWEST_ROWS = 20
_FEWEST_VALUES = 1.0  # behind a row
_MIDDLE = slice(LEVELS.index(0.3), LEVELS.index(0.7) + 1)
_OUTER = (LEVELS.index(0.05), LEVELS.index(0.95))
_SMALLEST_SPREAD = 1e-6


def credibility(fitted: Normaliser, predicted: Normaliser) -> float:
    """Factor on the values that a prediction counts for: 1 for a usual detector, 0.02 to 3.

    Args:
        fitted: tables of the shots alone.
        predicted: tables on the same knots.
    """
    telling = [(kind.name, kind.worth) for kind in PARTS if kind.worth is not None]
    factors = torch.ones(len(telling))
    for i, (name, usual) in enumerate(telling):
        own, prior = fitted.parts[name], predicted.parts[name]
        assert isinstance(own, ConditionalMarginals)
        assert isinstance(prior, ConditionalMarginals)
        worth = _worth(own, prior)
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
