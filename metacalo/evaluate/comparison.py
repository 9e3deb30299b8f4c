"""Generated against reference showers: every metric beside what Geant4 scores against itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metacalo.config import Settings
from metacalo.evaluate.checks import FEWEST, require_comparable, warnings_of
from metacalo.evaluate.classifier import high_level_auc, low_level_auc
from metacalo.evaluate.copies import copies
from metacalo.evaluate.diversity import Spacing, distinct_showers, nearest_ratio
from metacalo.evaluate.fluctuations import correlation_difference, energy_edges, layer_residuals, response_by_energy
from metacalo.evaluate.metrics import (
    Cut,
    Estimate,
    cuts,
    fpd,
    kpd,
    profile_difference,
    separation_power,
    standardise,
    wasserstein1,
)
from metacalo.evaluate.observables import Observables, observables
from metacalo.evaluate.profiles import Chi2, profile_chi2, profiles
from metacalo.evaluate.signatures import Signatures, signatures
from metacalo.showers.hdf5 import Showers

__all__ = ["EvaluateSettings", "compare"]

Array = NDArray[np.float64]
Distance = Callable[[Any, Any], float]  # of two samples that rows can be taken of
_PROFILES = ("longitudinal_profile", "lateral_profile")


class EvaluateSettings(Settings):
    """How two samples are compared.

    Attributes:
        seed: fixes every random choice; the same seed gives the same figures.
        max_showers: showers read from either file, drawn at random; bounds time and memory.
        classifiers: train the two classifiers, which take most of the time.
        rotations: fifths of the sample that the classifiers are tested on (5: every shower).
        splits: random halvings of the reference over which what depends on the number of showers is averaged.
    """

    seed: int = Field(default=0, ge=0)
    max_showers: int = Field(default=10_000, ge=FEWEST)
    classifiers: bool = True
    rotations: int = Field(default=5, ge=1, le=5)
    splits: int = Field(default=5, ge=1)

    def draw(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """`rows`, or `max_showers` of them drawn at random, in their order."""
        if len(rows) <= self.max_showers:
            return rows
        order = np.random.default_rng(self.seed).permutation(len(rows))
        return np.sort(rows[order[: self.max_showers]])


def compare(
    generated: Showers, reference: Showers, settings: EvaluateSettings | None = None, *, shots: Showers | None = None
) -> dict[str, Any]:
    """All metrics of `generated` against `reference`, as a dictionary that JSON can hold.

    Args:
        generated: showers to judge.
        reference: Geant4 showers that the generator has not seen.
        settings: seed, sizes and whether to train classifiers.
        shots: Geant4 showers that it has seen; with them, it is tested for copies.

    Each metric is `{"value", "error", "floor", "floor_error"}`, None where there is none. The floor is the metric of
    one random half of the reference against the other, `showers.floor` showers on either side. W1, separation, profile
    and correlation differences, chi-squares and nearest neighbours depend on the number of showers, so their value is
    of as many: half the reference against generated showers in the place of the other half, averaged like the floor
    over `splits` cuts (the error is the spread of one cut). FPD, KPD and the AUCs do not, and take all showers for the
    value and one cut for the floor.

    Returns:
        `mean_w1` and `separation` (means over the standardised features), `fpd`, `kpd`, `layer_correlation` (see
        `correlation_difference`), `low_level_auc`, `high_level_auc`, `diversity` (`nearest`, see `nearest_ratio`, and
        of both samples the numbers of `Distinct`), `copies` (`share`, `control` and `ratio`, see `Copies`; None
        without shots), `groups` (per group `w1`, `separation` and, of the profiles, `profile_difference` and `chi2`,
        see `profile_chi2`, with `ndf` and `p_value` of the first cut), `response` (mean and width of both samples),
        `response_by_energy` (the same per bin), `showers` (numbers of showers) and `warnings`.

    Raises:
        ShowerFileError: the grids differ, or one sample has fewer than 20 showers.
    """
    settings = settings or EvaluateSettings()
    require_comparable(generated, reference)
    generated, reference = (sample.select(settings.draw(np.arange(len(sample)))) for sample in (generated, reference))
    ours, theirs = (observables(sample.showers, sample.energy) for sample in (generated, reference))
    features, expected = ours.features()[0], theirs.features()[0]
    halves = cuts(len(theirs), len(ours), splits=settings.splits, seed=settings.seed)
    metrics: dict[str, Any] = {
        "mean_w1": _halved(_mean_w1, expected, features, halves),
        "separation": _halved(_separation, expected, features, halves),
        "fpd": _whole(fpd, expected, features, halves[0], settings),
        "kpd": _whole(kpd, expected, features, halves[0], settings),
        "layer_correlation": _halved(correlation_difference, layer_residuals(theirs), layer_residuals(ours), halves),
        "low_level_auc": None,
        "high_level_auc": None,
    }
    if settings.classifiers:
        metrics |= _classifiers(generated, features, reference, expected, halves[0], settings)
    marks, expected_marks = signatures(generated), signatures(reference)
    return metrics | {
        "diversity": _diversity(marks, expected_marks, halves),
        "copies": _copies(marks, expected_marks, shots, settings) if shots is not None and len(shots) else None,
        "groups": _groups(ours, theirs, halves),
        "response": {
            name: {"mean": float(seen.response.mean()), "width": float(seen.response.std())}
            for name, seen in (("generated", ours), ("reference", theirs))
        },
        "response_by_energy": _response_by_energy(ours, theirs, settings),
        "showers": {"generated": len(ours), "reference": len(theirs), "floor": [len(half) for half in halves[0][:2]]},
        "warnings": warnings_of(generated, reference),
    }


def _mean_w1(reference: Array, sample: Array) -> float:
    return float(wasserstein1(*standardise(reference, sample)).mean())


def _separation(reference: Array, sample: Array) -> float:
    return float(separation_power(reference, sample).mean())


def _profile(reference: Array, sample: Array) -> float:
    return profile_difference(reference, sample)[1]


def _whole(
    distance: Callable[..., Estimate], expected: Array, features: Array, cut: Cut, settings: EvaluateSettings
) -> dict[str, float | None]:
    floor = standardise(expected[cut.first], expected[cut.second])
    return _entry(distance(*standardise(expected, features), seed=settings.seed), distance(*floor, seed=settings.seed))


def _halved(distance: Distance, expected: Any, features: Any, halves: list[Cut]) -> dict[str, float | None]:
    values = [distance(expected[cut.first], features[cut.generated]) for cut in halves]
    floors = [distance(expected[cut.first], expected[cut.second]) for cut in halves]
    return _entry(*(Estimate(float(np.mean(found)), float(np.std(found))) for found in (values, floors)))


def _entry(found: Estimate, floor: Estimate) -> dict[str, float | None]:
    named = {"value": found.value, "error": found.error, "floor": floor.value, "floor_error": floor.error}
    return {key: float(value) if np.isfinite(value) else None for key, value in named.items()}


def _classifiers(
    generated: Showers, features: Array, reference: Showers, expected: Array, cut: Cut, settings: EvaluateSettings
) -> dict[str, Any]:
    first, second = reference.select(cut.first), reference.select(cut.second)
    low = partial(low_level_auc, seed=settings.seed, rotations=settings.rotations)
    high = partial(high_level_auc, seed=settings.seed, rotations=settings.rotations)
    floor = high(first, expected[cut.first], second, expected[cut.second])
    return {
        "low_level_auc": _entry(low(reference, generated), low(first, second)),
        "high_level_auc": _entry(high(reference, expected, generated, features), floor),
    }


def _diversity(ours: Signatures, theirs: Signatures, halves: list[Cut]) -> dict[str, Any]:
    spacing = Spacing.of(theirs)
    return {
        "nearest": _halved(partial(nearest_ratio, spacing=spacing), theirs, ours, halves),
        "generated": distinct_showers(ours, spacing)._asdict(),
        "reference": distinct_showers(theirs, spacing)._asdict(),
    }


def _copies(ours: Signatures, theirs: Signatures, shots: Showers, settings: EvaluateSettings) -> dict[str, Any]:
    found = copies(ours, signatures(shots), theirs, seed=settings.seed)
    return {
        "share": _entry(found.share, found.expected),
        "control": _entry(found.control, found.expected),
        "ratio": _entry(found.ratio, found.ratio_floor),
        "shots": len(shots),
    }


def _response_by_energy(ours: Observables, theirs: Observables, settings: EvaluateSettings) -> dict[str, Any]:
    edges = energy_edges(theirs.energy)
    found: dict[str, Any] = {"edges": edges.tolist()}
    for name, seen in (("generated", ours), ("reference", theirs)):
        binned = response_by_energy(seen, edges, seed=settings.seed)._asdict()
        found[name] = {
            key: [value if np.isfinite(value) else None for value in values.tolist()]
            for key, values in binned.items()
            if key != "edges"
        }
    return found


def _groups(ours: Observables, theirs: Observables, halves: list[Cut]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    expected, shapes, expected_shapes = theirs.groups(), profiles(ours), profiles(theirs)
    for name, (columns, _) in ours.groups().items():
        distances = {"w1": _mean_w1, "separation": _separation}
        if name in _PROFILES:
            distances["profile_difference"] = _profile
        found[name] = {
            key: _halved(distance, expected[name][0], columns, halves) for key, distance in distances.items()
        }
        if name in shapes:
            found[name]["chi2"] = _chi2(expected_shapes[name], shapes[name], halves)
    return found


def _chi2(expected: Array, shape: Array, halves: list[Cut]) -> dict[str, float | None]:
    first: Chi2 = profile_chi2(expected[halves[0].first], shape[halves[0].generated])
    p_value = first.p_value if np.isfinite(first.p_value) else None
    return _halved(lambda *both: profile_chi2(*both).value, expected, shape, halves) | {
        "ndf": first.ndf,
        "p_value": p_value,
    }
