"""The figures of a comparison as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from rich.table import Table

__all__ = ["table"]

_LABELS: Final = {
    "mean_w1": "mean W1 (standardised observables)",
    "separation": "mean separation power",
    "fpd": "Frechet physics distance",
    "kpd": "kernel physics distance",
    "layer_correlation": "correlations of layers, off by",
    "low_level_auc": "AUC, voxels",
    "high_level_auc": "AUC, observables",
}

_PAIRS: Final = (("value", "error"), ("floor", "floor_error"))


def table(metrics: Mapping[str, Any]) -> Table:
    """The metrics of `compare` as a table: metric, value, Geant4 against Geant4."""
    numbers = metrics["showers"]
    result = Table(
        title=f"{numbers['generated']:,} generated against {numbers['reference']:,} reference showers",
        caption="Geant4 floor: {:,} reference showers against {:,} others".format(*numbers["floor"]),
    )
    result.add_column("metric")
    result.add_column("value", justify="right")
    result.add_column("Geant4 floor", justify="right")
    _add_response(result, metrics)
    result.add_section()
    for key, label in _LABELS.items():
        if metrics[key] is not None:
            result.add_row(label, *_figures(metrics[key]))
    result.add_section()
    _add_diversity(result, metrics["diversity"], metrics["copies"])
    result.add_section()
    for name, group in metrics["groups"].items():
        w1, named = group["w1"], name.replace("_", " ")
        result.add_row(f"W1, {named}", _figure(w1["value"]), _figure(w1["floor"]))
    for name, group in metrics["groups"].items():
        if "profile_difference" in group:
            entry = group["profile_difference"]
            result.add_row(f"mean {name.replace('_', ' ')}, off by", f"{entry['value']:.2%}", f"{entry['floor']:.2%}")
    for name, group in metrics["groups"].items():
        if "chi2" in group:
            result.add_row(f"chi2/ndf, mean {name.replace('_', ' ')}", *_figures(group["chi2"], digits=2))
    return result


def _add_response(result: Table, metrics: Mapping[str, Any]) -> None:
    reference, ours = metrics["response"]["reference"], metrics["response"]["generated"]
    for name in ("mean", "width"):
        result.add_row(f"response, {name}", f"{ours[name]:.4f}", f"{reference[name]:.4f} (Geant4)")
    binned = metrics["response_by_energy"]
    edges = [f"{edge / 1000:.3g}" for edge in binned["edges"]]
    for index, (low, high) in enumerate(pairwise(edges)):
        cells = []
        for sample in (binned["generated"], binned["reference"]):
            mean, error, width = (sample[key][index] for key in ("mean", "mean_error", "width"))
            cells.append("-" if mean is None else f"{_figure(mean, error, digits=4)}, {width:.4f}")
        result.add_row(f"mean, width at {low} - {high} GeV", *cells)


def _add_diversity(result: Table, diversity: Mapping[str, Any], copies: Mapping[str, Any] | None) -> None:
    result.add_row("nearest other shower, over Geant4's", *_figures(diversity["nearest"]))
    samples = diversity["generated"], diversity["reference"]
    result.add_row("distinct showers", *(f"{found['distinct']:,} of {found['showers']:,}" for found in samples))
    result.add_row("their effective number", *(f"{found['effective']:,.0f}" for found in samples))
    if copies is not None:
        result.add_row("share too near to a shot", *_figures(copies["share"]))
        result.add_row("share as near to an unseen shower", *_figures(copies["control"]))
        result.add_row("distance to shots, over to unseen", *_figures(copies["ratio"]))


def _figures(entry: Mapping[str, float | None], digits: int = 3) -> tuple[str, str]:
    found, floor = (_figure(entry[name], entry[error], digits) for name, error in _PAIRS)
    return found, floor


def _figure(value: float | None, error: float | None = None, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")
