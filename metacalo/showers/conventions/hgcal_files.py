"""HGCal showers (zenodo 6082201): one dataset per energy, its name the energy in GeV, (N, R, PHI, Z) in MeV."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np

from metacalo.detectors.published_stacks import published_detector
from metacalo.errors import ShowerFileError
from metacalo.showers.conventions.source import Refuse, Source, count_of, dataset_of, detector_of, grid_of
from metacalo.showers.hdf5_limits import MOST_ROWS, read_attributes

__all__ = ["hgcal", "hgcal_angle", "is_hgcal"]

_LEAST_GEV, _MOST_GEV = 1e-6, 1e9  # that the name of a dataset may hold


def is_hgcal(names: list[str]) -> bool:
    """Whether all datasets of a file are named by energies in GeV."""
    return bool(names) and all(_as_number(name) is not None for name in names)


def hgcal(place: h5py.Group, path: Path, where: str, refuse: Refuse) -> Source:
    """All datasets, in the order of their energies."""
    datasets = [dataset_of(place, name, where) for name in sorted(place, key=float)]
    shapes = {dataset.shape[1:] for dataset in datasets}
    if len(shapes) > 1 or len(next(iter(shapes))) != 3:
        raise ShowerFileError(f"{where}: shapes {sorted(shapes)} of the datasets differ or are not (R, PHI, Z)")
    counts = [count_of(dataset, where) for dataset in datasets]
    if sum(counts) > MOST_ROWS:
        raise ShowerFileError(f"{where}: holds {sum(counts):,} showers, at most {MOST_ROWS:,} are read; split the file")
    energies = [1000 * float(dataset.name.rpartition("/")[2]) for dataset in datasets]
    energy = np.repeat(np.array(energies, np.float32), counts)
    degrees = hgcal_angle(path)
    if not 0 < degrees < 180:
        raise ShowerFileError(f"{where}: angle {degrees:g} in the file name is no theta between 0 and 180 degrees")
    theta, phi = np.full(len(energy), np.radians(degrees), np.float32), np.zeros(len(energy), np.float32)
    attributes = read_attributes(place, where)
    grid = grid_of(next(iter(shapes)), attributes, where)
    detector = detector_of(attributes, grid, place.name.strip("/") or path.stem, where, refuse) or published_detector(
        path.stem, grid
    )
    return Source("hgcal", tuple(datasets), grid, energy, theta, phi, detector, attributes)


def hgcal_angle(path: Path) -> float:
    """The angle theta in degrees that a file name such as `SiW_angle_70.h5`, 90 where it has none."""
    match = re.search(r"angle_?(\d+(?:\.\d+)?)", path.stem, flags=re.IGNORECASE)
    return float(match[1]) if match else 90.0


def _as_number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if _LEAST_GEV <= value <= _MOST_GEV else None
