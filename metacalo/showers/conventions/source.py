"""Where the showers of a file lie, in a form that is the same for all conventions, and checks that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from math import nan
from typing import Any, Literal

import h5py
import numpy as np

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.detectors.stack import number
from metacalo.errors import DetectorError, MetacaloError, ShowerFileError
from metacalo.showers.hdf5_limits import check_chunks, check_storage, naming_read_errors

__all__ = [
    "Convention",
    "Refuse",
    "Source",
    "angles_of",
    "check_angles",
    "check_energies",
    "column_of",
    "count_of",
    "dataset_of",
    "detector_of",
    "energies_of",
    "grid_of",
    "refuse_at_once",
    "unflatten_calochallenge",
]

Convention = Literal["par04", "calochallenge", "hgcal"]

Refuse = Callable[[MetacaloError], None]
"""What is done about content that cannot be right: raise it, or note it and go on with the values as they are."""


@dataclass(frozen=True)
class Source:
    """Where the showers of a file lie, in a form that is the same for all conventions.

    Attributes:
        convention: which one the file keeps.
        datasets: the shower datasets, in the order of their rows.
        grid: number of cells, and cell sizes where the file says.
        energy: incident energies in MeV, shape (N,), float32.
        theta, phi: incident angles in rad, shape (N,), float32.
        detector: the detector that attributes, or the file name, describe; None where they do not.
        attributes: all attributes, as stored.
        field: of compound rows, the one that holds the showers; None where a row is a shower.
    """

    convention: Convention
    datasets: tuple[h5py.Dataset, ...]
    grid: Grid
    energy: np.ndarray
    theta: np.ndarray
    phi: np.ndarray
    detector: Detector | None
    attributes: Mapping[str, Any] = dataclass_field(default_factory=dict)
    field: str | None = None

    def in_order(self, block: np.ndarray) -> np.ndarray:
        """Turns rows as stored into float32 (n, R, PHI, Z)."""
        with np.errstate(over="ignore"):
            block = block.astype(np.float32, copy=False)
        return unflatten_calochallenge(block, self.grid) if self.convention == "calochallenge" else block


def unflatten_calochallenge(flat: np.ndarray, grid: Grid) -> np.ndarray:
    """(N, Z * PHI * R) with z slowest, then phi, then r -> (N, R, PHI, Z)."""
    return np.ascontiguousarray(flat.reshape(-1, grid.n_z, grid.n_phi, grid.n_r).transpose(0, 3, 2, 1))


def refuse_at_once(error: MetacaloError) -> None:
    """Raises `error`: what readers of showers do about content that cannot be right."""
    raise error


def dataset_of(place: h5py.Group, name: str, where: str) -> h5py.Dataset:
    """The dataset of numbers of that name, inside this very file; raises `ShowerFileError` where it is not."""
    if name not in place:
        near = ", ".join(f"'{other}'" for other in list(place)[:12])
        raise ShowerFileError(f"{where}: dataset '{name}' is missing (found {near}); add it")
    if not isinstance(place.get(name, getlink=True), h5py.HardLink):
        raise ShowerFileError(f"{where}: '{name}' is a link, and links are not followed; copy the data in (h5copy)")
    dataset = place[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ShowerFileError(f"{where}: '{name}' is a group, a dataset was expected")
    if dataset.is_virtual or dataset.external:
        raise ShowerFileError(f"{where}: '{name}' keeps its data in other files; copy it into this one (h5repack)")
    if dataset.dtype.kind not in "fiu":
        raise ShowerFileError(f"{where}: '{name}' has type {dataset.dtype}, numbers (float32) were expected")
    if dataset.shape is None:
        raise ShowerFileError(f"{where}: '{name}' is empty, numbers (float32) were expected")
    check_storage(dataset, where)
    return dataset


def column_of(place: h5py.Group, name: str, count: int, where: str, refuse: Refuse) -> np.ndarray:
    """The float32 (count,) dataset `name`, NaN where there is none and `refuse` returned."""
    try:
        dataset = dataset_of(place, name, where)
        if dataset.shape not in {(count,), (count, 1)}:
            raise ShowerFileError(f"{where}: '{name}' has shape {dataset.shape}, but 'showers' has {count} rows")
        with np.errstate(over="ignore"), naming_read_errors(f"{where}: '{name}'"):
            check_chunks(dataset, 0, count, f"{where}: '{name}'")
            return np.asarray(dataset[()]).reshape(-1).astype(np.float32)
    except ShowerFileError as error:
        refuse(error)
    return np.full(count, nan, np.float32)


def energies_of(place: h5py.Group, name: str, count: int, where: str, refuse: Refuse) -> np.ndarray:
    """The checked incident energies in MeV, float32 (count,)."""
    energy = column_of(place, name, count, where, refuse)
    if name in place:
        check_energies(energy, f"{where}: '{name}'", refuse)
    return energy


def angles_of(place: h5py.Group, axis: str, count: int, where: str, refuse: Refuse) -> np.ndarray:
    """The checked `incident_theta` or `incident_phi` in rad, float32 (count,)."""
    name = f"incident_{axis}"
    angle = column_of(place, name, count, where, refuse)
    if name in place:
        check_angles(angle, axis, f"{where}: '{name}'", refuse)
    return angle


def check_energies(energy: np.ndarray, what: str, refuse: Refuse = refuse_at_once) -> None:
    """Refuses incident energies (N,) in MeV that are not finite and above 0; `what` names file and field."""
    _check(np.isfinite(energy) & (energy > 0), energy, what, "an energy above 0 MeV", refuse)


def check_angles(angle: np.ndarray, axis: str, what: str, refuse: Refuse = refuse_at_once) -> None:
    """Refuses angles (N,) in rad outside [0, pi] for the axis `theta`, [-2 pi, 2 pi] for `phi`."""
    low, high = (0.0, math.pi) if axis == "theta" else (-2 * math.pi, 2 * math.pi)
    right = (angle >= low - 1e-3) & (angle <= high + 1e-3)
    _check(right, angle, what, f"an angle between {low:.4g} and {high:.4g} rad (degrees?)", refuse)


def _check(right: np.ndarray, values: np.ndarray, what: str, allowed: str, refuse: Refuse) -> None:
    if not right.all():
        row = int(np.argmin(right))
        refuse(ShowerFileError(f"{what} row {row} is {values[row]:g}; {allowed} is needed, mend or drop that row"))


def count_of(showers: h5py.Dataset, where: str) -> int:
    """The number of rows, at least one."""
    if showers.shape[0] == 0:
        raise ShowerFileError(f"{where}: '{showers.name.rpartition('/')[2]}' holds no showers; at least one is needed")
    return int(showers.shape[0])


def grid_of(shape: Sequence[int], attributes: Mapping[str, Any], where: str) -> Grid:
    """The mesh of showers of that shape (R, PHI, Z), with cell sizes where attributes state them."""
    if min(shape) < 1:
        raise ShowerFileError(f"{where}: showers of shape {tuple(shape)} have no voxels; (R, PHI, Z) was expected")
    try:
        sizes = [number(attributes, key) if key in attributes else nan for key in ("dr_mm", "dz_mm")]
    except DetectorError as error:
        raise ShowerFileError(f"{where}: {error}; correct it") from None
    return Grid(*(int(cells) for cells in shape), *sizes)


def detector_of(attributes: Mapping[str, Any], grid: Grid, name: str, where: str, refuse: Refuse) -> Detector | None:
    """The detector that attributes describe; None where they do not, or cannot be and `refuse` returned."""
    try:
        return Detector.from_attributes(attributes, grid, name)
    except DetectorError as error:
        refuse(DetectorError(f"{where}: {error}"))
        return None
