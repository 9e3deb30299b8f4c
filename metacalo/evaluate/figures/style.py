"""The style of all figures: colours, sizes, legends, and labels that the font can show."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from metacalo.runtime.wording import ranged

__all__ = [
    "BAND",
    "REFERENCE",
    "Heading",
    "add_heading",
    "add_legend",
    "colour",
    "drawable",
    "handles",
    "marker",
    "new_figure",
]

REFERENCE: Final = "#b9ac70"
"""Fill of the reference in every figure."""

BAND: Final = (0.0, 0.0, 0.0, 0.3)
"""Of the reference's statistical error."""

_COLOURS: Final = ("#5790fc", "#e42536", "#f89c20", "#964a8b", "#9c9ca1", "#7a21dd")  # Petroff 2021, as CMS uses
_LONGEST: Final = 34  # letters of a label
_LETTERS_PER_INCH: Final = 13.0  # of a legend
_LINE: Final = 0.22  # inches of a line of a legend
_MARGIN: Final = 0.13  # inches below a legend
_EDGE: Final = 0.06  # inches above a heading
_SIDE: Final = 0.15  # inches beside it
_MARKERS: Final = "osD^v<"
_PARTICLES: Final = {"e-": "$e^{-}$", "e+": "$e^{+}$", "gamma": "$\\gamma$", "pi-": "$\\pi^{-}$", "pi+": "$\\pi^{+}$"}


class Heading(NamedTuple):
    """What a figure is of: the detector, and the beam of the reference.

    Attributes:
        detector: its name, particle and energies; may be empty.
        beam: particle (where known), energies and angles, as matplotlib writes them.
    """

    detector: str
    beam: str

    @classmethod
    def of(cls, detector: str, energy: NDArray[Any], theta: NDArray[Any], particle: str | None = None) -> Heading:
        """The heading of showers of incident energies in MeV (N,) and angles in rad (N,).

        Example:
            >>> Heading.of("PbLAr", np.array([1e3, 5e4]), np.full(2, np.pi / 2), "proton").beam.split(", ")[:2]
            ['proton', '1–50 GeV']
        """
        known = [] if not particle else [_PARTICLES.get(particle, drawable(particle))]
        angles, energies = np.degrees(np.asarray(theta, np.float64)), np.asarray(energy, np.float64) / 1000
        turned = ranged(angles.min(), angles.max(), between="\u2013")
        beam = [*known, ranged(energies.min(), energies.max(), "GeV", between="\u2013"), f"$\\theta$ = {turned}°"]
        return cls(detector, ", ".join(beam))

    @property
    def letters(self) -> int:
        """How many letters the beam takes, about."""
        return len(self.beam.replace("\\theta", "t"))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches wide and high, that belongs to no window."""
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure


def colour(index: int) -> str:
    """Colour of the generated sample `index`, from 0."""
    return _COLOURS[index % len(_COLOURS)]


def handles(samples: int, linewidth: float = 1.6) -> list[Artist]:
    """Legend entries of the reference and of `samples - 1` generated samples."""
    reference = Patch(facecolor=REFERENCE, alpha=0.5)
    lines = [
        Line2D([], [], color=colour(index), linewidth=linewidth, marker=marker(index), markersize=4)
        for index in range(samples - 1)
    ]
    return [reference, *lines]


def marker(index: int) -> str:
    """Shape of the points of the generated sample `index`, from 0: readable without colour."""
    return _MARKERS[index % len(_MARKERS)]


@cache
def _letters() -> frozenset[int]:
    found = findfont(FontProperties(family=["TeX Gyre Heros", "DejaVu Sans"]))
    return frozenset(get_font(found).get_charmap())


def drawable(label: str, longest: int = _LONGEST) -> str:
    r"""`label` as matplotlib can draw it: no mathematics, no letter that the font lacks, its middle cut if too long.

    Example:
        >>> drawable("shots $5 and 2$")
        'shots \\$5 and 2\\$'
    """
    shown = "".join(letter if ord(letter) in _letters() else "?" for letter in label.replace("\n", " "))
    if len(shown) > longest:
        shown = f"{shown[: longest // 2 - 1]}...{shown[-(longest // 2 - 2) :]}"
    shown = shown.replace("$", "\\$")
    return f" {shown}" if shown.startswith("_") else shown  # matplotlib hides what starts with a line


def add_heading(figure: Figure, heading: Heading) -> float:
    """Writes detector and beam across the top of a figure, and returns how much of its height is left below."""
    width, height = figure.get_size_inches()
    middle = 1 - (_EDGE + _LINE / 2) / height
    place: dict[str, Any] = {"verticalalignment": "center", "transform": figure.transFigure}
    # the beam is cut rather than written over the detector
    detector = drawable(heading.detector, max(12, int(width * _LETTERS_PER_INCH) - heading.letters - 4))
    figure.text(_SIDE / width, middle, detector, fontsize=12, fontweight="bold", **place)
    figure.text(1 - _SIDE / width, middle, heading.beam, fontsize=11, horizontalalignment="right", **place)
    return float(1 - (_EDGE + _LINE) / height)


def add_legend(figure: Figure, labels: Sequence[str], heading: Heading) -> float:
    """Writes the heading and below it the samples' names, and returns how much of the height is left below."""
    width, height = figure.get_size_inches()
    above = add_heading(figure, heading)
    letters = int(width * _LETTERS_PER_INCH)
    columns = max(1, min(len(labels), letters // (max(map(len, labels)) + 6)))
    rows = -(-len(labels) // columns)
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, above), "frameon": False, "fontsize": 11}
    figure.legend(
        handles(len(labels)), labels, ncols=columns, columnspacing=1.4, handlelength=1.6, borderaxespad=0.2, **place
    )
    return float(above - (_MARGIN + _LINE * rows) / height)
