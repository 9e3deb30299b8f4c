"""An inspection on one screen: what the file is, its mean shower as characters, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.inspection.inspection import Inspection, Range
from metacalo.runtime.pictures import drawing
from metacalo.runtime.wording import counted, ranged
from metacalo.storage.checkpoint import atomic_file
from metacalo.typing import PathLike

__all__ = ["MeanShower", "draw_inspection", "inspection_table"]

DECADES: Final = 4
"""Of energy below the greatest one that the picture shows."""
COLOURS: Final = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")  # viridis
SHADES: Final = " ░▒▓█"
ASCII_SHADES: Final = " .:*#"
BARS: Final = " ▁▂▃▄▅▆▇█"
ASCII_BARS: Final = "     ####"
WIDEST: Final = 90
LINES: Final = 3
FORMATS: Final = ("png", "pdf", "svg")
LONGEST: Final = 88  # characters of an attribute

Array = NDArray[np.float64]


def inspection_table(found: Inspection) -> Group:
    """All of an inspection, to be printed by Rich."""
    facts = Table(title=escape(_title(found)), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, text in (*_facts(found), *_attributes(found)):
        facts.add_row(name, escape(text))
    return Group(facts, Text(), MeanShower(found.mean_shower, found.grid), Text(), *_problems(found))


def draw_inspection(found: Inspection, path: PathLike, *, force: bool = False) -> None:
    """Draws the mean shower of an inspection into `path`: a PNG, or a PDF or SVG where the name ends so.

    Raises:
        OutputError: `path` exists and not `force`, or cannot be written.
    """
    from metacalo.evaluate.mean_shower import mean_shower_picture

    suffix = Path(path).suffix.lower().removeprefix(".")
    title = f"{found.path.name}: mean of {counted(found.inspected, 'shower')}"
    picture = None
    with drawing(str(path)):
        picture = mean_shower_picture(found.mean_shower, found.grid, title, suffix if suffix in FORMATS else "png")
    if picture is not None:
        with atomic_file(path, force=force) as temporary:
            temporary.write_bytes(picture)


def _title(found: Inspection) -> str:
    return f"{found.path}" + (f", group {found.group}" if found.group else "")


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    looked = "" if found.inspected == found.showers else f", {found.inspected:,} of them looked at"
    yield "convention", found.convention
    yield "showers", f"{found.showers:,}{looked}"
    yield "mesh", f"{found.grid} in r, phi, z; {_cells(found.grid)}"
    yield "detector", _detector(found.detector) + (" (assumed: the file does not say)" if found.assumed else "")
    yield "particle", found.particle or "unknown: the file does not say"
    discrete = ", ".join(f"{energy:g}" for energy in found.energies_GeV)
    yield "energy", _span(found.energy_GeV, "GeV") + (f": {discrete}" if len(found.energies_GeV) > 1 else "")
    yield "theta, phi", f"{_span(found.theta, 'rad')}, {_span(found.phi, 'rad')}"
    response = found.response
    if np.isfinite(response.mean):
        yield "response", f"{response.mean:.4g}, width {response.width:.3g}: {response.scale}"
        parts = [f"{mean:.4g} at {_span((low, high), 'GeV')}" for low, high, mean in response.by_energy]
        yield "by energy", ", ".join(parts)
    else:
        yield "response", "not known: no shower has usable energies and deposits"
    yield "deposits", f"{_span(found.voxel_MeV, 'MeV')} in a voxel; {found.occupancy:.2%} of the voxels"
    storage = found.storage
    packed = f"{storage.compression or 'no compression'}, "
    chunks = "contiguous" if storage.chunks is None else f"chunks of {' x '.join(map(str, storage.chunks))}"
    yield (
        "on disk",
        f"{storage.dtype}, {packed}{chunks}; {storage.showers_bytes / 1e6:.1f} MB, "
        + (f"file {storage.file_bytes / 1e6:.1f} MB"),
    )


def _attributes(found: Inspection) -> Iterator[tuple[str, str]]:
    for key, value in found.attributes.items():
        text = " ".join(f"{value:.6g}".split() if isinstance(value, float) else str(value).split())
        yield key, text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _cells(grid: Grid) -> str:
    sizes = [f"{name} {size:.4g} mm" for name, size in (("dr", grid.dr_mm), ("dz", grid.dz_mm)) if np.isfinite(size)]
    return ", ".join(sizes) or "cell sizes unknown"


def _detector(detector: Detector | None) -> str:
    if detector is None:
        return "not described"
    stack = " + ".join(map(str, detector.layers))
    fraction = f", sampling fraction {detector.sampling_fraction:.3g}" if detector.sampling_fraction else ""
    sizes = f"X0 {detector.X0_mm:.2f} mm, R_M {detector.R_M_mm:.1f} mm, E_c {detector.E_c_MeV:.2f} MeV{fraction}"
    return f"{detector.name}: {detector.n_layers} x ({stack}); {sizes}"


def _span(values: Range, unit: str) -> str:
    return ranged(*values, unit, digits=4)


def _problems(found: Inspection) -> Iterator[Text]:
    if not found.problems:
        yield Text("no problems found", style="green")
        return
    yield Text(f"{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}", style="bold red")
    for problem in found.problems:
        yield Text(f"- {problem}")


class MeanShower:
    """A mean shower as characters: r (upwards) against z in shades of ln E, below it the energy of each layer.

    Args:
        mean: (R, PHI, Z), MeV.
        grid: its mesh.
    """

    def __init__(self, mean: Array, grid: Grid) -> None:
        self.mean, self.grid = mean, grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shades, bars = (ASCII_SHADES, ASCII_BARS) if options.ascii_only else (SHADES, BARS)
        cells = _narrowed(self.mean.mean(axis=1), min(WIDEST, max(8, options.max_width - 8)))
        yield Text(f"mean shower: MeV per cell, r (up) against z, {DECADES} decades", style="bold")
        if cells.max() <= 0:
            yield Text("        no deposit")
            return
        level = np.log10(np.maximum(cells / cells.max(), 1e-30)) / DECADES + 1  # 1 at the greatest, 0 where not shown
        for ring in reversed(range(len(level))):
            line = Text(f"{self._radius(ring):>7} ")
            for value in level[ring]:
                shade = shades[int(np.clip(np.ceil(value * (len(shades) - 1)), 0, len(shades) - 1))]
                line.append(shade, style=COLOURS[int(np.clip(value * len(COLOURS), 0, len(COLOURS) - 1))])
            yield line
        layers = cells.sum(axis=0)
        height = np.rint(layers / layers.max() * LINES * (len(bars) - 1)).astype(int)
        for row in reversed(range(LINES)):
            filled = np.clip(height - row * (len(bars) - 1), 0, len(bars) - 1)
            name = "E (z)" if row == LINES - 1 else ""
            yield Text(f"{name:>7} ").append("".join(bars[step] for step in filled), style=COLOURS[2])

    def _radius(self, ring: int) -> str:
        """Outer edge of the outermost ring, and the axis."""
        if ring == self.grid.n_r - 1:
            return f"{self.grid.n_r * self.grid.dr_mm:.0f} mm" if np.isfinite(self.grid.dr_mm) else f"r {self.grid.n_r}"
        return "0" if ring == 0 else ""


def _narrowed(cells: Array, width: int) -> Array:
    """Neighbours in z averaged, or repeated, so that (R, Z) fits a line and fills half of it."""
    n_z = cells.shape[1]
    if n_z > width:
        parts = np.array_split(np.arange(n_z), width)
        return np.stack([cells[:, part].mean(axis=1) for part in parts], axis=1)
    return np.repeat(cells, max(1, min(width, 45) // n_z), axis=1)
