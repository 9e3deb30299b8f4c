"""Generated against reference showers: every metric beside what Geant4 scores against itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.table import Table
from scipy.stats import ks_2samp

from metacalo.checkpoint import atomic_folder, save_json
from metacalo.config import Settings
from metacalo.errors import ShowerFileError
from metacalo.evaluate.classifier import high_level_auc, low_level_auc
from metacalo.evaluate.metrics import (
    Cut,
    Estimate,
    cuts,
    fpd,
    profile_difference,
    separation_power,
    standardise,
    wasserstein1,
)
from metacalo.evaluate.observables import Observables, observables
from metacalo.evaluate.plots import profile_figure
from metacalo.showers.hdf5 import Showers, open_showers
from metacalo.typing import PathLike

__all__ = ["EvaluateSettings", "compare", "evaluate_files", "table"]

Array = NDArray[np.float64]
Distance = Callable[[Array, Array], float]
_FEWEST, _FEW = 20, 100
_PROFILES = ("longitudinal_profile", "lateral_profile")


class EvaluateSettings(Settings):
    """How two samples are compared.

    Attributes:
        seed: fixes every random choice; the same seed gives the same figures.
        max_showers: showers read from either file, drawn at random; bounds time and memory.
        classifiers: train the two classifiers, which take most of the time.
        rotations: fifths of the sample that the classifiers are tested on (5: every shower).
        splits: random halvings of the reference that W1, separation and profile differences are averaged over.
    """

    seed: int = Field(default=0, ge=0)
    max_showers: int = Field(default=10_000, ge=_FEWEST)
    classifiers: bool = True
    rotations: int = Field(default=5, ge=1, le=5)
    splits: int = Field(default=5, ge=1)


def compare(generated: Showers, reference: Showers, settings: EvaluateSettings | None = None) -> dict[str, Any]:
    """All metrics of `generated` against `reference`, as a dictionary that JSON can hold.

    Each metric is `{"value", "error", "floor", "floor_error"}`, None where there is none. The floor is the metric of
    one random half of the reference against the other, `showers.floor` showers on either side. W1, separation and
    profile differences depend on the number of showers, so their value is of as many: half the reference against
    generated showers in the place of the other half, averaged like the floor over `splits` cuts (the error is the
    spread of one cut). FPD and the AUCs do not, and take all showers for the value and one cut for the floor.

    Returns:
        `mean_w1` and `separation` (means over the standardised features), `fpd`, `low_level_auc`, `high_level_auc`,
        `groups` (per group `w1`, `separation` and, of the profiles, `profile_difference`), `response` (mean and
        width of both samples), `showers` (numbers of showers) and `warnings`.

    Raises:
        ShowerFileError: the grids differ, or one sample has fewer than 20 showers.
    """
    settings = settings or EvaluateSettings()
    _require_comparable(generated, reference)
    generated, reference = (
        sample.select(_drawn(np.arange(len(sample)), settings)) for sample in (generated, reference)
    )
    ours, theirs = (observables(sample.showers, sample.energy) for sample in (generated, reference))
    features, expected = ours.features()[0], theirs.features()[0]
    halves = cuts(len(theirs), len(ours), splits=settings.splits, seed=settings.seed)
    metrics: dict[str, Any] = {
        "mean_w1": _halved(_mean_w1, expected, features, halves),
        "separation": _halved(_separation, expected, features, halves),
        "fpd": _entry(
            fpd(*standardise(expected, features), seed=settings.seed),
            fpd(*standardise(expected[halves[0].first], expected[halves[0].second]), seed=settings.seed),
        ),
        "low_level_auc": None,
        "high_level_auc": None,
    }
    if settings.classifiers:
        metrics |= _classifiers(generated, features, reference, expected, halves[0], settings)
    return metrics | {
        "groups": _groups(ours, theirs, halves),
        "response": {
            name: {"mean": float(seen.response.mean()), "width": float(seen.response.std())}
            for name, seen in (("generated", ours), ("reference", theirs))
        },
        "showers": {"generated": len(ours), "reference": len(theirs), "floor": [len(half) for half in halves[0][:2]]},
        "warnings": _warnings(generated, reference),
    }


def evaluate_files(
    generated: PathLike,
    reference: PathLike,
    out: PathLike,
    *,
    seen_hashes: NDArray[np.int64] | None = None,
    settings: EvaluateSettings | None = None,
    command: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Compares two shower files and writes the folder `out` with `metrics.json` and `profiles.png`.

    Args:
        generated: file of generated showers.
        reference: file of Geant4 showers.
        out: folder to make.
        seen_hashes: hashes (as of `ShowerFile.hashes`) of showers that the generator was adapted with; they
            are left out of the reference, which must be of unseen showers.
        settings: seed, sizes and whether to train classifiers.
        command: the command line, kept with the result.
        force: replace `out` if it exists.

    Returns:
        The content of `metrics.json`: the dictionary of `compare`, the settings and the names of the files.

    Raises:
        ShowerFileError: a file cannot be read, or the two cannot be compared.
        OutputError: `out` exists and not `force`, or cannot be written.
    """
    settings = settings or EvaluateSettings()
    with atomic_folder(out, force=force) as folder:
        with open_showers(generated) as file:
            ours = file.load(_drawn(np.arange(len(file)), settings))
        with open_showers(reference) as file:
            rows = np.arange(len(file))
            if seen_hashes is not None:
                rows = rows[~np.isin(file.hashes(), seen_hashes)]
            if len(rows) == 0:
                raise ShowerFileError(f"{reference}: every shower was used for the adaptation; give another reference")
            left_out = len(file) - len(rows)
            theirs = file.load(_drawn(rows, settings))
        metrics = compare(ours, theirs, settings)
        metrics["showers"]["left_out"] = left_out
        metrics |= {
            "settings": settings.model_dump(),
            "files": {"generated": str(generated), "reference": str(reference)},
            "command": command,
        }
        save_json(folder / "metrics.json", metrics)
        profile_figure({"Geant4": theirs, "generated": ours}, folder / "profiles.png", title=Path(generated).stem)
    return metrics


def table(metrics: dict[str, Any]) -> Table:
    """The metrics as a table for the terminal: metric, value, Geant4 against Geant4."""
    numbers = metrics["showers"]
    result = Table(
        title=f"{numbers['generated']:,} generated against {numbers['reference']:,} reference showers",
        caption="Geant4 floor: {:,} reference showers against {:,} others".format(*numbers["floor"]),
    )
    result.add_column("metric")
    result.add_column("value", justify="right")
    result.add_column("Geant4 floor", justify="right")
    reference, ours = metrics["response"]["reference"], metrics["response"]["generated"]
    for name in ("mean", "width"):
        result.add_row(f"response, {name}", f"{ours[name]:.4f}", f"{reference[name]:.4f} (Geant4)")
    for key, label in _LABELS.items():
        if metrics[key] is not None:
            result.add_row(
                label, _figure(metrics[key], "value", "error"), _figure(metrics[key], "floor", "floor_error")
            )
    result.add_section()
    for name, group in metrics["groups"].items():
        result.add_row(f"W1, {name.replace('_', ' ')}", _figure(group["w1"], "value"), _figure(group["w1"], "floor"))
    for name in _PROFILES:
        entry = metrics["groups"][name]["profile_difference"]
        result.add_row(f"mean {name.replace('_', ' ')}, off by", f"{entry['value']:.2%}", f"{entry['floor']:.2%}")
    return result


_LABELS = {
    "mean_w1": "mean W1 (standardised observables)",
    "separation": "mean separation power",
    "fpd": "Frechet physics distance",
    "low_level_auc": "AUC, voxels",
    "high_level_auc": "AUC, observables",
}


def _figure(entry: dict[str, float | None], value: str, error: str | None = None) -> str:
    if entry[value] is None:
        return "-"
    spread = entry[error] if error else None
    return f"{entry[value]:.3f}" + (f" ± {spread:.3f}" if spread else "")


def _mean_w1(reference: Array, sample: Array) -> float:
    return float(wasserstein1(*standardise(reference, sample)).mean())


def _separation(reference: Array, sample: Array) -> float:
    return float(separation_power(reference, sample).mean())


def _profile(reference: Array, sample: Array) -> float:
    return profile_difference(reference, sample)[1]


def _halved(distance: Distance, expected: Array, features: Array, halves: list[Cut]) -> dict[str, float | None]:
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


def _groups(ours: Observables, theirs: Observables, halves: list[Cut]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    expected = theirs.groups()
    for name, (columns, _) in ours.groups().items():
        distances = {"w1": _mean_w1, "separation": _separation}
        if name in _PROFILES:
            distances["profile_difference"] = _profile
        found[name] = {
            key: _halved(distance, expected[name][0], columns, halves) for key, distance in distances.items()
        }
    return found


def _drawn(rows: NDArray[np.intp], settings: EvaluateSettings) -> NDArray[np.intp]:
    if len(rows) <= settings.max_showers:
        return rows
    order = np.random.default_rng(settings.seed).permutation(len(rows))
    return np.sort(rows[order[: settings.max_showers]])


def _require_comparable(generated: Showers, reference: Showers) -> None:
    ours, theirs = generated.showers.shape[1:], reference.showers.shape[1:]
    if ours != theirs:
        sizes = [" x ".join(str(size) for size in shape) for shape in (ours, theirs)]
        raise ShowerFileError(
            f"generated showers have {sizes[0]} cells, the reference has {sizes[1]}; grids must agree"
        )
    for name, sample in (("generated sample", generated), ("reference", reference)):
        if len(sample) < _FEWEST:
            raise ShowerFileError(f"the {name} has {len(sample)} showers; at least {_FEWEST} are needed to compare")


def _warnings(generated: Showers, reference: Showers) -> list[str]:
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
