"""The stack as Geant4's volumes: sheets in a tree, so that a step looks at few neighbours. Runs in workers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from metacalo.simulate.job import Job, Role, Substance

__all__ = ["Span", "branches", "construction", "material", "spans"]

BRANCHING = 4
SAME_DENSITY = 5e-3
SAME_FRACTION = 1e-2


class Span(NamedTuple):
    """A sheet with its place: from `low` to `high` in mm of radius, or of x in a planar stack."""

    low: float
    high: float
    material: str
    role: Role


def spans(job: Job) -> list[Span]:
    """All sheets with their places; the first one behind the plates in front begins at `job.inner_radius_mm`."""
    place = job.inner_radius_mm - math.fsum(sheet.thickness_mm for sheet in job.sheets if sheet.role == "front")
    found = []
    for sheet in job.sheets:
        found.append(Span(place, place + sheet.thickness_mm, sheet.material, sheet.role))
        place += sheet.thickness_mm
    return found


def branches(sheets: Sequence[Span]) -> list[Sequence[Span]]:
    """Consecutive parts, at most `BRANCHING`, in whose envelopes the sheets are placed."""
    step = 1
    while step * BRANCHING < len(sheets):
        step *= BRANCHING
    return [sheets[start : start + step] for start in range(0, len(sheets), step)]


def material(g4: Any, name: str, substance: Substance) -> Any:
    """Geant4's own material where it has the density and elements of `substance`, else one made of them."""
    nist = g4.G4NistManager.Instance()
    own = nist.FindOrBuildMaterial(substance.nist) if substance.nist else None
    if own is not None and _is(g4, own, substance):
        return own
    made = g4.G4Material(f"metacalo_{name}", substance.density_g_cm3 * g4.g / g4.cm3, len(substance.composition))
    for symbol, fraction in substance.composition.items():
        made.AddElementByMassFraction(nist.FindOrBuildElement(symbol), fraction)
    return made


def _is(g4: Any, own: Any, substance: Substance) -> bool:
    if abs(own.GetDensity() / (substance.density_g_cm3 * g4.g / g4.cm3) - 1) > SAME_DENSITY:
        return False
    fractions = {own.GetElement(i).GetSymbol(): own.GetFractionVector()[i] for i in range(own.GetNumberOfElements())}
    symbols = {*fractions, *substance.composition}
    return all(abs(fractions.get(s, 0.0) - substance.composition.get(s, 0.0)) < SAME_FRACTION for s in symbols)


def construction(g4: Any, job: Job, detectors: Mapping[Role, Callable[[], Any]]) -> Any:
    """The detector construction that a run manager is given.

    Args:
        g4: the module geant4_pybind.
        job: the setup.
        detectors: what makes the sensitive detector of the sheets of a role.
    """

    class Stack(g4.G4VUserDetectorConstruction):
        def __init__(self) -> None:
            super().__init__()
            self.alive: list[Any] = []  # Geant4 holds bare pointers to what Python made
            self.sheets: dict[Role, list[Any]] = {"active": [], "passive": [], "front": []}
            self.made: dict[str, Any] = {}

        def Construct(self) -> Any:  # noqa: N802
            self.made = {name: material(g4, name, substance) for name, substance in job.substances.items()}
            self.vacuum = g4.G4NistManager.Instance().FindOrBuildMaterial("G4_Galactic")
            sheets = spans(job)
            size = 1.1 * math.hypot(sheets[-1].high, job.length_mm)
            box = g4.G4Box("world", size, size, size)
            world = g4.G4LogicalVolume(box, self.vacuum, "world")
            placed = g4.G4PVPlacement(None, g4.G4ThreeVector(), world, "world", None, False, 0, False)
            self.alive += [box, world, placed]
            whole, _ = self.volume(sheets[0].low, sheets[-1].high, self.vacuum, world, 0.0)
            self.grow(whole, (sheets[0].low + sheets[-1].high) / 2, sheets)
            return placed

        def volume(self, low: float, high: float, of: Any, mother: Any, centre: float) -> tuple[Any, float]:
            """A sheet or envelope in its mother, whose middle is at `centre`; with its own middle."""
            middle, half = (low + high) / 2, job.length_mm / 2
            if job.shape == "barrel":
                solid, place = g4.G4Tubs("sheet", low, high, half, 0.0, 2 * math.pi), g4.G4ThreeVector()
            else:
                solid = g4.G4Box("sheet", (high - low) / 2, half, half)
                place = g4.G4ThreeVector(middle - centre, 0.0, 0.0)
            logical = g4.G4LogicalVolume(solid, of, "sheet")
            placed = g4.G4PVPlacement(None, place, logical, "sheet", mother, False, 0, False)
            self.alive += [solid, logical, placed]
            return logical, middle

        def grow(self, mother: Any, centre: float, sheets: Sequence[Span]) -> None:
            for part in branches(sheets):
                leaf = len(part) == 1
                of = self.made[part[0].material] if leaf else self.vacuum
                logical, middle = self.volume(part[0].low, part[-1].high, of, mother, centre)
                if leaf:
                    self.sheets[part[0].role].append(logical)
                else:
                    self.grow(logical, middle, part)

        def ConstructSDandField(self) -> None:  # noqa: N802
            for role, make in detectors.items():
                if not self.sheets[role]:
                    continue
                detector = make()
                self.alive.append(detector)
                g4.G4SDManager.GetSDMpointer().AddNewDetector(detector)
                for logical in self.sheets[role]:
                    self.SetSensitiveDetector(logical, detector)

    return Stack()
