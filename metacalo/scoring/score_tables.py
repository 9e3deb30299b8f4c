"""The summary of scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from metacalo.runtime.wording import ranged

__all__ = ["RANKED_BY", "outlier_table", "score_table"]

_LABELS: Final = {
    "log_likelihood_ar": "ar, ln P of the codes",
    "bound_ar": "ar, ln p of the latents, at least",
    "bound_diffusion": "diffusion, ln p of the latents, at least",
}

RANKED_BY: Final = ("bound_diffusion", "bound_ar")
"""Scores by which the outliers of a table are ranked, the first that there is."""


def score_table(found: Mapping[str, Any]) -> Table:
    """Mean, spread and quantiles of each score, in energy bins, and the AUC against a second file."""
    title = f"scores in nats, model {found['model']} of {found['detector']}"
    result = Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("score", "showers", "mean", "spread", "1 %", "50 %", "99 %", "AUC"):
        text = column == "score"
        result.add_column(column, justify="left" if text else "right", no_wrap=not text)
    for name, entry in found["scores"].items():
        result.add_row(_LABELS[name], *_row(entry), "")
        for (low, high), moments in zip(_bins(found), entry["by_energy"], strict=True):
            result.add_row(f"  {ranged(low, high, 'GeV', between=' - ')}", *_moments(moments), *[""] * 4)
        if "against" in entry:
            other = entry["against"]
            result.add_row(f"  {found['against']}", *_row(other), f"{other['auc']:.3f} ± {other['auc_error']:.3f}")
        result.add_section()
    return result


def _bins(found: Mapping[str, Any]) -> list[tuple[float, float]]:
    edges = [edge / 1000 for edge in found["energy_edges_MeV"]]
    return list(pairwise(edges)) or [(edges[0], edges[0])]


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_moments(entry), *(f"{entry['quantiles'][level]:.1f}" for level in ("0.01", "0.5", "0.99")))


def _moments(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return str(entry["showers"]), *("-" if entry[key] is None else f"{entry[key]:.1f}" for key in ("mean", "std"))


def outlier_table(found: Mapping[str, Any]) -> Table:
    """The least likely showers, by the first of `RANKED_BY`, and how far the other scores put them from the trend."""
    ranked = next(name for name in RANKED_BY if name in found["scores"])
    others = [name for name in found["scores"] if name != ranked]
    result = Table(
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=f"least likely of {found['showers']}: {_LABELS[ranked]}",
        caption="deviations: robust standard deviations from the trend in ln E",
    )
    columns = ("row", "E GeV", "theta", "phi", "response", "score", "deviation", *(_short(name) for name in others))
    for column in columns:
        result.add_column(column, justify="right")
    for shower in found["scores"][ranked]["outliers"]:
        deviations = [f"{shower['deviations'][name]:+.1f}" for name in (ranked, *others)]
        result.add_row(
            str(shower["row"]),
            f"{shower['energy_MeV'] / 1000:.3g}",
            f"{shower['theta']:.3f}",
            f"{shower['phi']:.3f}",
            f"{shower['response']:.4f}",
            f"{shower['score']:.1f}",
            *deviations,
        )
    return result


def _short(name: str) -> str:
    return _LABELS[name].partition(", at least")[0].replace("ln ", "")
