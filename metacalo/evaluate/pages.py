"""The report of a comparison: a page for the browser, a PDF, and every figure as a file for papers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from metacalo import __version__
from metacalo.evaluate.figures.catalogue import CATALOGUE, Entry
from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.html import Drawing, embedded_png, inline_svg, report_html
from metacalo.evaluate.pdf import table_pages
from metacalo.evaluate.summary import notes
from metacalo.runtime.pictures import drawing, rendered
from metacalo.runtime.progress import Track
from metacalo.showers.shower_file import Showers

__all__ = ["write_pages"]

_DPI: Final = 150


def write_pages(
    folder: Path,
    samples: Mapping[str, Showers],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    title: str,
    command: str | None = None,
    cards: Mapping[str, str] | None = None,
    progress: Callable[[str, int], Track] | None = None,
) -> None:
    """Writes `report.html`, `report.pdf`, and each figure as PNG and PDF in `figures/`, into a folder that exists.

    Args:
        folder: where to, best one that takes its place when all is written (`checkpoint.atomic_folder`).
        samples: label -> showers on one mesh; the first is the reference, the others are generated.
        metrics: label of each generated sample -> what `compare` returned; the table shows what is there.
        title: of the report.
        command: the command line, printed in the report.
        cards: label -> Markdown of the sample's model card.
        progress: makes a bar of a description and a number of steps, as from `progress.bars`.

    The page is one file: it runs no script and asks the network for nothing, and labels and cards are escaped. A
    figure that cannot be drawn is left out, with a `PictureWarning`.

    Raises:
        ShowerFileError: a sample holds voxels or energies that cannot be.
    """
    bar = progress("report", 1 + len(CATALOGUE)) if progress else None
    compared = Compared.of(samples)
    if bar:
        bar.advance()
    (folder / "figures").mkdir()
    drawings = []
    date = _now().strftime("%Y-%m-%d %H:%M UTC")
    about = {"Title": title, "Creator": f"metacalo {__version__}"}
    with drawing("report.pdf"), PdfPages(folder / "report.pdf", metadata=about) as pdf:
        with drawing("table of report.pdf"):
            for page in table_pages(title, metrics, _sentences(samples, metrics, date)):
                pdf.savefig(page)
        for entry in CATALOGUE:
            with drawing(f"figures/{entry.name}.png"):
                figure = entry.draw(compared)
                if figure is not None:
                    drawings.append(_write(entry, figure, folder, pdf))
            if bar:
                bar.advance()
    text = report_html(
        samples,
        metrics,
        drawings,
        title=title,
        command=command,
        cards=cards or {},
        version=__version__,
        date=date,
    )
    (folder / "report.html").write_text(text, encoding="utf-8")


def _now() -> datetime:
    """The time, or that of SOURCE_DATE_EPOCH (reproducible-builds.org), which gives equal reports equal bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)


def _sentences(samples: Mapping[str, Showers], metrics: Mapping[str, Mapping[str, Any]], date: str) -> list[str]:
    numbers = [f"{label}: {len(sample):,} showers" for label, sample in samples.items()]
    warnings = [
        f"Warning, {label}: {message}" for label, found in metrics.items() for message in found.get("warnings") or ()
    ]
    return [f"metacalo {__version__}, {date}", *numbers, *notes(metrics), *warnings]


def _write(entry: Entry, figure: Figure, folder: Path, pdf: PdfPages) -> Drawing:
    contents = {suffix: rendered(figure, suffix) for suffix in ("png", "pdf")}
    if entry.picture:
        shown = embedded_png(rendered(figure, "png", _DPI))
    else:
        shown = inline_svg(rendered(figure, "svg", _DPI).decode())
    for suffix, content in contents.items():
        (folder / "figures" / f"{entry.name}.{suffix}").write_bytes(content)
    pdf.savefig(figure, dpi=_DPI)  # type: ignore[no-untyped-call]
    return Drawing(entry.name, entry.section, entry.caption, entry.wide, shown)
