"""Figures of a sweep: history, importances, slices, parallel coordinates, and the front of two objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from metacalo.evaluate.figures.style import REFERENCE, colour, drawable, new_figure
from metacalo.evaluate.html import Drawing, inline_svg
from metacalo.runtime.pictures import drawing, rendered

__all__ = ["draw_findings"]

_AXES: Final = {
    "w1": "mean W1 (standardised)",
    "fpd": "FPD",
    "loss": "held-back loss",
    "seconds": "adaptation (s)",
    "shower_ms": "generation (ms / shower)",
}
_COLUMNS: Final = 3
_SPREAD: Final = 0.12  # of points of one choice
_MAP: Final = "viridis"  # dark = little = good

Found = Mapping[str, Any]


def draw_findings(found: Found) -> list[Drawing]:
    """The figures of what `findings` returned; those for which there are too few trials, or that fail, are left out."""
    wanted: list[tuple[str, str, bool, Callable[[Found], Figure | None]]] = [
        ("history", "Every complete trial, the best so far, and pruned trials (below).", True, _history),
        ("front", "Fidelity against time; the line joins the trials that no other beats in both.", False, _front),
        (
            "importances",
            "Share of the variance of the fidelity that each hyperparameter explains (fANOVA).",
            False,
            _bars,
        ),
        ("slices", "The fidelity against each hyperparameter; the cross is the best trial.", True, _slices),
        ("parallel", "Complete trials as lines through their hyperparameters, coloured by fidelity.", True, _parallel),
    ]
    drawings = []
    for name, caption, wide, draw in wanted:
        with drawing(f"figure {name} of the report"):
            figure = draw(found)
            if figure is not None:
                drawings.append(Drawing(name, "Trials", caption, wide, inline_svg(rendered(figure, "svg").decode())))
    return drawings


def _complete(found: Found) -> list[Found]:
    return [trial for trial in found["trials"] if trial["state"] == "complete"]


def _values(found: Found, objective: int = 0) -> np.ndarray:
    return np.array([trial["values"][found["objectives"][objective]] for trial in _complete(found)])


def _history(found: Found) -> Figure:
    numbers = np.array([trial["number"] for trial in _complete(found)])
    values = _values(found)
    figure = new_figure(11, 4.2)
    axes = figure.add_axes((0.08, 0.15, 0.9, 0.8))
    axes.scatter(numbers, values, s=28, color=colour(0), label="complete")
    axes.step(numbers, np.minimum.accumulate(values), where="post", color=colour(1), label="best so far")
    pruned = [trial["number"] for trial in found["trials"] if trial["state"] == "pruned"]
    low, high = axes.get_ylim()
    axes.scatter(pruned, [low] * len(pruned), s=28, marker="x", color=colour(4), label="pruned", clip_on=False)
    if found["default"] is not None:
        usual = found["default"]["values"][found["objectives"][0]]
        axes.axhline(usual, color=REFERENCE, linestyle="--", label="metacalo adapt")
    axes.set_ylim(low, high)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(_AXES[found["objectives"][0]])
    axes.legend(loc="upper right", fontsize=10)
    return figure


def _front(found: Found) -> Figure | None:
    if len(found["objectives"]) < 2:
        return None
    figure = new_figure(5.5, 4.2)
    axes = figure.add_axes((0.17, 0.15, 0.8, 0.8))
    fidelity, cost = _values(found), _values(found, 1)
    axes.scatter(cost, fidelity, s=28, color=colour(0))
    on = np.isin([trial["number"] for trial in _complete(found)], found["front"])
    order = np.argsort(fidelity[on])
    axes.plot(cost[on][order], fidelity[on][order], marker="o", color=colour(1))
    axes.set_xlabel(_AXES[found["objectives"][1]])
    axes.set_ylabel(_AXES[found["objectives"][0]])
    return figure


def _bars(found: Found) -> Figure | None:
    shares = dict(sorted(found["importances"].items(), key=lambda item: item[1]))
    if not shares:
        return None
    figure = new_figure(5.5, 4.2)
    axes = figure.add_axes((0.27, 0.15, 0.69, 0.8))
    axes.barh(range(len(shares)), [100 * share for share in shares.values()], color=colour(0))
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set_xlabel("importance (%)")
    return figure


def _slices(found: Found) -> Figure | None:
    names = list(found["best"]["params"])
    values, numbers = _values(found), [trial["number"] for trial in _complete(found)]
    if len(values) < 2:
        return None
    rows = -(-len(names) // _COLUMNS)
    figure = new_figure(11, 2.8 * rows)
    grid = figure.add_gridspec(
        rows, _COLUMNS, left=0.08, right=0.98, top=1 - 0.1 / rows, bottom=0.24 / rows, hspace=0.42, wspace=0.3
    )
    best = numbers.index(found["best"]["number"])
    for index, name in enumerate(names):
        axes = figure.add_subplot(grid[index // _COLUMNS, index % _COLUMNS])
        places, ticks = _places([trial["params"].get(name) for trial in _complete(found)])
        # points of one choice would hide each other
        shift = np.linspace(-_SPREAD, _SPREAD, len(values)) if ticks else np.zeros(len(values))
        axes.scatter(places + shift, values, c=numbers, cmap="viridis", s=22)
        axes.scatter([places[best] + shift[best]], [values[best]], marker="+", s=150, color=colour(1))
        axes.set_xlabel(name)
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks, rotation=20 if max(map(len, ticks)) > 6 else 0, fontsize=8)
            axes.set_xlim(-0.5, len(ticks) - 0.5)
        elif _is_log(found, name):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if index % _COLUMNS == 0:
            axes.set_ylabel(_AXES[found["objectives"][0]], fontsize=10)
    return figure


def _parallel(found: Found) -> Figure | None:
    names, values = list(found["best"]["params"]), _values(found)
    if len(values) < 2 or len(names) < 2:
        return None
    figure = new_figure(11, 4.2)
    axes = figure.add_axes((0.05, 0.17, 0.85, 0.74))
    scale = Normalize(float(values.min()), float(np.quantile(values, 0.9)))
    heights = np.array([_heights(found, name) for name in names])
    colours = ScalarMappable(scale, _MAP)
    for row in np.argsort(-values):  # the best on top
        axes.plot(range(len(names)), heights[:, row], color=colours.to_rgba(values[row]), alpha=0.8, linewidth=1.3)
    for place, name in enumerate(names):
        axes.axvline(place, color="black", linewidth=0.6)
        low, high = _ends([trial["params"].get(name) for trial in _complete(found)])
        axes.text(place, 1.03, high, horizontalalignment="center", fontsize=8)
        axes.text(place, -0.06, low, horizontalalignment="center", fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", pad=20, length=0)
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(colours, cax=figure.add_axes((0.92, 0.17, 0.012, 0.74)))
    bar.set_label(_AXES[found["objectives"][0]], fontsize=10)
    return figure


def _places(params: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
    """Numbers as they are; words and few values by their order, with their names."""
    known = sorted({param for param in params if param is not None}, key=lambda param: (isinstance(param, str), param))
    if all(isinstance(param, int | float) for param in known) and len(known) > 4:
        return np.array(params, dtype=float), []
    return np.array([known.index(param) for param in params], dtype=float), [drawable(_short(p)) for p in known]


def _heights(found: Found, name: str) -> np.ndarray:
    places, ticks = _places([trial["params"].get(name) for trial in _complete(found)])
    if not ticks and _is_log(found, name):
        places = np.log(places)
    width = float(np.ptp(places))
    return np.asarray((places - places.min()) / width if width else np.full(len(places), 0.5))


def _ends(params: Sequence[Any]) -> tuple[str, str]:
    places, ticks = _places(params)
    return (ticks[0], ticks[-1]) if ticks else (_short(float(places.min())), _short(float(places.max())))


def _is_log(found: Found, name: str) -> bool:
    return bool(found["settings"]["space"][name]["log"])


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
