"""CaloChallenge datasets 2 and 3 (arXiv:2410.21611): `showers` (N, Z * PHI * R), z slowest, then phi, then r; MeV."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from metacalo.detectors.grid import Grid
from metacalo.detectors.published_stacks import published_detector
from metacalo.detectors.stack import number
from metacalo.errors import MALFORMED, DetectorError, ShowerFileError
from metacalo.showers.conventions.source import Refuse, Source, angles_of, count_of, detector_of, energies_of, grid_of
from metacalo.showers.hdf5_limits import read_attributes

__all__ = ["calochallenge", "flatten_calochallenge"]

CALOCHALLENGE_GRIDS: Final = {6480: (9, 16, 45), 40500: (18, 50, 45)}
CALOCHALLENGE_CELLS: Final = {6480: (4.65, 3.4), 40500: (2.325, 3.4)}  # dr, dz in mm
CALOCHALLENGE_1: Final = {368: "photons", 533: "pions"}


def calochallenge(
    place: h5py.Group,
    showers: h5py.Dataset,
    path: Path,
    where: str,
    refuse: Refuse,
    mesh: tuple[int, int, int] | None,
) -> Source:
    """Flat showers, on the mesh that attributes, the caller or the number of voxels say."""
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
    count = count_of(showers, where)
    energy = energies_of(place, "incident_energies", count, where, refuse)
    theta, phi = np.full(count, math.pi / 2, np.float32), np.zeros(count, np.float32)
    if "incident_theta" in place and "incident_phi" in place:
        theta, phi = (angles_of(place, axis, count, where, refuse) for axis in ("theta", "phi"))
    grid = grid_of(shape, attributes, where)
    detector = detector_of(attributes, grid, place.name.strip("/") or path.stem, where, refuse)
    if detector is None and _has_cells_of_the_challenge(grid):
        # of the challenge's detector: of no other that the caller may describe
        cells = replace(grid, dr_mm=CALOCHALLENGE_CELLS[voxels][0], dz_mm=CALOCHALLENGE_CELLS[voxels][1])
        detector = published_detector("SiW", cells)
    return Source("calochallenge", (showers,), grid, energy, theta, phi, detector, attributes)


def _has_cells_of_the_challenge(grid: Grid) -> bool:
    """Whether the mesh is one of the challenge's, and cell sizes are stated as there or not at all."""
    if CALOCHALLENGE_GRIDS.get(grid.n_voxels) != grid.shape:
        return False
    sizes = zip((grid.dr_mm, grid.dz_mm), CALOCHALLENGE_CELLS[grid.n_voxels], strict=True)
    return all(math.isnan(stated) or math.isclose(stated, its, rel_tol=0.01) for stated, its in sizes)


def flatten_calochallenge(showers: np.ndarray) -> np.ndarray:
    """(N, R, PHI, Z) -> (N, Z * PHI * R) with z slowest, then phi, then r."""
    return showers.transpose(0, 3, 2, 1).reshape(len(showers), -1)
