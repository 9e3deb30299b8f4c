"""The report as one HTML file that needs nothing else: no script, no network, pictures and style inside."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from metacalo.evaluate.published import CALOCHALLENGE_2, CALOCHALLENGE_SOURCE
from metacalo.evaluate.summary import LEVELS, notes, summary
from metacalo.runtime.wording import ranged
from metacalo.showers.shower_file import Showers

__all__ = ["Drawing", "card_html", "embedded_png", "inline_svg", "report_html"]

_PLACES: Final = re.compile(r'\b(?:d|x|y)="[^"]*"')
_DIGITS: Final = re.compile(r"(\.\d\d)\d+")  # a hundredth of a point is not seen


@dataclass(frozen=True)
class Drawing:
    """A figure of the report: file name without ending, heading, caption, whether it is wide, and its markup."""

    name: str
    section: str
    caption: str
    wide: bool
    drawing: Markup


def inline_svg(text: str) -> Markup:
    """An SVG file of matplotlib as an element of a page: without prolog, metadata, fixed size and excess of digits."""
    start = text.index("<svg")
    head, body = text[start:].split(">", 1)
    size = head.split('viewBox="')[1].split('"')[0]
    before, _, after = body.partition("<metadata>")
    body = before + after.partition("</metadata>")[2] if after else body
    body = _PLACES.sub(lambda found: _DIGITS.sub(r"\1", found[0]), body)
    return Markup(f'<svg viewBox="{size}" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true">{body}')


def embedded_png(content: bytes) -> Markup:
    """A PNG file as an element of a page."""
    return Markup(f'<img src="data:image/png;base64,{b64encode(content).decode()}" alt="">')


def card_html(text: str) -> Markup:
    """Markdown of a model card as HTML. A card is not trusted: its HTML is shown as text, its images are left out."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):  # below the page's own headings
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))


def report_html(
    samples: Mapping[str, Showers],
    metrics: Mapping[str, Mapping[str, Any]],
    drawings: Sequence[Drawing],
    *,
    title: str,
    command: str | None,
    cards: Mapping[str, str],
    version: str,
    date: str,
) -> str:
    """The page.

    Args:
        samples: label -> showers; the first is the reference.
        metrics: label of each generated sample -> what `compare` returned.
        drawings: figures, those of one section together.
        title: of the page.
        command: the command line, or None.
        cards: label -> Markdown of its model card.
        version: of metacalo.
        date: of the report.
    """
    environment = Environment(
        loader=PackageLoader("metacalo.evaluate", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    sections = dict.fromkeys(drawing.section for drawing in drawings)
    return environment.get_template("report.html.jinja").render(
        title=title,
        command=command,
        version=version,
        date=date,
        samples=[_described(label, sample) for label, sample in samples.items()],
        generated=list(metrics),
        warnings=[(label, message) for label, found in metrics.items() for message in found.get("warnings") or ()],
        levels=LEVELS,
        rows=summary(metrics),
        notes=notes(metrics),
        sections=[
            {
                "name": name,
                "anchor": name.lower().replace(" ", "-"),
                "figures": [drawing for drawing in drawings if drawing.section == name],
            }
            for name in sections
        ],
        published=CALOCHALLENGE_2,
        source=CALOCHALLENGE_SOURCE,
        cards=[(label, card_html(text)) for label, text in cards.items() if text.strip()],
    )


def _described(label: str, sample: Showers) -> dict[str, Any]:
    angles = np.abs(90 - np.degrees(np.asarray(sample.theta, np.float64)))
    return {
        "label": label,
        "showers": len(sample),
        "energies": _range(np.asarray(sample.energy) / 1000, "GeV"),
        "angles": _range(np.round(angles), "degrees"),
        "cells": " x ".join(str(cells) for cells in sample.showers.shape[1:]),
        "detector": sample.detector.name if sample.detector else "not described",
    }


def _range(values: np.ndarray, unit: str) -> str:
    return ranged(float(values.min()), float(values.max()), unit)
