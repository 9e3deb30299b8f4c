"""The figures of a row of the fidelity table, all in one form.

An entry is `{"value", "error", "floor", "floor_error"}`, None where there is none. The floor is what Geant4 has in its
place: its distance from itself, or its own mean and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metacalo.evaluate import Observables, response_by_energy
from metacalo.evaluate.diversity import Spacing, distinct_showers
from metacalo.evaluate.fluctuations import energy_edges
from metacalo.evaluate.metrics import profile_difference
from metacalo.evaluate.observables import SPECTRUM_EDGES, observables
from metacalo.evaluate.signatures import Signatures, signatures
from metacalo.showers.shower_file import Showers

__all__ = ["DECADES", "Entry", "at_one_energy", "averaged", "entry", "figures"]

Array = NDArray[np.float64]
Entry = dict[str, float | None]

DECADES = SPECTRUM_EDGES[:: (len(SPECTRUM_EDGES) - 1) // round(SPECTRUM_EDGES[-1] - SPECTRUM_EDGES[0])]
"""Edges in log10(voxel / MeV) between which voxels are counted."""

_SHAPES = {
    "longitudinal_profile": "layer_fraction",
    "lateral_profile": "ring_fraction",
    "layer_occupancy": "layer_occupancy",
    "voxel_spectrum": "spectrum",
}
_RESAMPLES = 100
_LEAST = 1e-12


def entry(
    value: float | None, error: float | None = None, floor: float | None = None, floor_error: float | None = None
) -> Entry:
    """An entry that JSON can hold."""
    named = {"value": value, "error": error, "floor": floor, "floor_error": floor_error}
    return {key: float(v) if v is not None and np.isfinite(v) else None for key, v in named.items()}


def averaged(entries: Iterable[Entry]) -> Entry:
    """Mean over seeds of value and floor.

    The error is that of the mean, from the spread over the seeds, and no less than the entries' own, which does not
    get smaller: most reference showers are the same for all seeds.

    Example:
        >>> parts = [{"value": v, "error": 0.1, "floor": None, "floor_error": None} for v in (1.0, 2.0)]
        >>> averaged(parts)["value"], averaged(parts)["error"], averaged(parts[:1])["error"]
        (1.5, 0.5, 0.1)
    """
    parts, found = list(entries), Entry()
    for name, error_name in (("value", "error"), ("floor", "floor_error")):
        values = [value for part in parts if (value := part[name]) is not None]
        errors = [error or 0.0 for part in parts if (error := part[error_name]) is not None]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        own = sqrt(sum(error**2 for error in errors) / len(errors)) if errors else 0.0
        found[name] = float(np.mean(values)) if values else None
        found[error_name] = max(spread / sqrt(max(len(values), 1)), own) or None
    return found


def figures(metrics: Mapping[str, Any], generated: Showers, reference: Showers, marks: Signatures) -> dict[str, Entry]:
    """The entries of `compare` under one name each, and those that only this benchmark has.

    Args:
        metrics: what `compare` says of the two samples.
        generated: generated showers, each at the energy and angles of the reference shower of the same row.
        reference: Geant4 showers, as many or more.
        marks: signatures of more generated showers, among which different ones are counted.
    """
    ours, theirs = (observables(sample.showers, sample.energy) for sample in (generated, reference))
    many = distinct_showers(marks, Spacing.of(signatures(reference)))
    found, expected = (metrics["diversity"][sample] for sample in ("generated", "reference"))
    return {
        **_compared(metrics),
        **_shapes(ours, theirs.select(slice(len(ours)))),
        **_response(ours, theirs, [theirs.energy.min(), theirs.energy.max()]),
        **{name: entry(found[name], None, expected[name]) for name in ("showers", "distinct", "effective")},
        **{f"many_{name}": entry(value) for name, value in many._asdict().items()},
    }


def at_one_energy(generated: Showers, reference: Showers) -> dict[str, Entry]:
    """Mean and width of E_total / E_inc at one energy, the relative difference of the means, the ratio of the widths.

    All have bootstrap errors; those of the last two include Geant4's.
    """
    ours, theirs = (observables(sample.showers, sample.energy) for sample in (generated, reference))
    found = _response(ours, theirs, energy_edges(reference.energy))
    mean, width = found["response_mean"], found["response_width"]
    ratio, error, floor_error = _ratio(mean)
    spread, spread_error, spread_floor_error = _ratio(width)
    return found | {
        "mean_difference": entry(ratio - 1, error, 0.0, floor_error),
        "width_ratio": entry(spread, spread_error, 1.0, spread_floor_error),
    }


def _ratio(found: Entry) -> tuple[float, float, float]:
    """Value over floor, its error, and the relative error of the floor; NaN where an entry has none of them."""
    value, error, floor, floor_error = (np.nan if part is None else part for part in found.values())
    ratio = value / floor if floor else np.nan
    relative = floor_error / floor if floor else np.nan
    return ratio, float(np.hypot(error / floor, ratio * relative)) if floor else np.nan, relative


def _compared(metrics: Mapping[str, Any]) -> dict[str, Entry]:
    names = ("mean_w1", "separation", "fpd", "kpd", "layer_correlation", "low_level_auc", "high_level_auc")
    found: dict[str, Entry] = {name: metrics[name] or entry(None) for name in names}
    found["nearest"] = metrics["diversity"]["nearest"]
    for name in ("share", "control", "ratio"):
        found[f"copies_{name}"] = metrics["copies"][name] if metrics["copies"] else entry(None)
    for group, entries in metrics["groups"].items():
        found[f"w1 {group}"] = entries["w1"]
    binned = metrics["response_by_energy"]
    for index in range(len(binned["edges"]) - 1):
        for name in ("mean", "width"):
            columns = [binned[sample][key] for sample in ("generated", "reference") for key in (name, f"{name}_error")]
            found[f"response_{name} {index}"] = entry(*(column[index] for column in columns))
    return found


def _response(ours: Observables, theirs: Observables, edges: Any) -> dict[str, Entry]:
    found, expected = (response_by_energy(sample, edges) for sample in (ours, theirs))
    return {
        "response_mean": entry(found.mean[0], found.mean_error[0], expected.mean[0], expected.mean_error[0]),
        "response_width": entry(found.width[0], found.width_error[0], expected.width[0], expected.width_error[0]),
    }


def _shapes(ours: Observables, theirs: Observables) -> dict[str, Entry]:
    """How far mean profiles are off, and voxels per decade of energy, from pairs of showers of the same energy.

    The same energies on both sides cancel what their spectrum adds to the spread. The floor is what is to be expected
    of showers of the same distribution: of normal errors s_k of the differences, sum s_k (2 / pi)^1/2.
    """
    entries = {}
    for name, attribute in _SHAPES.items():
        found, expected = getattr(ours, attribute), getattr(theirs, attribute)
        scale = 1 / max(expected.mean(axis=0).sum(), _LEAST)
        apart = scale * (found - expected)
        weights = np.random.default_rng(0).multinomial(len(apart), np.full(len(apart), 1 / len(apart)), _RESAMPLES)
        again = np.abs(weights / len(apart) @ apart).sum(axis=1)
        floor = (apart.std(axis=0) / np.sqrt(len(apart))).sum() * np.sqrt(2 / np.pi)
        entries[name] = entry(profile_difference(expected, found)[1], float(again.std()), float(floor))
    found, expected = (seen.spectrum.reshape(len(seen), len(DECADES) - 1, -1).sum(axis=2) for seen in (ours, theirs))
    errors = (found - expected).std(axis=0) / np.sqrt(len(found)) / np.maximum(expected.mean(axis=0), _LEAST)
    for index, value in enumerate(profile_difference(expected, found)[0]):
        some = bool(expected[:, index].any())
        entries[f"voxels {index}"] = entry(value, errors[index], 0.0) if some else entry(None)
    return entries
