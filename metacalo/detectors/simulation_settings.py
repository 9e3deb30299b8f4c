"""What a detector.toml holds for a simulation: where the stack stands, what is shot at it, and by which physics."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from metacalo.config import Settings
from metacalo.detectors.ranges import parse_angles, parse_range

__all__ = ["BeamSettings", "GeometrySettings", "PhysicsSettings", "PlateSettings"]

HIGHEST_GEV = 1e4  # the tables of the standard physics are made up to there

Particle = Literal["e-", "e+", "gamma", "pi-", "pi+", "proton", "neutron"]


class PlateSettings(Settings):
    """One `[[geometry.front]]` entry: dead material before the calorimeter, such as a cryostat's wall or an air gap."""

    material: str
    thickness_mm: float = Field(gt=0, allow_inf_nan=False)


class GeometrySettings(Settings):
    """The `[geometry]` table: where the stack stands. The particle starts at the origin, in vacuum.

    Attributes:
        shape: `barrel` is concentric cylinders around z; `planar` is flat sheets across x, met at phi = 0.
        inner_radius_mm: from the origin to the first layer; of a planar stack the distance of its face.
        length_mm: of the cylinders along z, or the edges of the sheets; by default 4 m, or what the angles ask for.
        front: plates before the first layer, in the order the particle meets them; the last touches it.
    """

    shape: Literal["barrel", "planar"] = "barrel"
    inner_radius_mm: float = Field(default=800.0, gt=0, allow_inf_nan=False)
    length_mm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    front: tuple[PlateSettings, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> GeometrySettings:
        thickness = sum(plate.thickness_mm for plate in self.front)
        if thickness >= self.inner_radius_mm:
            message = (
                f"the plates in front are {thickness:g} mm thick and overlap the origin, where the particle starts; "
                f"give them less than inner_radius_mm = {self.inner_radius_mm:g}"
            )
            raise ValueError(message)
        return self


class BeamSettings(Settings):
    """The `[beam]` table: what is shot at the stack.

    Attributes:
        particle: Geant4's name of it; hadrons need hadronic physics.
        energy_GeV: one energy, several to draw from, or a range `"1:100"`.
        spectral_index: dN/dE ~ E^-index within a range: 1 is log-uniform, 0 uniform.
        theta: polar angle in rad, one or a range drawn from uniformly; pi/2 is normal to the layers.
        phi: azimuth in rad, likewise; by default all of it in a barrel, 0 on a planar stack.
    """

    particle: Particle = "e-"
    energy_GeV: float | str | tuple[float, ...] = "1:100"  # noqa: N815
    spectral_index: float = Field(default=1.0, allow_inf_nan=False)
    theta: float | str = "0.87:2.27"
    phi: float | str | None = None

    @field_validator("energy_GeV")
    @classmethod
    def _energies(cls, value: float | str | tuple[float, ...]) -> float | str | tuple[float, ...]:
        values = value if isinstance(value, tuple) else parse_range(str(value))
        if not values or not 0 < min(values) <= max(values) <= HIGHEST_GEV:
            message = f"energies must lie above 0 and up to {HIGHEST_GEV:g} GeV"
            raise ValueError(message)
        return value

    @field_validator("theta")
    @classmethod
    def _theta(cls, value: float | str) -> float | str:
        low, high = parse_range(str(value))
        if not 0 < low <= high < math.pi:
            message = "theta must lie between 0 and pi rad, neither included (degrees?)"
            raise ValueError(message)
        return value

    @field_validator("phi")
    @classmethod
    def _phi(cls, value: float | str | None) -> float | str | None:
        if value is not None:
            parse_angles("phi", str(value))
        return value

    @property
    def energies_GeV(self) -> tuple[float, ...]:  # noqa: N802
        """The values to draw from; empty where a range was given."""
        if isinstance(self.energy_GeV, tuple):
            return self.energy_GeV
        low, high = parse_range(str(self.energy_GeV))
        return (low,) if low == high else ()

    @property
    def theta_range(self) -> tuple[float, float]:
        """Least and greatest theta in rad."""
        return parse_range(str(self.theta))


class PhysicsSettings(Settings):
    """The `[physics]` table.

    Attributes:
        constructor: a physics constructor of Geant4, or one of its reference physics lists.
        production_cut_mm: range below which no secondary electron, positron or photon is made.
        threshold_MeV: cells with less are empty, after division by the sampling fraction (CaloChallenge: 15.15 keV).
    """

    constructor: str = Field(default="G4EmStandardPhysics", pattern=r"^[A-Za-z0-9_]+$")
    production_cut_mm: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    threshold_MeV: float = Field(default=0.01515, ge=0, allow_inf_nan=False)  # noqa: N815
