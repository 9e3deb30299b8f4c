"""Whether two samples of showers can be compared, and what would spoil it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy.stats import ks_2samp

from metacalo.errors import ShowerFileError
from metacalo.evaluate.classifier import auc_error
from metacalo.runtime.wording import counted, ranged
from metacalo.showers.shower_file import Showers

__all__ = [
    "FEWEST",
    "n_shared",
    "on_common_energies",
    "on_shared_energies",
    "require_comparable",
    "spoilt",
    "warnings_of",
]

FEWEST: Final = 20
"""Showers of either sample without which nothing can be said."""

_FEW: Final = 100
_SHARED: Final = 0.01  # of the smaller sample
_OUTSIDE, _CHANCE = 0.02, 10.0  # share of a sample that may have energies the other has not: and over its showers
_TOLERANCE: Final = 0.01  # of an energy
_WIDER: Final = (0.02, 0.05, 0.1)  # likewise, where showers of one energy meet a spectrum
_MEND: Final = "generate with --conditions of the reference"
_BELOW: Final = 0.01  # share of a sample's hit cells below the smallest deposit of the other one
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
    The energies that both have end 1 % beyond those of either. Where one sample lies within them (showers of one energy
    against a spectrum) and leaves fewer than 100 showers of the other, they end up to 10 % beyond.

    Raises:
        ShowerFileError: the samples have no energies in common, or fewer than 20 showers of either have them.
    """
    samples = (generated, reference)
    lowest, highest = max(s.energy.min() for s in samples), min(s.energy.max() for s in samples)
    if lowest * (1 - _TOLERANCE) > highest * (1 + _TOLERANCE):
        raise ShowerFileError(f"{_ranges(generated, reference)}: no energies that both have; {_MEND}")
    for tolerance in (_TOLERANCE, *_WIDER):
        low, high = lowest * (1 - tolerance), highest * (1 + tolerance)
        inside = [(low <= s.energy) & (s.energy <= high) for s in samples]
        numbers = [int(np.count_nonzero(rows)) for rows in inside]
        if min(numbers) >= _FEW or not any(rows.all() for rows in inside):
            break
    left = [1 - found / len(sample) for found, sample in zip(numbers, samples, strict=True)]
    usual = [_OUTSIDE + _CHANCE / len(other) for other in (reference, generated)]
    if all(found <= most for found, most in zip(left, usual, strict=True)):
        return generated, reference, []
    if min(numbers) < FEWEST:
        raise ShowerFileError(
            f"{_ranges(generated, reference)}: of the energies that both have there are {numbers[0]} generated and "
            f"{numbers[1]} reference showers, and at least {FEWEST} of either are needed to compare; {_MEND}"
        )
    both = "the energies that both samples have"
    message = (
        f"compared between {low / 1e3:.3g} and {high / 1e3:.3g} GeV only, "
        f"{both if tolerance == _TOLERANCE else f'within {tolerance:.0%} of {both}'}: "
        f"{numbers[0]:,} of {len(generated):,} generated and {numbers[1]:,} of {len(reference):,} reference showers; "
        f"to compare all energies, {_MEND}"
    )
    return generated.select(np.flatnonzero(inside[0])), reference.select(np.flatnonzero(inside[1])), [message]


def on_shared_energies(samples: Mapping[str, Showers]) -> dict[str, Showers]:
    """Labelled samples, the reference first, within the energies that all have; all of them where these are few."""
    (label, reference), *generated = samples.items()
    try:
        for _, sample in generated:
            reference = on_common_energies(sample, reference)[1]
        return {label: reference} | {name: on_common_energies(sample, reference)[0] for name, sample in generated}
    except ShowerFileError:
        return dict(samples)


def _ranges(generated: Showers, reference: Showers) -> str:
    ranges = [ranged(s.energy.min() / 1e3, s.energy.max() / 1e3, "GeV") for s in (generated, reference)]
    return f"generated showers are of {ranges[0]}, the reference is of {ranges[1]}"


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
    else:
        found += _thresholds(generated, reference)
    if _stack(generated) and _stack(reference) and _stack(generated) != _stack(reference):
        found.append("the two samples are of different detectors")
    for name in ("energy", "theta"):
        test = ks_2samp(getattr(generated, name), getattr(reference, name), method="asymp")
        if test.statistic > 0.1 and test.pvalue < 1e-3:
            found.append(f"the two samples have different spectra of {name}, on which every observable depends")
    return found


def _thresholds(generated: Showers, reference: Showers) -> list[str]:
    """A sentence if many hit cells of one sample lie below the smallest deposit of the other."""
    voxels = generated.showers, reference.showers
    smallest = [float(sample.min(where=sample > 0, initial=np.inf)) for sample in voxels]
    if not np.isfinite(smallest).all():
        return []
    low = int(np.argmin(smallest))
    threshold = max(smallest)
    hits = np.count_nonzero(voxels[low])
    share = np.count_nonzero((voxels[low] > 0) & (voxels[low] < np.float32(threshold))) / hits
    if share <= _BELOW:
        return []
    names = ("generated showers", "reference")
    return [
        f"the smallest deposits are {smallest[0]:.4g} MeV generated and {smallest[1]:.4g} MeV in the reference, and "
        f"{share:.0%} of the hit cells of the {names[low]} lie below the other's: numbers of hits, spectra and "
        f"classifiers differ by that alone; --threshold {threshold:.4g} (MeV) cuts both samples alike"
    ]


def _stack(sample: Showers) -> object:
    return (sample.detector.layers, sample.detector.n_layers) if sample.detector else None
