"""The no-copy test: a generator that was adapted on a few hundred shots must not hand them back.

A new Geant4 shower is as near to the shots as any other new shower is. Generated showers that are nearer than that were
learned by heart.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metacalo.evaluate.metrics import Estimate
from metacalo.evaluate.signatures import Signatures, Trend

__all__ = ["Copies", "copies"]

Array = NDArray[np.float64]

_SHARE: Final = 0.01
_DRAWS: Final = 5
_NO_DISTANCE: Final = 1e-6


class Copies(NamedTuple):
    """Generated showers beside the shots.

    Attributes:
        share: of the generated showers that lie nearer to a shot than all but one in a hundred unseen showers do.
        expected: the same for new Geant4 showers; its error is that of the quantile.
        control: the same for the generated showers and as many unseen ones in the place of the shots. A generator whose
            showers are not varied enough comes too near to all, so what `share` has more than this is copied.
        ratio: median over the generated showers of the distance to the nearest shot over the distance to the nearest of
            as many unseen showers; its error is the spread over draws of those.
        ratio_floor: the same for unseen showers in the place of the generated ones, about 1.
    """

    share: Estimate
    expected: Estimate
    control: Estimate
    ratio: Estimate
    ratio_floor: Estimate


def copies(generated: Signatures, shots: Signatures, unseen: Signatures, *, seed: int = 0) -> Copies:
    """Compares distances of generated showers to the shots with those of showers that are no copies.

    Args:
        generated: signatures of the generated showers.
        shots: of the showers that the generator has seen, at least one.
        unseen: of Geant4 showers that it has not seen, at least two, with energies like those of the shots.
        seed: of the draws.

    The threshold of `share` is the k-th smallest of the distances of U unseen showers, k = U / 100 and at
    least 1, below which a new shower lies with probability k / (U + 1), exactly. Distances are taken over
    their trend with energy in the unseen showers. The error of `share` is binomial.
    """
    copied, to_shots = generated.nearest(shots), unseen.nearest(shots)
    share = _share_near(generated, copied, unseen, to_shots)
    expected = _rank(len(unseen)) / (len(unseen) + 1)
    rng, n = np.random.default_rng(seed), min(len(shots), len(unseen) // 2)
    draws = []
    for _ in range(_DRAWS):
        order = rng.permutation(len(unseen))
        others, rest = unseen[order[:n]], unseen[order[n:]]
        if n < len(shots):
            few = shots[rng.permutation(len(shots))[:n]]
            near, rest_near = generated.nearest(few), rest.nearest(few)
        else:
            near, rest_near = copied, to_shots[order[n:]]
        to_others, rest_to_others = generated.nearest(others), rest.nearest(others)
        draws.append(
            (
                _share_near(generated, to_others, rest, rest_to_others),
                _median_ratio(near, to_others),
                _median_ratio(rest_near, rest_to_others),
            )
        )
    control, ratio, ratio_floor = (
        Estimate(float(np.mean(found)), float(np.std(found))) for found in zip(*draws, strict=True)
    )
    return Copies(
        Estimate(share, _binomial_error(share, len(generated))),
        Estimate(expected, _binomial_error(expected, len(unseen) + 2)),
        Estimate(control.value, float(np.hypot(control.error, _binomial_error(control.value, len(generated))))),
        ratio,
        ratio_floor,
    )


def _rank(n: int) -> int:
    return max(1, round(_SHARE * n))


def _share_near(sample: Signatures, distance: Array, unseen: Signatures, expected: Array) -> float:
    """Part of `sample` whose `distance` (N,) is below the 1 % quantile of what is `expected` of unseen showers (U,)."""
    trend = Trend.fit(unseen.energy, expected)
    threshold = np.sort(expected / trend(unseen.energy))[_rank(len(unseen)) - 1]
    return float(np.mean(distance / trend(sample.energy) < threshold))


def _median_ratio(distance: Array, other: Array) -> float:
    return float(np.median(distance / np.maximum(other, _NO_DISTANCE)))


def _binomial_error(share: float, n: int) -> float:
    return float(np.sqrt(share * (1.0 - share) / n))
