"""CaloChallenge mode: the challenge's own features, and FPD and KPD of them as its tables have them.

Source: the challenge's evaluation (arXiv:2410.21611, section 4; HighLevelFeatures.py and evaluate.py of
github.com/CaloChallenge/homepage). "eta" and "phi" there are the transverse coordinates r cos(alpha) and r sin(alpha)
of the cell's centre, in mm.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from metacalo.evaluate.jetnet import jetnet_fpd, jetnet_kpd
from metacalo.evaluate.metrics import Cut, Estimate
from metacalo.evaluate.observables import Observables
from metacalo.runtime.threads import side_by_side

__all__ = ["challenge_features", "challenge_metrics"]

Array = NDArray[np.float64]

_SMALLEST: Final = 1e-8  # MeV, so that an empty layer has a logarithm
_LENGTH: Final = 1e2  # mm that lengths are told in


def challenge_features(seen: Observables, dr_mm: float = 1.0) -> Array:
    """The high-level features of the challenge, (N, 1 + 5 Z): 226 for datasets 2 and 3.

    Of E_inc and of each layer's energy, log10(E / MeV) (plus 1e-8 for layers); then, layer by layer, the centres of
    energy in x and in y and the widths in x and in y, over 100 mm. An empty layer has zeros there.

    Args:
        seen: observables of N showers. The challenge's files hold deposits divided by the sampling fraction.
        dr_mm: size of a cell in r. FPD and KPD do not depend on it, as they divide by the largest value.
    """
    lengths = (seen.layer_centre_x, seen.layer_centre_y, seen.layer_width_x, seen.layer_width_y)
    return np.concatenate(
        [
            np.log10(seen.energy)[:, None],
            np.log10(seen.layer_energy + _SMALLEST),
            *(np.nan_to_num(length) * dr_mm / _LENGTH for length in lengths),
        ],
        axis=1,
    )


def challenge_metrics(generated: Array, reference: Array, cut: Cut) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
    """FPD and KPD of the challenge's features: of all showers, and of halves, value and Geant4 floor.

    The first is what the challenge's code finds for the two files. It depends on the number of showers where there are
    not tens of thousands, so that only the two others, of equal numbers, can be compared with one another.

    Args:
        generated: features of generated showers (M, F).
        reference: of Geant4 showers (N, F).
        cut: halves of the reference, and generated showers in the place of the second one.
    """
    half = reference[cut.first]
    pairs = (reference, generated), (half, generated[cut.generated]), (half, reference[cut.second])
    calls = [partial(distance, *pair) for distance in (jetnet_fpd, jetnet_kpd) for pair in pairs]
    with threadpool_limits(1):  # a call for each core, and no more threads than that
        found = side_by_side(calls, "cpu")
    return {"fpd": (found[0], found[1], found[2]), "kpd": (found[3], found[4], found[5])}
