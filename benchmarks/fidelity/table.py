"""The fidelity tables as Markdown, made of what `benchmarks.fidelity` measured.

A cell is a value with its error in brackets, in units of the last digit: 0.123(4) is 0.123 +- 0.004. Rows of several
seeds are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from math import hypot
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.fidelity.figures import DECADES, Entry, averaged
from benchmarks.fidelity.row import FROZEN
from metacalo.evaluate.ladder import CORRELATIONS, LADDER_OBSERVABLES
from metacalo.evaluate.rounding import quoted

__all__ = ["markdown"]

Row = Mapping[str, Any]
Cells = list[str]
GEANT4 = "Geant4"


class Column(NamedTuple):
    """A column of figures: its title, the name of the figure, a factor (100 for per cent), and which value is best.

    A distance is best where it is `least`; other figures where they are `like` Geant4's.
    """

    title: str
    figure: str
    factor: float = 1.0
    best: Literal["least", "like", "most"] = "least"


MAIN = (
    Column("mean W1", "mean_w1"),
    Column("FPD", "fpd"),
    Column("KPD", "kpd"),
    Column("AUC voxels", "low_level_auc"),
    Column("AUC observables", "high_level_auc"),
    Column("layer correlations", "layer_correlation"),
    Column("E_total/E_inc", "response_mean", best="like"),
    Column("its width", "response_width", best="like"),
)
SHAPES = (
    Column("longitudinal profile off, %", "longitudinal_profile", 100),
    Column("lateral profile off, %", "lateral_profile", 100),
    Column("occupancy of layers off, %", "layer_occupancy", 100),
    Column("voxel spectrum off, %", "voxel_spectrum", 100),
)
DIVERSITY = (
    Column("nearest other, over Geant4's", "nearest", best="like"),
    Column("near a shot, %", "copies_share", 100),
    Column("as near to an unseen one, %", "copies_control", 100),
    Column("distance to shots, over to unseen", "copies_ratio"),
)
COUNTS = ("showers", "distinct", "effective")
COUNTED = ("of showers", "distinct", "effective number", "of showers", "distinct", "effective number")
FIXED = (
    Column("E_total/E_inc", "response_mean"),
    Column("off, %", "mean_difference", 100),
    Column("its width", "response_width"),
    Column("over Geant4's", "width_ratio"),
)


def markdown(result: Row, level: int = 1) -> list[str]:
    """The lines of table.md, under a heading of that level."""
    lines = [f"{'#' * level} Fidelity", "", f"    {result['command']}", "", *_preface(result)]
    for title, table in _tables(result):
        lines += ["", f"{'#' * (level + 1)} {title}", "", *table]
    return lines


def _tables(result: Row) -> list[tuple[str, list[str]]]:
    """Title and lines of every table that there are figures for."""
    groups = _groups(result)
    if not groups:
        return []
    first = groups[0].rows[0][0]
    energies = [f"{edge / 1e3:.3g}" for edge in first["metrics"]["response_by_energy"]["edges"]]
    decades = [f"{10.0**low:g} - {10.0**high:g}" for low, high in pairwise(DECADES)]
    per_group = [Column(name[3:].replace("_", " "), name) for name in first["figures"] if name.startswith("w1 ")]
    per_energy = [
        Column(f"{title}{low} - {high}", f"response_{name} {index}")
        for name, title in (("mean", ""), ("width", "width "))
        for index, (low, high) in enumerate(pairwise(energies))
    ]
    per_decade = [Column(f"{decade}, %", f"voxels {index}", 100) for index, decade in enumerate(decades)]
    found = [
        ("Distances and classifiers", _table(groups, MAIN, ("adaptation, s", "ms/shower"), _seconds(result))),
        ("Against the frozen library of the same shots", _against_frozen(groups)),
        ("Diversity and copies", _table(groups, DIVERSITY, COUNTED, _distinct)),
        ("Shapes", _table(groups, SHAPES)),
        ("Mean W1 by group of observables", _table(groups, per_group)),
        ("Voxels per decade of energy (MeV): number against Geant4", _table(groups, per_decade)),
        ("E_total/E_inc by incident energy (GeV)", _table(groups, per_energy)),
        ("E_total/E_inc at fixed energies", _fixed(groups)),
        ("Fixed energies and angles: mean shift in Geant4's spreads / ratio of widths", _ladder(result, groups)),
    ]
    return [(title, lines) for title, lines in found if lines]


class Group(NamedTuple):
    """Rows of one task and number of shots, with the label of each; the seeds of a row stand together."""

    task: str
    shots: int
    labels: list[str]
    rows: list[list[Row]]


def _groups(result: Row) -> list[Group]:
    """The rows in the order in which they were asked for; what is only in the file comes last."""
    rows = list(result["rows"].values())
    wanted = {name: list(dict.fromkeys(row[name] for row in rows)) for name in ("task", "label")}
    order = {name: {value: index for index, value in enumerate(values)} for name, values in wanted.items()}
    rows.sort(key=lambda row: (order["task"][row["task"]], row["shots"], order["label"][row["label"]], row["seed"]))
    found = []
    for (task, shots), group in groupby(rows, key=itemgetter("task", "shots")):
        by_label = {label: list(parts) for label, parts in groupby(group, key=itemgetter("label"))}
        found.append(Group(task, shots, list(by_label), list(by_label.values())))
    return found


def _head(group: Group, rows: Sequence[Row]) -> Cells:
    """Task and shots, and whether the base of these rows knows the task."""
    known = "in training" if rows[0]["pretrained_on"] else "never seen"
    return [f"{group.task} ({known})", str(group.shots)]


def _table(
    groups: Sequence[Group],
    columns: Sequence[Column],
    more: Sequence[str] = (),
    cells: Callable[[str, Sequence[Row]], Cells] | None = None,
) -> list[str]:
    """One row per generator, and one of Geant4 for each number of generated showers that floors depend on.

    `cells` tells the cells under the titles `more`, of a label and its rows.
    """
    lines = _header(("task", "shots", "generator", "showers"), (*(column.title for column in columns), *more))
    for group in groups:
        floors: dict[int, Cells] = {}
        for label, rows in zip(group.labels, group.rows, strict=True):
            entries = [averaged(row["figures"][column.figure] for row in rows) for column in columns]
            scaled = [_scaled(part, column.factor) for part, column in zip(entries, columns, strict=True)]
            generated, reference = (rows[0]["showers"][name] for name in ("generated", "reference"))
            further = cells(label, rows) if cells else []
            head = [*_head(group, rows), label, f"{generated:,}"]
            lines.append(_line([*head, *(quoted(part["value"], part["error"]) for part in scaled), *further]))
            if generated not in floors:
                further_floor = cells(GEANT4, rows) if cells else []
                name = GEANT4 if not floors else f"{GEANT4}, for {generated:,}"
                head = [*_head(group, group.rows[0]), name, f"{reference:,}"]
                floor_cells = [quoted(part["floor"], part["floor_error"]) for part in scaled]
                floors[generated] = [*head, *floor_cells, *further_floor]
        lines += map(_line, floors.values())
    return lines


def _seconds(result: Row) -> Callable[[str, Sequence[Row]], Cells]:
    def cells(label: str, rows: Sequence[Row]) -> Cells:
        taken = [row["adaptation_seconds"] for row in rows if row["adaptation_seconds"] is not None]
        speed = result["speed"].get(label)
        if label == GEANT4:
            return ["-", "-"]
        return [f"{np.mean(taken):.1f}" if taken else "-", f"{speed['ms']:.2f}" if speed else "-"]

    return cells


def _distinct(label: str, rows: Sequence[Row]) -> Cells:
    which = "floor" if label == GEANT4 else "value"
    found = []
    for many in ("", "many_"):
        parts = [averaged(row["figures"][f"{many}{name}"] for row in rows)[which] for name in COUNTS]
        found += ["-" if part is None else f"{part:,.0f}" for part in parts]
    return found


def _against_frozen(groups: Sequence[Group]) -> list[str]:
    """Where each generator is nearer to Geant4 than the library, by more than the errors, and where not."""
    columns = [*MAIN, *SHAPES, *DIVERSITY[:2], Column("effective number", "effective", best="most")]
    lines = []
    for group in groups:
        if FROZEN not in group.labels:
            continue
        library = group.rows[group.labels.index(FROZEN)]
        for label, rows in zip(group.labels, group.rows, strict=True):
            if label == FROZEN or rows[0]["showers"] != library[0]["showers"]:
                continue
            better, equal, worse = Cells(), Cells(), Cells()
            for column in columns:
                ours, theirs = (averaged(r["figures"][column.figure] for r in part) for part in (rows, library))
                if ours["value"] is None or theirs["value"] is None:
                    continue
                gain = _distance(theirs, column) - _distance(ours, column)
                clear = abs(gain) > hypot(ours["error"] or 0.0, theirs["error"] or 0.0)
                (equal if not clear else better if gain > 0 else worse).append(column.title.removesuffix(", %"))
            listed = (", ".join(part) or "-" for part in (equal, worse))
            n = f"{len(better)} of {len(better) + len(equal) + len(worse)}"
            lines.append(_line([*_head(group, rows), label, n, *listed]))
    titles = ("task", "shots", "generator", "better in", "equal within errors in", "worse in")
    return [*_header(titles, ()), *lines] if lines else []


def _distance(found: Entry, column: Column) -> float:
    value = found["value"] or 0.0
    return {"least": value, "like": abs(value - (found["floor"] or 0.0)), "most": -value}[column.best]


def _fixed(groups: Sequence[Group]) -> list[str]:
    lines = []
    for group in groups:
        for index, first in enumerate(group.rows[0][0]["fixed"]):
            at = f"{first['energy_GeV']:g} GeV" + (" (extrapolation)" if first["extrapolation"] else "")
            for label, rows in zip(group.labels, group.rows, strict=True):
                parts = [averaged(r["fixed"][index]["figures"][c.figure] for r in rows) for c in FIXED]
                cells = [_scaled(part, column.factor) for part, column in zip(parts, FIXED, strict=True)]
                n = f"{rows[0]['fixed'][index]['showers']['generated']:,}"
                lines.append(
                    _line(
                        [*_head(group, rows), at, label, n, *(quoted(cell["value"], cell["error"]) for cell in cells)]
                    )
                )
            theirs = [quoted(cell["floor"], cell["floor_error"]) for cell in cells]
            head = [*_head(group, group.rows[0]), at, GEANT4]
            lines.append(_line([*head, f"{first['showers']['reference']:,}", *theirs]))
    titles = [column.title for column in FIXED]
    return [*_header(("task", "shots", "energy", "generator", "showers"), titles), *lines] if lines else []


def _ladder(result: Row, groups: Sequence[Group]) -> list[str]:
    """A line for each rung and generator; the first seed is shown."""
    if not result.get("ladder"):
        return []
    lines = _header(("task", "shots", "generator", "rung"), ("chi2/ndf", "AUC", *LADDER_OBSERVABLES, *CORRELATIONS))
    for group in groups:
        for label, rows in zip(group.labels, group.rows, strict=True):
            fixed = [rung for at in rows[0]["fixed"] for rung in at["ladder"]]
            for rung in (*rows[0]["metrics"]["ladder"], *fixed):
                auc = rung["auc"]
                cells = [f"{rung['chi2'] / rung['ndf']:.1f}", quoted(auc["value"], auc["error"]) if auc else "-"]
                for name in LADDER_OBSERVABLES:
                    shift, width = rung["shifts"][name], rung["widths"][name]
                    cells.append(" / ".join(quoted(each["value"], each["error"]) for each in (shift, width)))
                cells += [quoted(off["value"], off["error"]) for off in (rung["correlations"][c] for c in CORRELATIONS)]
                lines.append(_line([*_head(group, rows), label, rung["label"], *cells]))
    return lines


def _preface(result: Row) -> list[str]:
    bases = ", ".join(f"{base['name']} (`{base['hash'][:12]}`)" for base in result["bases"].values())
    speeds = list(result["speed"].values())
    lines = [
        f"Base {bases}; seeds {', '.join(map(str, result['seeds']))}. Generated showers have the energies and angles "
        "of unseen Geant4 showers. In brackets the error of the last digits. Rows `Geant4` are the floor: unseen "
        "showers against others, as many as in the rows above, or Geant4's own value. What is `off` is the sum of "
        "differences over the sum of the profile, from showers of the same energies and angles.",
    ]
    if speeds:
        lines[0] += f" Milliseconds a shower at batch {speeds[0]['batch']} on {speeds[0]['where']}."
    warnings = {warning: None for row in result["rows"].values() for warning in row["metrics"]["warnings"]}
    notes = [*result["left_out"], *warnings]
    return lines + (["", *(f"- {note}" for note in notes)] if notes else [])


def _scaled(part: Entry, factor: float) -> Entry:
    return {name: None if value is None else factor * value for name, value in part.items()}


def _header(left: Sequence[str], right: Sequence[str]) -> list[str]:
    return [_line([*left, *right]), "|" + "---|" * len(left) + "---:|" * len(right)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
