"""The first pages of the report's PDF: what was compared, and the table of the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure

from metacalo.evaluate.figures.style import drawable, new_figure
from metacalo.evaluate.summary import LEVELS, Cell, Row, summary

__all__ = ["table_pages"]

_WIDTH, _HEIGHT = 11.69, 8.27  # A4, inches
_LINE: Final = 0.235  # inches
_LINES: Final = 27  # on a page
_LEFT: Final = 0.6
_COLOURS: Final = ("#dcefe3", "#eef1d3", "#fbe6cf", "#f6d5d3")


def table_pages(title: str, metrics: Mapping[str, Mapping[str, Any]], lines: Sequence[str]) -> Iterator[Figure]:
    """Pages with the title, some lines below it, and the rows of `summary`.

    Args:
        title: of the report.
        metrics: label of each generated sample -> what `compare` returned.
        lines: printed above the table on the first page: samples, warnings.
    """
    rows = summary(metrics)
    labels = [drawable(label, 22) for label in metrics]
    sentences = [drawable(line, 150) for line in lines]
    start, first = 0, True
    while first or start < len(rows):
        page = new_figure(_WIDTH, _HEIGHT)
        top = _HEIGHT - 0.55
        if first:
            page.text(_LEFT / _WIDTH, top / _HEIGHT, drawable(title, 80), fontsize=17, fontweight="bold", va="center")
            for line in sentences:
                top -= _LINE
                page.text(_LEFT / _WIDTH, top / _HEIGHT, line, fontsize=8.5, va="center", color="0.3")
            top -= 0.45
        room = max(1, min(_LINES, int((top - 0.5) / _LINE) - 1))
        start = _rows(page, top, labels, rows, start, room)
        page.text(_LEFT / _WIDTH, 0.3 / _HEIGHT, _legend(), fontsize=7.5, va="center", color="0.3")
        yield page
        first = False


def _legend() -> str:
    return f"Colours, from green to red: {', '.join(LEVELS)} (up to 1.5, 3 and 10 times the floor, and beyond)"


def _rows(page: Figure, top: float, labels: list[str], rows: list[Row], start: int, room: int) -> int:
    """Draws rows from `start` on, and returns the first that is left for another page."""
    columns = [*labels, "Geant4 floor"]
    width = min(2.1, (_WIDTH - 2 * _LEFT - 3.3) / len(columns))
    size = 9.0 if width > 1.3 else 6.5
    edges = [_WIDTH - _LEFT - width * (len(columns) - index) for index in range(len(columns))]
    for edge, label in zip(edges, columns, strict=True):
        _text(page, edge + width - 0.08, top, label, size, weight="bold")
    section, used, index = "", 0, start
    while index < len(rows):
        row = rows[index]
        needed = 1 + (row.section != section)
        if used + needed > room:
            break
        if row.section != section:
            top -= _LINE
            page.text(
                _LEFT / _WIDTH, top / _HEIGHT, row.section, fontsize=9, va="center", fontweight="bold", color="0.4"
            )
            section = row.section
        top -= _LINE
        page.text(_LEFT / _WIDTH, top / _HEIGHT, drawable(row.label, 60), fontsize=9, va="center")
        for edge, cell in zip(edges, [*row.cells, Cell(row.floor)], strict=True):
            if cell.level is not None:
                _shade(page, edge, top, width, _COLOURS[cell.level])
            _text(page, edge + width - 0.08, top, cell.text, size)
        used, index = used + needed, index + 1
    return index


def _text(page: Figure, right: float, height: float, text: str, size: float, weight: str = "normal") -> None:
    page.text(
        right / _WIDTH, height / _HEIGHT, drawable(text), fontsize=size, ha="right", va="center", fontweight=weight
    )


def _shade(page: Figure, left: float, height: float, width: float, colour: str) -> None:
    shade = page.add_axes((left / _WIDTH, (height - _LINE / 2) / _HEIGHT, width / _WIDTH, _LINE / _HEIGHT), zorder=-1)
    shade.set_facecolor(colour)
    shade.set_xticks([])
    shade.set_yticks([])
    for spine in shade.spines.values():
        spine.set_visible(False)
