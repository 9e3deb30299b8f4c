"""CaloChallenge mode: FPD and KPD of the challenge's own features, by the definitions of the challenge's own code.

Source: evaluate.py and HighLevelFeatures.py of github.com/CaloChallenge/homepage, folder code/. The cut and the 362
features are those of evaluate.py at commit 2a3dcf2, which takes FPD and KPD from JetNet (arXiv:2211.10295) with its
defaults, batches from 20,000 and of 5,000; those here are from 10,000 and of 10,000. Results are in arXiv:2410.21611.
"eta" and "phi" in the challenge's code are the transverse coordinates r cos(alpha) and r sin(alpha) of the cell's
centre, in mm.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from metacalo.evaluate.jetnet import jetnet_fpd, jetnet_kpd
from metacalo.evaluate.metrics import Cut, Estimate
from metacalo.evaluate.observables import Observables
from metacalo.runtime.threads import side_by_side

__all__ = ["CHALLENGE_THRESHOLD", "CHALLENGE_VERSION", "challenge_features", "challenge_metrics", "challenge_settings"]

Array = NDArray[np.float64]

CHALLENGE_THRESHOLD: Final = 0.5e-3 / 0.033
"""MeV: deposits below it are set to 0 in both samples of datasets 2 and 3 (0.5 keV over the sampling fraction)."""

CHALLENGE_VERSION: Final = "CaloChallenge/homepage, code/evaluate.py, commit 2a3dcf2, batches of 10,000"
"""Whose definitions these are."""

_SMALLEST: Final = 1e-8  # MeV, so that an empty layer has a logarithm
_LENGTH: Final = 1e2  # mm, the unit of lengths
_BATCH: Final = 10_000  # showers: of the smallest batch of FPD, and of those of KPD


def challenge_features(seen: Observables, dr_mm: float = 1.0) -> Array:
    """The high-level features of the challenge, (N, 2 + 8 Z): 362 for datasets 2 and 3.

    log10 of E_inc / MeV; log10 of each layer's energy; centres of energy of the layers in x and y, and widths in x and
    y, over 100 mm; log10 of the shower's energy; share of each layer's cells without energy; mean distance from the
    axis in each layer, and its width, over 100 mm. To energies 1e-8 MeV is added. An empty layer has centres and
    widths 0.

    Args:
        seen: observables of N showers above `CHALLENGE_THRESHOLD`. The challenge's files hold deposits divided by the
            sampling fraction.
        dr_mm: size of a cell in r. FPD and KPD do not depend on it, as they divide by the largest value.
    """

    def lengths(*columns: Array) -> list[Array]:
        return [np.nan_to_num(column) * dr_mm / _LENGTH for column in columns]

    return np.concatenate(
        [
            np.log10(seen.energy)[:, None],
            np.log10(seen.layer_energy + _SMALLEST),
            *lengths(seen.layer_centre_x, seen.layer_centre_y, seen.layer_width_x, seen.layer_width_y),
            np.log10(seen.layer_energy.sum(axis=1, keepdims=True) + _SMALLEST),
            1.0 - seen.layer_occupancy,
            *lengths(seen.layer_mean_r, seen.layer_width_r),
        ],
        axis=1,
    )


def challenge_metrics(generated: Array, reference: Array, cut: Cut) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
    """FPD and KPD of the challenge's features: of all showers, and of halves, value and Geant4 floor.

    The first is what the challenge's code finds for the two files. It depends on the number of showers where there are
    not tens of thousands, so that only the two others, of equal numbers, can be compared with one another. The
    challenge publishes both figures times 1000; those here are not multiplied.

    Args:
        generated: features of generated showers (M, F).
        reference: of Geant4 showers (N, F).
        cut: halves of the reference, and generated showers in the place of the second one.
    """
    half = reference[cut.first]
    pairs = (reference, generated), (half, generated[cut.generated]), (half, reference[cut.second])
    distances = partial(jetnet_fpd, min_samples=_BATCH), partial(jetnet_kpd, batch_size=_BATCH)
    calls = [partial(distance, *pair) for distance in distances for pair in pairs]
    with threadpool_limits(1):  # a call for each core, and no more threads than that
        found = side_by_side(calls, "cpu")
    return {"fpd": (found[0], found[1], found[2]), "kpd": (found[3], found[4], found[5])}


def challenge_settings(features: Array) -> dict[str, Any]:
    """What the figures were made with, as `metrics.json` has it."""
    return {
        "version": CHALLENGE_VERSION,
        "threshold_mev": CHALLENGE_THRESHOLD,
        "features": features.shape[1],
        "fpd_smallest_batch": _BATCH,
        "kpd_batch": _BATCH,
    }
