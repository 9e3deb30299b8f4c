"""What a worker receives: the setup once, then shower by shower. Plain data, so that a worker starts without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Job", "Role", "Sheet", "Shot", "Substance"]

Role = Literal["active", "passive", "front"]


@dataclass(frozen=True)
class Substance:
    """A material.

    Attributes:
        nist: Geant4's name of it; empty where it has none.
        density_g_cm3, composition: density, and element symbol -> mass fraction.
    """

    nist: str
    density_g_cm3: float
    composition: Mapping[str, float]


@dataclass(frozen=True)
class Sheet:
    """One layer of the whole stack: name of a substance, thickness in mm, and which sum its deposits belong to."""

    material: str
    thickness_mm: float
    role: Role


@dataclass(frozen=True)
class Job:
    """The setup of all showers of a file.

    Attributes:
        shape: `barrel` or `planar`.
        inner_radius_mm: from the origin to the first sheet that is no plate in front.
        length_mm: of the cylinders, or edge of the flat sheets.
        sheets: all of them, from the origin outwards; plates in front end at `inner_radius_mm`.
        substances: by the names that the sheets use.
        n_r, n_phi, n_z, dr_mm, dz_mm: the mesh.
        direct_reads: see `mesh_deposits.recorder`.
        particle, physics, production_cut_mm: see `PhysicsSettings` and `BeamSettings`.
    """

    shape: str
    inner_radius_mm: float
    length_mm: float
    sheets: tuple[Sheet, ...]
    substances: Mapping[str, Substance]
    n_r: int
    n_phi: int
    n_z: int
    dr_mm: float
    dz_mm: float
    particle: str
    physics: str
    production_cut_mm: float
    direct_reads: bool = True

    def to_json(self) -> str:
        """One line, the same for equal jobs."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Job:
        """The job of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        values["sheets"] = tuple(Sheet(**sheet) for sheet in values["sheets"])
        values["substances"] = {name: Substance(**fields) for name, fields in values["substances"].items()}
        return cls(**values)


@dataclass(frozen=True)
class Shot:
    """One shower to simulate: its place in the file, energy in MeV, angles in rad, and Geant4's seed."""

    index: int
    energy: float
    theta: float
    phi: float
    seed: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Shot:
        """The shot of `to_json`."""
        return cls(**json.loads(text))
