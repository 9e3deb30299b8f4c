"""The report of a sweep: one HTML file that needs nothing else, in the manner of `metacalo evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from metacalo.storage.checkpoint import atomic_file
from metacalo.sweep.sweep_summary import formatted
from metacalo.sweep.trial_figures import draw_findings

__all__ = ["write_report"]


def write_report(path: Path, found: Mapping[str, Any]) -> None:
    """Writes the page.

    Args:
        path: HTML file.
        found: what `sweep.json` holds, see `write_result`.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("metacalo.sweep", "templates"), PackageLoader("metacalo.evaluate", "templates")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["formatted"] = formatted
    page = environment.get_template("sweep.html.jinja").render(
        found=found,
        names=list(found["best"]["params"]),
        states=[trial["state"] for trial in found["trials"]],
        drawings=draw_findings(found),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
