"""Generated against reference showers: every metric beside what Geant4 scores against itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from metacalo.evaluate.calochallenge import challenge_metrics, challenge_settings
from metacalo.evaluate.checks import (
    n_shared,
    on_common_energies,
    require_comparable,
    spoilt,
    warnings_of,
)
from metacalo.evaluate.classifier import ClassifierTest
from metacalo.evaluate.copies import copies
from metacalo.evaluate.diversity import Spacing, distinct_showers, nearest_ratio
from metacalo.evaluate.fluctuations import correlation_difference, energy_edges, layer_residuals, response_by_energy
from metacalo.evaluate.ladder import ladder
from metacalo.evaluate.manifold import Overlap, overlap
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
from metacalo.evaluate.reference import EvaluateSettings, Reference, classified, features_of_challenge
from metacalo.evaluate.signatures import Signatures, signatures
from metacalo.showers.shower_file import Showers

__all__ = ["STEPS", "compare"]

Array = NDArray[np.float64]
Distance = Callable[[Any, Any], float]  # of two samples that rows can be taken of

STEPS: Final = 8
"""Steps of a comparison, for its progress bar."""

_PROFILES = ("longitudinal_profile", "lateral_profile")
_CLASSIFIED = [f"{level}_{name}" for level in ("low_level", "high_level") for name in ClassifierTest._fields]


def compare(
    generated: Showers,
    reference: Showers | Reference,
    settings: EvaluateSettings | None = None,
    *,
    shots: Showers | None = None,
    done: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """All metrics of `generated` against `reference`, as a dictionary that JSON can hold.

    Args:
        generated: showers to judge.
        reference: Geant4 showers that the generator has not seen; a `Reference` where several samples are judged.
        settings: seed, sizes and whether to train classifiers; those of a `Reference` win.
        shots: Geant4 showers that it has seen; with them, it is tested for copies.
        done: called after each of `STEPS` steps of the work.

    Each metric is `{"value", "error", "floor", "floor_error"}`, None where there is none. The floor is the metric of
    one random half of the reference against the other, `showers.floor` showers on either side. W1, separation, profile
    and correlation differences, chi-squares, overlaps and nearest neighbours depend on the number of showers, so their
    value is of as many: half the reference against generated showers in the place of the other half, averaged like the
    floor over `splits` cuts (the error is the spread of one cut). FPD, KPD and the AUCs do not, and take all showers
    for the value and one cut for the floor.

    Returns:
        `mean_w1` and `separation` (means over the standardised features), `fpd`, `kpd`, `layer_correlation` (see
        `correlation_difference`), `precision`, `recall`, `density` and `coverage` (see `Overlap`), `low_level_auc`,
        `high_level_auc`, and of the same classifiers `..._jsd` and `..._calibration` (see `ClassifierTest`),
        `diversity` (`nearest`, see `nearest_ratio`, and of both samples the numbers of `Distinct`), `copies` (`share`,
        `control` and `ratio`, see `Copies`; None without shots), `calochallenge` (`fpd` and `kpd` of halves, and
        `fpd_of_all` and `kpd_of_all`, see `challenge_metrics`, with the `version` of the challenge's code and its
        `threshold_mev`; None unless asked for), `groups` (per group `w1`,
        `separation` and, of the profiles, `profile_difference` and `chi2`, see `profile_chi2`, with `ndf` and `p_value`
        of the first cut), `response` (mean and width of both samples), `response_by_energy` (the same per bin),
        `ladder` (see `Rung`), `showers` (numbers of showers), `threshold_mev` (0 for none) and `warnings`.

    Raises:
        ShowerFileError: the grids differ, one sample has fewer than 20 showers, or their energies do not overlap.
    """
    if not isinstance(reference, Reference):
        reference = Reference(reference, settings or EvaluateSettings())
    settings = reference.settings
    require_comparable(generated, reference.showers)
    generated, common, messages = on_common_energies(settings.subset(generated), reference.showers)
    reference = reference.alike(common)
    shared = n_shared(generated, common)
    messages += warnings_of(generated, common, shared)
    ours, theirs = observables(generated.showers, generated.energy), reference.observables
    features, expected = ours.features()[0], reference.features
    halves = cuts(len(theirs), len(ours), splits=settings.splits, seed=settings.seed)
    done()
    metrics: dict[str, Any] = {
        "mean_w1": _halved(_mean_w1, expected, features, halves),
        "separation": _halved(_separation, expected, features, halves),
        "layer_correlation": _halved(correlation_difference, layer_residuals(theirs), layer_residuals(ours), halves),
        "groups": _groups(ours, theirs, halves),
    }
    done()
    metrics["fpd"] = _whole(fpd, expected, features, halves[0], settings)
    metrics["kpd"] = _whole(kpd, expected, features, halves[0], settings)
    done()
    metrics |= _overlaps(expected, features, halves)
    done()
    metrics |= dict.fromkeys(_CLASSIFIED)
    if settings.classifiers and not spoilt(shared, generated, common):
        metrics |= _classifiers(generated, features, reference, halves[0])
    done()
    marks, expected_marks = signatures(generated), reference.signatures
    metrics["diversity"] = _diversity(marks, expected_marks, halves)
    metrics["copies"] = (
        _copies(marks, expected_marks, settings.cut(shots), settings) if shots is not None and len(shots) else None
    )
    done()
    rungs = ladder(generated, reference.showers, ours, theirs, classifiers=metrics["high_level_auc"] is not None)
    metrics["ladder"] = [rung.as_json() for rung in rungs]
    done()
    metrics["calochallenge"] = _challenge(generated, reference, halves[0]) if settings.calochallenge else None
    done()
    return metrics | {
        "response": {
            name: {"mean": float(seen.response.mean()), "width": float(seen.response.std())}
            for name, seen in (("generated", ours), ("reference", theirs))
        },
        "response_by_energy": _response_by_energy(ours, theirs, settings),
        "showers": {"generated": len(ours), "reference": len(theirs), "floor": [len(half) for half in halves[0][:2]]},
        "threshold_mev": settings.threshold,
        "warnings": messages,
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


def _overlaps(expected: Array, features: Array, halves: list[Cut]) -> dict[str, Any]:
    values, floors = (
        np.array([overlap(*standardise(expected[cut.first], rows[getattr(cut, name)])) for cut in halves])
        for rows, name in ((features, "generated"), (expected, "second"))
    )
    spread = [
        [Estimate(*both) for both in zip(rows.mean(axis=0), rows.std(axis=0), strict=True)] for rows in (values, floors)
    ]
    return {name: _entry(*both) for name, *both in zip(Overlap._fields, *spread, strict=True)}


def _classifiers(generated: Showers, features: Array, reference: Reference, cut: Cut) -> dict[str, Any]:
    found = classified(reference.showers, reference.features, generated, features, reference.settings)
    floors = reference.classifier_floors(cut)
    return {
        f"{level}_{name}": _entry(getattr(test, name), getattr(floors[level], name))
        for level, test in found.items()
        for name in ClassifierTest._fields
    }


def _challenge(generated: Showers, reference: Reference, cut: Cut) -> dict[str, Any]:
    features = features_of_challenge(generated)
    found = challenge_metrics(features, reference.challenge_features, cut)
    nothing = Estimate(float("nan"), float("nan"))
    return (
        challenge_settings(features)
        | {name: _entry(value, floor) for name, (_, value, floor) in found.items()}
        | {f"{name}_of_all": _entry(whole, nothing) for name, (whole, _, _) in found.items()}
    )


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
