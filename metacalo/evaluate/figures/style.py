"""The style of all figures: colours, sizes, legends, and labels that the font can show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.style import context
from mplhep import style

__all__ = ["BAND", "REFERENCE", "add_legend", "colour", "drawable", "handles", "house_style", "new_figure"]

REFERENCE: Final = "#b9ac70"
"""Fill of the reference in every figure."""

BAND: Final = (0.0, 0.0, 0.0, 0.3)
"""Of the reference's statistical error."""

_COLOURS: Final = ("#5790fc", "#e42536", "#f89c20", "#964a8b", "#9c9ca1", "#7a21dd")  # Petroff 2021, as CMS uses
_STYLE: Final = {
    "font.size": 11,
    "axes.labelsize": 12,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 11,
    "xtick.major.size": 5,
    "xtick.minor.size": 2.5,
    "ytick.major.size": 5,
    "ytick.minor.size": 2.5,
    "xtick.minor.visible": False,  # half of the time of a figure
    "ytick.minor.visible": False,
    "axes.linewidth": 1.0,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "metacalo",  # the same figure, the same file
}
_LONGEST: Final = 34  # letters of a label
_LETTERS_PER_INCH: Final = 13.0  # of a legend
_LINE: Final = 0.21  # inches of a line of a legend
_MARGIN: Final = 0.16  # inches


@contextmanager
def house_style() -> Iterator[None]:
    """Within it, figures are drawn in the style of CMS (mplhep), with letters small enough for many panels."""
    with context([style.CMS, _STYLE]):
        yield


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
    return [reference, *(Line2D([], [], color=colour(index), linewidth=linewidth) for index in range(samples - 1))]


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


def add_legend(figure: Figure, labels: Sequence[str]) -> float:
    """Puts the samples' names across the top of a figure, and returns how much of its height is left below."""
    width, height = figure.get_size_inches()
    letters = int(width * _LETTERS_PER_INCH)
    columns = max(1, min(len(labels), letters // (max(map(len, labels)) + 6)))
    rows = -(-len(labels) // columns)
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.0), "frameon": False, "fontsize": 10}
    figure.legend(handles(len(labels)), labels, ncols=columns, columnspacing=1.4, handlelength=1.6, **place)
    return float(1 - (_MARGIN + _LINE * rows) / height)
