"""The metrics of one or more comparisons as rows of one table: value, Geant4's floor, and how far apart they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

__all__ = ["LEVELS", "METRICS", "Cell", "Metric", "Row", "level", "notes", "summary"]

LEVELS: Final = ("at the floor", "near", "off", "far")
"""What a cell's level 0 to 3 means; the levels end at 1.5, 3 and 10 times what Geant4 scores against itself."""

_ENDS: Final = (1.5, 3.0, 10.0)
_P_VALUES: Final = (0.05, 1e-3, 1e-6)  # levels of a chi-squared end there


@dataclass(frozen=True)
class Metric:
    """One metric of `compare`.

    Attributes:
        path: keys to its entry.
        label: in the table.
        meaning: one sentence.
        ideal: value of a perfect generator and endless samples; None where that is Geant4's own.
        tolerance: a distance from the ideal that is of no consequence, however small the errors are.
        style: format of the figures.
        scale: factor on the figures shown.
    """

    path: tuple[str, ...]
    label: str
    meaning: str
    ideal: float | None = 0.0
    tolerance: float = 0.0
    style: str = ".3f"
    scale: float = 1.0


@dataclass(frozen=True)
class Cell:
    """One figure: its text, what stands below it, its level (None: not judged), and its own floor."""

    text: str
    detail: str = ""
    level: int | None = None
    floor: str = ""


@dataclass(frozen=True)
class Row:
    """One metric of all samples.

    Attributes:
        section: heading that it stands under.
        label, meaning: what it is.
        cells: one for each generated sample.
        floor: what Geant4 scores against itself, of the first sample that has it.
    """

    section: str
    label: str
    meaning: str
    cells: tuple[Cell, ...]
    floor: str


_AUC: Final = "0.5: the classifier finds no difference; 1: it recognises every shower."
_JSD: Final = "Bits that it knows of which sample a shower is from: 0 for equal samples, 1 for disjoint ones."
_CALIBRATION: Final = (
    "Mean difference between calibrated probabilities and what came true, in ten bins; the error is chance's."
)
_HALVES: Final = "Of half the reference, so that the floor is of as many showers."
_ALL: Final = "Of both files as they are: what the challenge's code finds. Small samples make it larger."
METRICS: Final[dict[str, tuple[Metric, ...]]] = {
    "Distances": (
        Metric(
            ("mean_w1",),
            "mean W1",
            "Wasserstein-1 distance of each observable, in units of Geant4's standard deviation, and their mean.",
        ),
        Metric(
            ("separation",),
            "mean separation power",
            "Half the sum of (f - g)^2 / (f + g) over the bins of each observable's histograms, and their mean.",
            style=".4f",
        ),
        Metric(
            ("fpd",),
            "Frechet physics distance",
            "Distance of the normal distributions with the means and covariances of the observables, without bias.",
        ),
        Metric(
            ("kpd",),
            "kernel physics distance",
            "Maximum mean discrepancy of the observables with a polynomial kernel.",
        ),
        Metric(
            ("layer_correlation",),
            "correlations of layers, off by",
            "Mean difference of the correlations of all pairs of layers' energy fractions.",
        ),
    ),
    "Classifiers": (
        Metric(("low_level_auc",), "AUC, voxels", f"A classifier on voxel energies. {_AUC}", ideal=0.5, tolerance=0.02),
        Metric(
            ("high_level_auc",),
            "AUC, observables",
            f"A classifier on the observables. {_AUC}",
            ideal=0.5,
            tolerance=0.02,
        ),
        Metric(
            ("low_level_jsd",), "Jensen-Shannon divergence, voxels", f"By the same classifiers. {_JSD}", tolerance=0.01
        ),
        Metric(("high_level_jsd",), "Jensen-Shannon divergence, observables", f"Likewise. {_JSD}", tolerance=0.01),
        Metric(
            ("low_level_calibration",),
            "probabilities off by, voxels",
            f"How good the classifier's probabilities are, not the showers. {_CALIBRATION}",
            ideal=None,
            tolerance=0.05,
        ),
        Metric(
            ("high_level_calibration",), "probabilities off by, observables", _CALIBRATION, ideal=None, tolerance=0.05
        ),
    ),
    "CaloChallenge's definitions": (
        Metric(
            ("calochallenge", "fpd"),
            "FPD x 1000, of halves",
            f"JetNet's FPD of the challenge's features, both samples cut at its threshold first. {_HALVES}",
            style=".1f",
            scale=1e3,
        ),
        Metric(
            ("calochallenge", "kpd"),
            "KPD x 1000, of halves",
            f"JetNet's KPD of the challenge's features, likewise. {_HALVES}",
            style=".2g",
            scale=1e3,
        ),
        Metric(
            ("calochallenge", "fpd_of_all"),
            "FPD x 1000, of all showers",
            f"The same. {_ALL}",
            style=".1f",
            scale=1e3,
        ),
        Metric(
            ("calochallenge", "kpd_of_all"),
            "KPD x 1000, of all showers",
            f"The same. {_ALL}",
            style=".2g",
            scale=1e3,
        ),
    ),
    "Diversity and copies": (
        Metric(
            ("diversity", "nearest"),
            "nearest other shower",
            "Distance of a shower to the nearest one of its own sample, over that of Geant4; below 1 is less diverse.",
            ideal=1.0,
            tolerance=0.05,
        ),
        Metric(
            ("precision",),
            "precision",
            "Share of generated showers that lie among those of Geant4 (within the fifth neighbour of one).",
            ideal=None,
            tolerance=0.02,
        ),
        Metric(
            ("recall",),
            "recall",
            "Share of Geant4's showers that lie among generated ones.",
            ideal=None,
            tolerance=0.02,
        ),
        Metric(
            ("density",),
            "density",
            "How many neighbourhoods of Geant4's showers hold a generated one.",
            ideal=None,
            tolerance=0.02,
        ),
        Metric(
            ("coverage",),
            "coverage",
            "Share of Geant4's showers with a generated one near by.",
            ideal=None,
            tolerance=0.02,
        ),
        Metric(
            ("copies", "share"),
            "share too near to a shot",
            "Generated showers that lie nearer to a shot than Geant4's unseen showers do but once in a hundred.",
        ),
        Metric(
            ("copies", "control"),
            "share as near to an unseen shower",
            "The same with unseen showers in the place of the shots: what a generator without memory scores.",
        ),
        Metric(
            ("copies", "ratio"),
            "distance to shots, over to unseen",
            "Below Geant4's own figure, showers are drawn to the shots.",
            ideal=1.0,
            tolerance=0.05,
        ),
    ),
}
"""Section -> metrics, in the order of the table. Sections of groups and of the response follow."""

_STATISTICS: Final = {
    "w1": ("W1", "Mean Wasserstein-1 distance of the group's observables, in standard deviations of Geant4.", ".3f"),
    "separation": ("separation power", "Mean separation power of the group's observables.", ".4f"),
    "profile_difference": (
        "mean profile, off by",
        "Sum of the differences of the mean profiles over the sum of Geant4's.",
        ".2%",
    ),
    "chi2": (
        "chi-squared of the mean profile",
        "Over the degrees of freedom, with the correlations of the bins; its expectation is 1, and p of the first cut.",
        ".2f",
    ),
}


def level(entry: Mapping[str, Any], ideal: float | None = 0.0, tolerance: float = 0.0) -> int | None:
    """How far an entry of `compare` is from what Geant4 scores against itself: an index of `LEVELS`, or None.

    The distance from the ideal is taken over the floor's, which counts for no less than either's statistical error and
    the tolerance. A chi-squared is judged by its probability.

    Example:
        >>> level({"value": 0.10, "error": 0.01, "floor": 0.05, "floor_error": 0.01})
        1
    """
    value, floor = _number(entry.get("value")), _number(entry.get("floor"))
    if (probability := _number(entry.get("p_value"))) is not None:
        return sum(probability < end for end in _P_VALUES)
    if value is None or floor is None:
        return None
    errors = [_number(entry.get(key)) or 0.0 for key in ("error", "floor_error")]
    perfect = floor if ideal is None else ideal
    scale = max(abs(floor - perfect), tolerance, *errors)
    off = abs(value - perfect)
    if scale == 0:
        return None if off else 0
    return sum(off > end * scale for end in _ENDS)


def summary(metrics: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows of the table of what `compare` returned for each generated sample.

    What no sample has is left out; an entry with `value` and `floor` that no declared metric names follows as it is
    called, so that a table never hides one.
    """
    samples = list(metrics.values())
    rows, declared = [], set()
    for section, members in METRICS.items():
        for metric in members:
            declared.add(metric.path)
            rows += _row(section, metric, samples)
    rows += _responses(samples)
    for path in dict.fromkeys(path for sample in samples for path in _entries(sample)):
        if path in declared:
            continue
        if path[0] == "groups" and len(path) == 3:
            name, meaning, style = _STATISTICS.get(path[2], (_words(path[2]), "", ".3f"))
            metric = Metric(path, f"{_words(path[1])}: {name}", meaning, style=style)
            rows += _row("Groups of observables", metric, samples)
        else:
            rows += _row("Others", Metric(path, _words(": ".join(path)), "", ideal=None), samples)
    return rows


def _row(section: str, metric: Metric, samples: list[Mapping[str, Any]]) -> list[Row]:
    entries = [_dig(sample, metric.path) for sample in samples]
    if not any(entries):
        return []
    cells = tuple(_cell(entry, metric) if entry else Cell("-") for entry in entries)
    floor = next((cell.floor for cell in cells if cell.floor not in ("", "-")), "-")
    return [Row(section, metric.label, metric.meaning, cells, floor)]


def _cell(entry: Mapping[str, Any], metric: Metric) -> Cell:
    value, floor = _number(entry.get("value")), _number(entry.get("floor"))
    detail = ""
    if (freedom := entry.get("ndf")) is not None:
        detail = f"{freedom:g} degrees of freedom"
        if (probability := _number(entry.get("p_value"))) is not None:
            detail += f", p = {probability:.2g}"
    elif metric.ideal == 0.0 and value and floor and value > 0 < floor and value / floor < 1000:
        detail = f"{value / floor:.2g} x floor" if value / floor < 100 else f"{value / floor:.0f} x floor"
    return Cell(
        figure(value, entry.get("error"), metric.style, metric.scale),
        detail,
        level(entry, metric.ideal, metric.tolerance),
        figure(floor, entry.get("floor_error"), metric.style, metric.scale),
    )


def figure(value: float | None, error: float | None, style: str, scale: float = 1.0) -> str:
    """A number with its error, both times `scale`, or a dash."""
    if value is None:
        return "-"
    spread = _number(error)
    return f"{value * scale:{style}}" + (f" ± {spread * scale:{style}}" if spread else "")


def notes(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was done to the samples before the figures were computed, a sentence each."""
    first = next(iter(metrics.values()), {})
    sentences = []
    if threshold := first.get("threshold_mev"):
        sentences.append(
            f"Deposits below {threshold:.4g} MeV were set to 0 in all samples before anything was computed."
        )
    if challenge := first.get("calochallenge"):
        sentences.append(
            f"CaloChallenge's definitions: {challenge['features']} features of deposits of at least "
            f"{1e3 * challenge['threshold_mev']:.4g} keV ({challenge['version']})."
        )
    return sentences


def _responses(samples: list[Mapping[str, Any]]) -> list[Row]:
    rows = []
    for name, meaning in (("mean", "Mean of E_total / E_inc."), ("width", "Standard deviation of E_total / E_inc.")):
        found = [
            [_number((_dig(sample, ("response", side)) or {}).get(name)) for side in ("generated", "reference")]
            for sample in samples
        ]
        if any(ours is not None for ours, _ in found):
            cells = tuple(Cell(figure(ours, None, ".4f"), floor=figure(theirs, None, ".4f")) for ours, theirs in found)
            rows.append(Row("Response", f"response, {name}", f"{meaning} Beside it Geant4's.", cells, cells[0].floor))
    counts = [_dig(sample, ("diversity", "generated")) or {} for sample in samples]
    theirs = [_dig(sample, ("diversity", "reference")) or {} for sample in samples]
    if any("distinct" in count for count in counts):
        cells = tuple(Cell(_distinct(ours), floor=_distinct(other)) for ours, other in zip(counts, theirs, strict=True))
        meaning = "Showers that are no near copies of one another. Beside it Geant4's."
        rows.insert(0, Row("Diversity and copies", "distinct showers", meaning, cells, cells[0].floor))
    return rows


def _distinct(count: Mapping[str, Any]) -> str:
    return f"{count['distinct']:,} of {count['showers']:,}" if {"distinct", "showers"} <= count.keys() else "-"


def _entries(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all entries with a value and a floor, or a number of degrees of freedom."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            here = (*path, str(key))
            if "value" in value and value.keys() & {"floor", "ndf"}:
                yield here
            else:
                yield from _entries(value, here)


def _dig(tree: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    found: Any = tree
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _words(name: str) -> str:
    return name.replace("_", " ")
