"""The matrix of pulls: departures from Geant4 at each energy and angle, over their errors."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.style import add_heading, new_figure
from metacalo.evaluate.ladder import CORRELATIONS, LADDER_OBSERVABLES, Rung, ladder

__all__ = ["pull_matrix"]

_ENDS: Final = (-10.0, -5.0, -3.0, -2.0, 2.0, 3.0, 5.0, 10.0)  # of the colours, in errors


def pull_matrix(compared: Compared) -> Figure | None:
    """A row for each rung and sample, two columns for each observable; None where no rung has enough showers."""
    reference, theirs = compared.samples[0], compared.seen[0]
    found = [
        ladder(sample, reference, ours, theirs)
        for sample, ours in zip(compared.samples[1:], compared.seen[1:], strict=True)
    ]
    rows = [(rung, label) for rungs, label in zip(found, compared.labels[1:], strict=True) for rung in rungs]
    if not rows:
        return None
    names = [*(f"{kind} {name}" for name in LADDER_OBSERVABLES for kind in ("mean", "width")), *CORRELATIONS]
    labels = [f"{label}: {rung.label}" for rung, label in rows]
    left, below = 0.3 + 0.075 * max(map(len, labels)), 1.45  # inches
    width, height = 0.62 * len(names) + left + 0.2, 0.34 * len(rows) + below + 0.7
    figure = new_figure(width, height)
    top = add_heading(figure, compared.heading)
    axes = figure.add_axes((left / width, below / height, 1 - (left + 0.2) / width, top - below / height - 0.02))
    pulls = np.array([_columns(rung)[0] for rung, _ in rows])
    colours = BoundaryNorm(_ENDS, 256, extend="both")
    axes.imshow(pulls, cmap="RdBu_r", norm=colours, aspect="auto")
    for row, (rung, _) in enumerate(rows):
        for column, (text, pull) in enumerate(zip(_columns(rung)[1], pulls[row], strict=True)):
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="w" if abs(pull) > 5 else "k")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.tick_params(length=0)
    return figure


def _columns(rung: Rung) -> tuple[list[float], list[str]]:
    """Pulls, and the figures written over them."""
    pulls, texts = [], []
    for name in LADDER_OBSERVABLES:
        shift, width = rung.shifts[name], rung.widths[name]
        pulls += [shift.value / shift.error, (width.value - 1) / width.error]
        texts += [f"{shift.value:+.2f}", f"{width.value:.2f}"]
    for name in CORRELATIONS:
        off = rung.correlations[name]
        pulls.append(off.value / off.error)
        texts.append(f"{off.value:+.2f}")
    return pulls, texts
