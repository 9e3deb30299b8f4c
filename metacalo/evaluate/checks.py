"""Whether two samples of showers can be compared, and what would spoil it."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.stats import ks_2samp

from metacalo.errors import ShowerFileError
from metacalo.evaluate.classifier import auc_error
from metacalo.runtime.wording import counted, ranged
from metacalo.showers.shower_file import Showers

__all__ = ["FEWEST", "n_shared", "on_common_energies", "require_comparable", "spoilt", "warnings_of"]

FEWEST: Final = 20
"""Showers of either sample without which nothing can be said."""

_FEW: Final = 100
_SHARED: Final = 0.01  # of the smaller sample
_OUTSIDE, _CHANCE = 0.02, 10.0  # share of a sample that may have energies the other has not: and over its showers
_TOLERANCE: Final = 0.01  # of an energy
_SCALES: Final = 3.0  # ratio of mean responses that no generator is wrong by


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
            number = counted(len(sample), "shower")
            raise ShowerFileError(f"the {name} has {number}; at least {FEWEST} are needed to compare")


def on_common_energies(generated: Showers, reference: Showers) -> tuple[Showers, Showers, list[str]]:
    """Both samples within the energies that both have, and a sentence if that leaves more of either out than chance.

    Of one spectrum, the share of a sample that lies beyond n others is about 2 / n, and hardly ever more than 10 / n.

    Raises:
        ShowerFileError: fewer than 20 showers of either have such energies.
    """
    low = max(sample.energy.min() for sample in (generated, reference)) * (1 - _TOLERANCE)
    high = min(sample.energy.max() for sample in (generated, reference)) * (1 + _TOLERANCE)
    inside = [(low <= sample.energy) & (sample.energy <= high) for sample in (generated, reference)]
    left = [1 - float(np.mean(rows)) for rows in inside]
    usual = [_OUTSIDE + _CHANCE / len(other) for other in (reference, generated)]
    if all(found <= most for found, most in zip(left, usual, strict=True)):
        return generated, reference, []
    if min(np.count_nonzero(rows) for rows in inside) < FEWEST:
        ranges = [ranged(s.energy.min() / 1e3, s.energy.max() / 1e3, "GeV") for s in (generated, reference)]
        raise ShowerFileError(
            f"generated showers are of {ranges[0]}, the reference is of {ranges[1]}: fewer than {FEWEST} showers of "
            "either have energies that both have; generate with --conditions of the reference"
        )
    told = (
        f"compared between {low / 1e3:.3g} and {high / 1e3:.3g} GeV only, the energies that both samples have: "
        f"{left[0]:.0%} of the generated and {left[1]:.0%} of the reference showers are left out"
    )
    return generated.select(np.flatnonzero(inside[0])), reference.select(np.flatnonzero(inside[1])), [told]


def n_shared(generated: Showers, reference: Showers) -> int:
    """How many showers are in both samples, by their content."""
    return len(np.intersect1d(generated.hashes(), reference.hashes()))


def spoilt(shared: int, generated: Showers, reference: Showers) -> bool:
    """Whether so many showers are shared that no classifier can be judged: one of a hundred of the smaller sample."""
    return shared > _SHARED * min(len(generated), len(reference))


def warnings_of(generated: Showers, reference: Showers, shared: int) -> list[str]:
    """What a reader of the figures must know, a sentence each; none for two good samples."""
    found = [
        f"only {counted(len(sample), f'{name} shower')}: a mean is known to {len(sample) ** -0.5:.2f} standard "
        f"deviations, an AUC to {auc_error(0.5, len(sample), len(sample)):.2f}"
        for name, sample in (("generated", generated), ("reference", reference))
        if len(sample) < _FEW
    ]
    if shared:
        number = f"{counted(shared, 'shower')} {'is' if shared == 1 else 'are'}"
        found.append(f"{number} in both samples: distances are too small, and classifiers mean nothing")
    totals = [sample.showers.sum(axis=(1, 2, 3), dtype=np.float64) for sample in (generated, reference)]
    for name, total in zip(("generated", "reference"), totals, strict=True):
        if empty := int(np.count_nonzero(total == 0)):
            found.append(f"{empty} of {len(total)} {name} showers are empty (all voxels are 0)")
    means = [float(np.mean(t / s.energy)) for t, s in zip(totals, (generated, reference), strict=True)]
    if min(means) > 0 and max(means) > _SCALES * min(means):
        found.append(
            f"mean E_total / E_inc is {means[0]:.3g} generated and {means[1]:.3g} in the reference: one may hold raw "
            f"deposits, the other ones divided by the sampling fraction; `metacalo convert` with "
            f"--scale {means[1] / means[0]:.4g} brings the generated ones to the other's scale"
        )
    if _stack(generated) and _stack(reference) and _stack(generated) != _stack(reference):
        found.append("the two samples are of different detectors")
    for name in ("energy", "theta"):
        test = ks_2samp(getattr(generated, name), getattr(reference, name), method="asymp")
        if test.statistic > 0.1 and test.pvalue < 1e-3:
            found.append(f"the two samples have different spectra of {name}, on which every observable depends")
    return found


def _stack(sample: Showers) -> object:
    return (sample.detector.layers, sample.detector.n_layers) if sample.detector else None
