"""From a detector.toml to a job: the stack laid out, its mesh within it, and the particle's way into it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metacalo.detectors.detector import Detector
from metacalo.detectors.geant4_names import nist_name
from metacalo.detectors.materials import Material
from metacalo.detectors.simulation_settings import BeamSettings, GeometrySettings, PhysicsSettings
from metacalo.detectors.stack import DetectorSettings, Layer
from metacalo.errors import ConfigError, DetectorError
from metacalo.simulate.job import Job, Role, Sheet, Substance

__all__ = ["Prepared", "prepare", "prepared"]

PAR04_LENGTH_MM = 4000.0
HADRONS = ("pi-", "pi+", "proton", "neutron")


@dataclass(frozen=True)
class Prepared:
    """A detector with what is simulated of it."""

    detector: Detector
    job: Job
    geometry: GeometrySettings
    beam: BeamSettings
    physics: PhysicsSettings


def prepare(path: str | Path, *, beam: dict[str, Any] | None = None, physics: str | None = None) -> Prepared:
    """Reads a detector.toml and lays its stack out.

    Args:
        path: the file.
        beam: settings of `[beam]` that win over the file's, where not None.
        physics: likewise of `[physics] constructor`.

    Raises:
        DetectorError: the file cannot be read or its detector not be built: see `prepared`.
        ConfigError: a setting of `beam` or `physics` is not allowed.
    """
    path = Path(path)
    settings = DetectorSettings.read(path)
    given = {key: value for key, value in (beam or {}).items() if value is not None}
    shot_at = BeamSettings.build({**settings.beam.model_dump(), **given}, "beam")
    by = settings.physics.model_dump() | ({"constructor": physics} if physics else {})
    try:
        front = settings.front()
    except DetectorError as error:
        raise DetectorError(f"{path}: {error}") from None
    detector = Detector.from_toml(path)
    made = PhysicsSettings.build(by, "physics")
    try:
        return prepared(detector, settings.geometry, shot_at, made, front)
    except (DetectorError, ConfigError) as error:
        raise type(error)(f"{path}: {error}") from None


def prepared(
    detector: Detector,
    geometry: GeometrySettings,
    beam: BeamSettings,
    physics: PhysicsSettings,
    front: tuple[Layer, ...] = (),
) -> Prepared:
    """The job of a detector.

    Raises:
        DetectorError: the mesh is deeper than the stack, or the particle does not meet it.
        ConfigError: the physics does not go with the particle.
    """
    if beam.particle in HADRONS and physics.constructor.startswith("G4Em"):
        raise ConfigError(
            f"a {beam.particle} needs hadronic physics, and {physics.constructor} is electromagnetic; "
            "give --physics FTFP_BERT"
        )
    _require_depth(detector)
    length = _length(detector, geometry, beam)
    period = [(layer, _role(layer)) for layer in detector.layers]
    stack: list[tuple[Layer, Role]] = [*((plate, "front") for plate in front), *(period * detector.n_layers)]
    names = _names([layer.material for layer, _ in stack])
    job = Job(
        shape=geometry.shape,
        inner_radius_mm=geometry.inner_radius_mm,
        length_mm=length,
        sheets=tuple(Sheet(names[layer.material], layer.thickness_mm, role) for layer, role in stack),
        substances={
            name: Substance(nist_name(material), material.density_g_cm3, dict(material.composition))
            for material, name in names.items()
        },
        n_r=detector.grid.n_r,
        n_phi=detector.grid.n_phi,
        n_z=detector.grid.n_z,
        dr_mm=detector.grid.dr_mm,
        dz_mm=detector.grid.dz_mm,
        particle=beam.particle,
        physics=physics.constructor,
        production_cut_mm=physics.production_cut_mm,
    )
    return Prepared(detector, job, geometry, beam, physics)


def _role(layer: Layer) -> Role:
    return "active" if layer.active else "passive"


def _names(materials: list[Material]) -> dict[Material, str]:
    """A name for each material: its own, numbered where two different ones share it."""
    names: dict[Material, str] = {}
    for material in materials:
        if material not in names:
            taken = list(names.values())
            names[material] = f"{material.name}_{len(taken)}" if material.name in taken else material.name
    return names


def _require_depth(detector: Detector) -> None:
    stack, mesh = detector.n_layers * detector.period_mm, detector.grid.n_z * detector.grid.dz_mm
    if mesh > stack * (1 + 1e-6):
        fitting = math.ceil(mesh / detector.period_mm - 1e-6)
        cells = max(1, int(stack / detector.grid.dz_mm + 1e-6))
        raise DetectorError(
            f"the mesh is {mesh:.4g} mm deep ({detector.grid.n_z} cells of {detector.grid.dz_mm:.4g} mm) and the stack "
            f"{stack:.4g} mm; give n_layers = {fitting}, or leave it out, or grid.n_z = {cells}"
        )


def _length(detector: Detector, geometry: GeometrySettings, beam: BeamSettings) -> float:
    """Length of the cylinders, or edge of the sheets, in mm."""
    if geometry.shape == "planar" and beam.phi not in {None, 0, "0"}:
        raise DetectorError(f"beam.phi = {beam.phi}: a planar stack is met at phi = 0; turn the particle by theta")
    theta = min(beam.theta_range, key=lambda angle: math.sin(angle))
    sine, cosine = math.sin(theta), abs(math.cos(theta))
    entrance = geometry.inner_radius_mm * cosine / sine
    end = entrance + detector.grid.n_z * detector.grid.dz_mm * cosine
    if geometry.length_mm is None:
        return max(PAR04_LENGTH_MM, 2 * (end + 10 * detector.R_M_mm))
    if 2 * entrance >= geometry.length_mm:
        raise DetectorError(
            f"geometry.length_mm = {geometry.length_mm:g}: a particle at theta = {theta:.4g} rad passes the end, "
            f"{entrance:.4g} mm from the middle; give more than {2 * end:.0f} mm, or angles nearer to pi/2"
        )
    return geometry.length_mm
