"""How each convention lays showers out in an HDF5 file: what `metacalo.showers.conventions` reads, written.

A dataset is made when its first rows come, and grows with those that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from metacalo.detectors.grid import Grid
from metacalo.errors import OutputError
from metacalo.showers.conventions import Convention, flatten_calochallenge, hgcal_angle
from metacalo.showers.shower_file import Showers

__all__ = ["DETECTOR_ATTRIBUTES", "LAYOUTS", "LAYOUT_ATTRIBUTES", "layout_attributes"]

CHUNK: Final = 64  # showers

LAYOUT_ATTRIBUTES: Final = ("axes", "units", "n_r", "n_phi", "n_z", "dr_mm", "dz_mm")
"""Attributes that describe the layout and the mesh, and nothing of where the showers come from."""

DETECTOR_ATTRIBUTES: Final = (
    "detector",
    "layers",
    "absorber_material",
    "absorber_thickness_mm",
    "active_material",
    "active_thickness_mm",
    "n_layers",
    "X0_mm",
    "R_M_mm",
    "E_c_MeV",
    "sampling_fraction",
)
"""Attributes that `Detector.to_attributes` may write, but for cell sizes."""


def layout_attributes(grid: Grid, convention: Convention) -> dict[str, Any]:
    """Attributes with axes, units and mesh."""
    flat = convention == "calochallenge"
    attributes: dict[str, Any] = {
        "axes": "showers[event, (z, phi, r)]" if flat else "showers[event, r, phi, z]",
        "units": "MeV, rad, mm",
        **{name: value for name, value in (("dr_mm", grid.dr_mm), ("dz_mm", grid.dz_mm)) if np.isfinite(value)},
    }
    return attributes | ({"n_r": grid.n_r, "n_phi": grid.n_phi, "n_z": grid.n_z} if flat else {})


def append_par04(file: h5py.File, batch: Showers, path: Path) -> None:
    """`showers` (N, R, PHI, Z), `incident_energy`, `incident_theta` and `incident_phi` (N,)."""
    _extend(file, "showers", batch.showers, "MeV")
    _extend(file, "incident_energy", batch.energy, "MeV")
    _extend_angles(file, batch)


def append_calochallenge(file: h5py.File, batch: Showers, path: Path) -> None:
    """`showers` (N, Z * PHI * R) and `incident_energies` (N, 1); the angles beside, which others do not read."""
    _extend(file, "showers", flatten_calochallenge(batch.showers), "MeV")
    _extend(file, "incident_energies", np.asarray(batch.energy)[:, None], "MeV")
    _extend_angles(file, batch)


def append_hgcal(file: h5py.File, batch: Showers, path: Path) -> None:
    """One dataset (N, R, PHI, Z) per energy, named in GeV; the angle is in the name of `path`.

    Raises:
        OutputError: energies are not round numbers of GeV, or angles are not that of the name and phi = 0.
    """
    _check_hgcal_angles(batch, path)
    for energy in np.unique(np.asarray(batch.energy, np.float32)):
        name = f"{energy / 1000:.4g}"
        if np.float32(1000 * float(name)) != energy:
            raise OutputError(
                f"{path}: an incident energy is {energy / 1000:.7g} GeV, and hgcal has one dataset per round energy "
                "(1, 2, 4, ... 1024 GeV); convert to par04 or calochallenge"
            )
        _extend(file, name, np.asarray(batch.showers)[np.asarray(batch.energy, np.float32) == energy], "MeV")


def _check_hgcal_angles(batch: Showers, path: Path) -> None:
    degrees = np.degrees(np.asarray(batch.theta, np.float64))
    named = hgcal_angle(path)
    wrong = np.abs(degrees - named) > 1e-3
    if wrong.any():
        found = degrees[wrong][0]
        one = len(np.unique(np.asarray(batch.theta, np.float32))) == 1
        mend = f"call it {path.stem}_angle_{found:.6g}.h5" if one and named == 90 else "convert to par04"
        raise OutputError(
            f"{path}: a shower has theta = {found:.6g} degrees, and hgcal keeps one angle per file, in its name "
            f"({named:g} here); {mend}"
        )
    turned = np.abs(np.asarray(batch.phi)) > 1e-6
    if turned.any():
        raise OutputError(
            f"{path}: a shower has phi = {np.asarray(batch.phi)[turned][0]:.4g} rad, which hgcal cannot keep; "
            "convert to par04"
        )


def _extend_angles(file: h5py.File, batch: Showers) -> None:
    _extend(file, "incident_theta", batch.theta, "rad")
    _extend(file, "incident_phi", batch.phi, "rad")


def _extend(file: h5py.File, name: str, values: np.ndarray, units: str) -> None:
    values = np.asarray(values, np.float32)
    if name not in file:
        shape = values.shape[1:]
        options = {"maxshape": (None, *shape), "chunks": (CHUNK, *shape), "compression": "gzip", "shuffle": True}
        file.create_dataset(name, shape=(0, *shape), dtype="<f4", **options).attrs["units"] = units
    dataset = file[name]
    count = len(dataset)
    dataset.resize(count + len(values), axis=0)
    dataset[count:] = values


LAYOUTS: Final[dict[Convention, Callable[[h5py.File, Showers, Path], None]]] = {
    "par04": append_par04,
    "calochallenge": append_calochallenge,
    "hgcal": append_hgcal,
}
"""What appends a batch to an open file; the path is the one that the file will have."""
