"""The figures of a comparison as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from metacalo.evaluate.rounding import quoted
from metacalo.runtime.wording import ranged

__all__ = ["table"]

_LABELS: Final = {
    "mean_w1": "mean W1 (standardised observables)",
    "separation": "mean separation power",
    "fpd": "Frechet physics distance",
    "kpd": "kernel physics distance",
    "layer_correlation": "correlations of layers, off by",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "low_level_auc": "AUC, voxels",
    "low_level_jsd": "Jensen-Shannon divergence, voxels (bits)",
    "high_level_auc": "AUC, observables",
    "high_level_jsd": "Jensen-Shannon divergence, observables (bits)",
}
_CHALLENGE: Final = {
    "fpd_of_all": "CaloChallenge FPD x 1000, all showers",
    "fpd": "CaloChallenge FPD x 1000, of halves",
    "kpd_of_all": "CaloChallenge KPD x 1000, all showers",
    "kpd": "CaloChallenge KPD x 1000, of halves",
}

Sample = Mapping[str, Any]
Cells = Callable[[Sample], tuple[str, str]]  # of one sample: its value and the floor beside it


def table(samples: Mapping[str, Sample]) -> Table:
    """The metrics of `compare` as a table: a column for each label, and Geant4 against Geant4.

    Samples of other numbers of showers than the first one have floors of their own, which are in `metrics.json`.
    """
    first = next(iter(samples.values()))
    numbers = [f"{found['showers']['generated']:,}" for found in samples.values()]
    result = Table(
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=f"{', '.join(numbers)} generated against {first['showers']['reference']:,} reference showers",
        caption=_caption(first),
    )
    result.add_column("metric")
    for label in samples:
        result.add_column(escape(label) if len(samples) > 1 else "value", justify="right")
    result.add_column("Geant4 floor", justify="right")

    def add(name: str, cells: Cells) -> None:
        found = [cells(sample) for sample in samples.values()]
        result.add_row(name, *(value for value, _ in found), found[0][1])

    _add_response(add, first)
    result.add_section()
    for key, label in _LABELS.items():
        if any(sample.get(key) is not None for sample in samples.values()):
            add(label, lambda sample, key=key: _figures(sample[key]))  # type: ignore[misc]
    if first["calochallenge"] is not None:
        result.add_section()
        for key, label in _CHALLENGE.items():
            add(label, lambda sample, key=key: _figures(sample["calochallenge"][key], 1, 1e3))  # type: ignore[misc]
    result.add_section()
    _add_diversity(add, first)
    result.add_section()
    _add_groups(add, first)
    return result


def _caption(first: Sample) -> str:
    lines = ["Geant4 floor: {:,} reference showers against {:,} others".format(*first["showers"]["floor"])]
    if first["threshold_mev"]:
        lines.append(f"deposits below {first['threshold_mev']:.4g} MeV are set to 0 in all samples")
    if (challenge := first["calochallenge"]) is not None:
        lines.append(
            f"CaloChallenge: {challenge['features']} features above {1e3 * challenge['threshold_mev']:.4g} keV, "
            f"by {challenge['version']}"
        )
    return "\n".join(lines)


def _add_response(add: Callable[[str, Cells], None], first: Sample) -> None:
    for name in ("mean", "width"):

        def response(sample: Sample, name: str = name) -> tuple[str, str]:
            ours, theirs = (sample["response"][which][name] for which in ("generated", "reference"))
            return f"{ours:.4f}", f"{theirs:.4f} (Geant4)"

        add(f"response, {name}", response)
    edges = [edge / 1000 for edge in first["response_by_energy"]["edges"]]
    for index, (low, high) in enumerate(pairwise(edges)):

        def binned(sample: Sample, index: int = index) -> tuple[str, str]:
            return _binned(sample, "generated", index), _binned(sample, "reference", index)

        add(f"mean, width at {ranged(low, high, 'GeV', between=' - ')}", binned)


def _binned(sample: Sample, which: str, index: int) -> str:
    bins = sample["response_by_energy"][which]
    if index >= len(bins["mean"]) or bins["mean"][index] is None:
        return "-"
    mean, error, width = (bins[key][index] for key in ("mean", "mean_error", "width"))
    return f"{quoted(mean, error)}, {width:.4f}"


def _add_diversity(add: Callable[[str, Cells], None], first: Sample) -> None:
    def both(sample: Sample, formatted: Callable[[Mapping[str, Any]], str]) -> tuple[str, str]:
        found = sample["diversity"]
        return formatted(found["generated"]), formatted(found["reference"])

    add("nearest other shower, over Geant4's", lambda sample: _figures(sample["diversity"]["nearest"]))
    add("distinct showers", lambda sample: both(sample, lambda f: f"{f['distinct']:,} of {f['showers']:,}"))
    add("their effective number", lambda sample: both(sample, lambda f: f"{f['effective']:,.0f}"))
    if first["copies"] is not None:
        add("share too near to a shot", lambda sample: _figures(sample["copies"]["share"]))
        add("share as near to an unseen shower", lambda sample: _figures(sample["copies"]["control"]))
        add("distance to shots, over to unseen", lambda sample: _figures(sample["copies"]["ratio"]))


def _add_groups(add: Callable[[str, Cells], None], first: Sample) -> None:
    for name in first["groups"]:

        def distance(sample: Sample, name: str = name) -> tuple[str, str]:
            entry = sample["groups"][name]["w1"]
            return _figure(entry["value"]), _figure(entry["floor"])

        add(f"W1, {name.replace('_', ' ')}", distance)
    for name, group in first["groups"].items():
        if "profile_difference" in group:

            def difference(sample: Sample, name: str = name) -> tuple[str, str]:
                entry = sample["groups"][name]["profile_difference"]
                return f"{entry['value']:.2%}", f"{entry['floor']:.2%}"

            add(f"mean {name.replace('_', ' ')}, off by", difference)
    for name, group in first["groups"].items():
        if "chi2" in group:

            def chi2(sample: Sample, name: str = name) -> tuple[str, str]:
                return _figures(sample["groups"][name]["chi2"], digits=2)

            add(f"chi2/ndf, mean {name.replace('_', ' ')}", chi2)


def _figures(entry: Mapping[str, float | None] | None, digits: int = 3, scale: float = 1.0) -> tuple[str, str]:
    if entry is None:
        return "-", "-"
    scaled = {key: None if entry[key] is None else entry[key] * scale for key in _PARTS}  # type: ignore[operator]
    return _figure(scaled["value"], scaled["error"], digits), _figure(scaled["floor"], scaled["floor_error"], digits)


_PARTS: Final = ("value", "error", "floor", "floor_error")


def _figure(value: float | None, error: float | None = None, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")
