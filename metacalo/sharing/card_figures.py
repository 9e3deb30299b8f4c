"""Measured figures of a model, found where they are kept: metrics.json of `adapt`, and the CARD.md of a base."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["Figure", "of_card", "of_metrics"]

_NAMES: Final = {
    "mean_w1": "mean Wasserstein-1 distance of standardised observables",
    "fpd": "Frechet distance of observables (FPD)",
    "auc_voxels": "AUC of a classifier of voxels",
    "auc_observables": "AUC of a classifier of observables",
}
_COLUMNS: Final = {
    "mean W1": "mean_w1",
    "FPD": "fpd",
    "AUC voxels": "auc_voxels",
    "AUC observables": "auc_observables",
}
"""Columns of CARD.md that are figures; those of `benchmarks.card` and `benchmarks.fidelity`."""


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        metric: its short name.
        value: the number.
        generator: what made the showers.
        data: the detector whose Geant4 showers they were compared with, and whether a base had seen it.
        file: which file of the repository has it.
        shots: showers that were adapted on, where a table has it.
    """

    metric: str
    value: float
    generator: str
    data: str
    file: str
    shots: int | None = None

    @property
    def name(self) -> str:
        """What the metric is, in words."""
        return _NAMES[self.metric]


def of_metrics(metrics: Mapping[str, Any]) -> list[Figure]:
    """The figures of an adapted model; those of the base before adaptation are not its own."""
    fidelity = metrics.get("fidelity", {})
    return [
        Figure(
            metric,
            found[metric]["value"],
            label.removeprefix("after (").removesuffix(" library").rstrip(")"),
            str(metrics["detector"]),
            "metrics.json",
            metrics["shots"]["number"],
        )
        for label, found in fidelity.items()
        if label.startswith("after (") or label.endswith(" library")
        for metric in ("mean_w1",)
    ]


def of_card(text: str, generators: Sequence[str]) -> list[Figure]:
    """The figures of `generators` in the first table of a card that has any; others are of other runs or bases."""
    for rows in _tables(text):
        figures = [figure for row in rows if row.get("generator") in generators for figure in _of_row(row)]
        if figures:
            return figures
    return []


def _of_row(row: Mapping[str, str]) -> Iterator[Figure]:
    shots = int(row["shots"]) if row.get("shots", "").isdecimal() else None
    for column, metric in _COLUMNS.items():
        # 0.146(11), the error of the last digits; or 0.146 (0.129), Geant4's own value
        number = re.match(r"(-?\d+(\.\d+)?)(\s*\(|$)", row.get(column, ""))
        if number:
            yield Figure(metric, float(number[1]), row["generator"], row.get("task", ""), "README.md", shots)


def _tables(text: str) -> Iterator[list[dict[str, str]]]:
    """Each table of a Markdown text, as rows of column to cell."""
    cells: list[list[str]] = []
    for kind, content in _cells(MarkdownIt("commonmark").enable("table").parse(text)):
        if kind == "tr_open":
            cells.append([])
        elif kind == "inline":
            cells[-1].append(content)
        elif cells:
            header, *rows = cells
            yield [dict(zip(header, row, strict=False)) for row in rows]
            cells = []


def _cells(tokens: Sequence[Token]) -> Iterator[tuple[str, str]]:
    inside = False
    for token in tokens:
        inside = token.type == "table_open" or (inside and token.type != "table_close")
        if token.type == "table_close" or (inside and token.type in ("tr_open", "inline")):
            yield token.type, token.content
