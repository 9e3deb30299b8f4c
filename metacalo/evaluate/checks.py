"""Whether two samples of showers can be compared, and what would spoil it."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.stats import ks_2samp

from metacalo.errors import ShowerFileError
from metacalo.showers.hdf5 import Showers

__all__ = ["FEWEST", "require_comparable", "warnings_of"]

FEWEST: Final = 20
"""Showers of either sample without which nothing can be said."""

_FEW: Final = 100


def require_comparable(generated: Showers, reference: Showers) -> None:
    """Does nothing if the two samples can be compared.

    Raises:
        ShowerFileError: the grids differ, or one sample has fewer than 20 showers.
    """
    ours, theirs = generated.showers.shape[1:], reference.showers.shape[1:]
    if ours != theirs:
        sizes = [" x ".join(str(size) for size in shape) for shape in (ours, theirs)]
        raise ShowerFileError(
            f"generated showers have {sizes[0]} cells, the reference has {sizes[1]}; grids must agree"
        )
    for name, sample in (("generated sample", generated), ("reference", reference)):
        if len(sample) < FEWEST:
            raise ShowerFileError(f"the {name} has {len(sample)} showers; at least {FEWEST} are needed to compare")


def warnings_of(generated: Showers, reference: Showers) -> list[str]:
    """What a reader of the figures must know, a sentence each; none for two good samples."""
    found = [
        f"only {len(sample)} {name} showers: the figures are rough"
        for name, sample in (("generated", generated), ("reference", reference))
        if len(sample) < _FEW
    ]
    shared = len(np.intersect1d(generated.hashes(), reference.hashes()))
    if shared:
        found.append(f"{shared} showers are in both samples: the comparison flatters the generator")
    if _stack(generated) and _stack(reference) and _stack(generated) != _stack(reference):
        found.append("the two samples are of different detectors")
    energies = generated.energy, reference.energy
    outside = np.mean((energies[0] < energies[1].min()) | (energies[0] > energies[1].max()))
    if outside > 0.02:
        found.append(f"{outside:.0%} of the generated showers have energies outside the reference's range")
    for name in ("energy", "theta"):
        test = ks_2samp(getattr(generated, name), getattr(reference, name), method="asymp")
        if test.statistic > 0.1 and test.pvalue < 1e-3:
            found.append(f"the two samples have different spectra of {name}, on which every observable depends")
    return found


def _stack(sample: Showers) -> object:
    return (sample.detector.layers, sample.detector.n_layers) if sample.detector else None
