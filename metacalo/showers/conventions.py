"""The conventions that shower files keep, recognised by what a file holds; the user is never asked.

    par04           showers (N, R, PHI, Z) MeV; incident_energy (N,) MeV; incident_theta, incident_phi (N,) rad
    calochallenge   showers (N, Z * PHI * R): z slowest, then phi, then r; incident_energies (N, 1) MeV; no angles
    hgcal           one dataset per energy, its name the energy in GeV, (N, R, PHI, Z) MeV; angle in the file name

Sources: Par04 and LEMURS (geant4-fastsim), CaloChallenge datasets 2 and 3 (arXiv 2410.21611), HGCal showers
(zenodo 6082201).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.detectors.stack import number
from metacalo.errors import MALFORMED, DetectorError, MetacaloError, ShowerFileError
from metacalo.showers.hdf5_limits import (
    MOST_ROWS,
    check_chunks,
    check_storage,
    is_own_group,
    naming_read_errors,
    read_attributes,
)

__all__ = [
    "Convention",
    "Refuse",
    "Source",
    "check_angles",
    "check_energies",
    "flatten_calochallenge",
    "hgcal_angle",
    "recognise",
    "refuse_at_once",
    "unflatten_calochallenge",
]

Convention = Literal["par04", "calochallenge", "hgcal"]

Refuse = Callable[[MetacaloError], None]
"""What is done about content that cannot be right: raise it, or note it and go on with the values as they are."""

_LEAST_GEV, _MOST_GEV = 1e-6, 1e9  # that the name of a dataset may hold
CALOCHALLENGE_GRIDS = {6480: (9, 16, 45), 40500: (18, 50, 45)}
CALOCHALLENGE_CELLS = {6480: (4.65, 3.4), 40500: (2.325, 3.4)}  # dr, dz in mm
CALOCHALLENGE_1 = {368: "photons", 533: "pions"}
EXPECTED = (
    "expected 'showers' with 'incident_energy', 'incident_theta' and 'incident_phi' (Par04), "
    "'showers' with 'incident_energies' (CaloChallenge), or one dataset per energy named in GeV (HGCal)"
)


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
    """

    convention: Convention
    datasets: tuple[h5py.Dataset, ...]
    grid: Grid
    energy: np.ndarray
    theta: np.ndarray
    phi: np.ndarray
    detector: Detector | None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def in_order(self, block: np.ndarray) -> np.ndarray:
        """Turns rows as stored into float32 (n, R, PHI, Z)."""
        with np.errstate(over="ignore"):
            block = block.astype(np.float32, copy=False)
        return unflatten_calochallenge(block, self.grid) if self.convention == "calochallenge" else block


def unflatten_calochallenge(flat: np.ndarray, grid: Grid) -> np.ndarray:
    """(N, Z * PHI * R) with z slowest, then phi, then r -> (N, R, PHI, Z)."""
    return np.ascontiguousarray(flat.reshape(-1, grid.n_z, grid.n_phi, grid.n_r).transpose(0, 3, 2, 1))


def flatten_calochallenge(showers: np.ndarray) -> np.ndarray:
    """(N, R, PHI, Z) -> (N, Z * PHI * R) with z slowest, then phi, then r."""
    return showers.transpose(0, 3, 2, 1).reshape(len(showers), -1)


def refuse_at_once(error: MetacaloError) -> None:
    """Raises `error`: what readers of showers do about content that cannot be right."""
    raise error


def recognise(
    place: h5py.Group, path: Path, refuse: Refuse = refuse_at_once, mesh: tuple[int, int, int] | None = None
) -> Source:
    """Finds the convention of `place` (the file's root, or one of its groups) and checks all but the showers.

    `mesh` is the number of cells (r, phi, z) that the caller states, for files that do not: it wins over the mesh that
    the number of voxels suggests.

    With a `refuse` that returns, values that cannot be right are kept as they are, NaN stands for those of a dataset
    that is missing, and a detector that cannot be is None.

    Raises:
        ShowerFileError: no convention fits, a dataset is missing or of the wrong shape or type, or an energy or an
            angle cannot be right.
        DetectorError: attributes describe a detector that cannot be.
    """
    names = list(place)
    where = str(path) if place.name == "/" else f"{path}, group '{place.name.strip('/')}'"
    if "showers" in names:
        showers = _dataset(place, "showers", where)
        if showers.ndim == 4:
            return _par04(place, showers, path, where, refuse)
        if showers.ndim == 2:
            return _calochallenge(place, showers, path, where, refuse, mesh)
        raise ShowerFileError(
            f"{where}: 'showers' has shape {showers.shape}; (N, R, PHI, Z) or, flat, (N, Z * PHI * R) was expected"
        )
    if names and all(_as_number(name) is not None for name in names):
        return _hgcal(place, path, where, refuse)
    if place.name == "/" and (groups := [name for name in names if is_own_group(place, name)]):
        listed = ", ".join(groups[:40])
        raise ShowerFileError(
            f"{where}: holds no showers of its own but groups; choose one with group= (--group): {listed}"
        )
    found = ", ".join(f"'{name}'" for name in names[:12]) or "nothing"
    raise ShowerFileError(f"{where}: not a shower file: found {found}; {EXPECTED}")


def _dataset(place: h5py.Group, name: str, where: str) -> h5py.Dataset:
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


def _column(place: h5py.Group, name: str, count: int, where: str, refuse: Refuse) -> np.ndarray:
    """The float32 (count,) dataset `name`, NaN where there is none and `refuse` returned."""
    try:
        dataset = _dataset(place, name, where)
        if dataset.shape not in {(count,), (count, 1)}:
            raise ShowerFileError(f"{where}: '{name}' has shape {dataset.shape}, but 'showers' has {count} rows")
        with np.errstate(over="ignore"), naming_read_errors(f"{where}: '{name}'"):
            check_chunks(dataset, 0, count, f"{where}: '{name}'")
            return np.asarray(dataset[()]).reshape(-1).astype(np.float32)
    except ShowerFileError as error:
        refuse(error)
    return np.full(count, nan, np.float32)


def _energies(place: h5py.Group, name: str, count: int, where: str, refuse: Refuse) -> np.ndarray:
    energy = _column(place, name, count, where, refuse)
    if name in place:
        check_energies(energy, f"{where}: '{name}'", refuse)
    return energy


def _angles(place: h5py.Group, axis: str, count: int, where: str, refuse: Refuse) -> np.ndarray:
    name = f"incident_{axis}"
    angle = _column(place, name, count, where, refuse)
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


def _count(showers: h5py.Dataset, where: str) -> int:
    if showers.shape[0] == 0:
        raise ShowerFileError(f"{where}: '{showers.name.rpartition('/')[2]}' holds no showers; at least one is needed")
    return int(showers.shape[0])


def _grid(shape: Sequence[int], attributes: Mapping[str, Any], where: str) -> Grid:
    if min(shape) < 1:
        raise ShowerFileError(f"{where}: showers of shape {tuple(shape)} have no voxels; (R, PHI, Z) was expected")
    try:
        sizes = [number(attributes, key) if key in attributes else nan for key in ("dr_mm", "dz_mm")]
    except DetectorError as error:
        raise ShowerFileError(f"{where}: {error}; correct it") from None
    return Grid(*(int(cells) for cells in shape), *sizes)


def _described(attributes: Mapping[str, Any], grid: Grid, name: str, where: str, refuse: Refuse) -> Detector | None:
    try:
        return Detector.from_attributes(attributes, grid, name)
    except DetectorError as error:
        refuse(DetectorError(f"{where}: {error}"))
        return None


def _par04(place: h5py.Group, showers: h5py.Dataset, path: Path, where: str, refuse: Refuse) -> Source:
    count = _count(showers, where)
    energy = _energies(place, "incident_energy", count, where, refuse)
    theta, phi = (_angles(place, axis, count, where, refuse) for axis in ("theta", "phi"))
    attributes = read_attributes(place, where)
    grid = _grid(showers.shape[1:], attributes, where)
    detector = _described(attributes, grid, place.name.strip("/") or path.stem, where, refuse)
    return Source("par04", (showers,), grid, energy, theta, phi, detector, attributes)


def _calochallenge(
    place: h5py.Group,
    showers: h5py.Dataset,
    path: Path,
    where: str,
    refuse: Refuse,
    mesh: tuple[int, int, int] | None,
) -> Source:
    voxels, attributes = showers.shape[1], read_attributes(place, where)
    try:
        stated_shape = tuple(round(number(attributes, key)) for key in ("n_r", "n_phi", "n_z") if key in attributes)
    except (DetectorError, *MALFORMED) as error:
        raise ShowerFileError(f"{where}: n_r, n_phi, n_z are no numbers of cells ({error}); correct them") from None
    stated = mesh if mesh is not None and math.prod(mesh) == voxels else CALOCHALLENGE_GRIDS.get(voxels, (0, 0, 0))
    shape = stated_shape if len(stated_shape) == 3 else stated
    if voxels in CALOCHALLENGE_1 and math.prod(shape) != voxels:
        raise ShowerFileError(
            f"{where}: {voxels} voxels per row are those of CaloChallenge dataset 1 ({CALOCHALLENGE_1[voxels]}), whose "
            "layers have different rings and angles; only meshes with the same cells in every layer are read"
        )
    if math.prod(shape) != voxels or min(shape) < 0:
        raise ShowerFileError(
            f"{where}: 'showers' has {voxels} voxels per row; 6480 (45 z x 16 phi x 9 r) or "
            "40500 (45 z x 50 phi x 18 r) was expected, or n_r, n_phi, n_z that multiply to it, as attributes or under "
            "[grid] of a --description"
        )
    count = _count(showers, where)
    energy = _energies(place, "incident_energies", count, where, refuse)
    theta, phi = np.full(count, math.pi / 2, np.float32), np.zeros(count, np.float32)
    if "incident_theta" in place and "incident_phi" in place:
        theta, phi = (_angles(place, axis, count, where, refuse) for axis in ("theta", "phi"))
    grid = _grid(shape, attributes, where)
    detector = _described(attributes, grid, place.name.strip("/") or path.stem, where, refuse)
    if detector is None and _has_cells_of_the_challenge(grid):
        # of the challenge's detector: of no other that the caller may describe
        cells = replace(grid, dr_mm=CALOCHALLENGE_CELLS[voxels][0], dz_mm=CALOCHALLENGE_CELLS[voxels][1])
        detector = known_detector("SiW", cells)
    return Source("calochallenge", (showers,), grid, energy, theta, phi, detector, attributes)


def _has_cells_of_the_challenge(grid: Grid) -> bool:
    """Whether the mesh is one of the challenge's, and cell sizes are stated as there or not at all."""
    if CALOCHALLENGE_GRIDS.get(grid.n_voxels) != grid.shape:
        return False
    sizes = zip((grid.dr_mm, grid.dz_mm), CALOCHALLENGE_CELLS[grid.n_voxels], strict=True)
    return all(math.isnan(stated) or math.isclose(stated, its, rel_tol=0.01) for stated, its in sizes)


def hgcal_angle(path: Path) -> float:
    """The angle theta in degrees that a file name such as `SiW_angle_70.h5`, 90 where it has none."""
    match = re.search(r"angle_?(\d+(?:\.\d+)?)", path.stem, flags=re.IGNORECASE)
    return float(match[1]) if match else 90.0


def _hgcal(place: h5py.Group, path: Path, where: str, refuse: Refuse) -> Source:
    datasets = [_dataset(place, name, where) for name in sorted(place, key=float)]
    shapes = {dataset.shape[1:] for dataset in datasets}
    if len(shapes) > 1 or len(next(iter(shapes))) != 3:
        raise ShowerFileError(f"{where}: shapes {sorted(shapes)} of the datasets differ or are not (R, PHI, Z)")
    counts = [_count(dataset, where) for dataset in datasets]
    if sum(counts) > MOST_ROWS:
        raise ShowerFileError(f"{where}: holds {sum(counts):,} showers, at most {MOST_ROWS:,} are read; split the file")
    energies = [1000 * float(dataset.name.rpartition("/")[2]) for dataset in datasets]
    energy = np.repeat(np.array(energies, np.float32), counts)
    degrees = hgcal_angle(path)
    if not 0 < degrees < 180:
        raise ShowerFileError(f"{where}: angle {degrees:g} in the file name is no theta between 0 and 180 degrees")
    theta, phi = np.full(len(energy), np.radians(degrees), np.float32), np.zeros(len(energy), np.float32)
    attributes = read_attributes(place, where)
    grid = _grid(next(iter(shapes)), attributes, where)
    detector = _described(attributes, grid, place.name.strip("/") or path.stem, where, refuse) or known_detector(
        path.stem, grid
    )
    return Source("hgcal", tuple(datasets), grid, energy, theta, phi, detector, attributes)


def _as_number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if _LEAST_GEV <= value <= _MOST_GEV else None


def known_detector(stem: str, grid: Grid) -> Detector | None:
    """The published detector that a file name has as one of its words (SiW, SciPb); None for any other.

    Example:
        >>> known_detector("detector_SiW_eM_64GeV_angle70", Grid()).name, known_detector("SiWest", Grid())
        ('SiW', None)
    """
    published = {"siw": ("SiW", "W:1.4", "Si:0.3", 90), "scipb": ("SciPb", "Pb:4.4", "polystyrene:1.2", 45)}
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=\d)", " ", stem.lower()))
    found = [published[word] for word in dict.fromkeys(words) if word in published]
    if len(found) != 1:
        return None
    name, absorber, active, periods = found[0]
    return Detector.from_layers(absorber, active, n_layers=periods, grid=grid, name=name)
