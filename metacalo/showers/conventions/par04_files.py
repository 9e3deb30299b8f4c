"""Par04 and LEMURS: `showers` (N, R, PHI, Z) and `incident_energy` in MeV, `incident_theta`, `incident_phi` in rad.

LEMURS' files have no attributes: their names say which detector they are of. Some hold the four as fields of one
compound dataset `events`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from metacalo.detectors.published_stacks import lemurs_detector
from metacalo.errors import ShowerFileError
from metacalo.showers.conventions.source import (
    Refuse,
    Source,
    angles_of,
    check_angles,
    check_energies,
    count_of,
    detector_of,
    energies_of,
    grid_of,
)
from metacalo.showers.hdf5_limits import MOST_VOXELS, check_chunks, check_storage, naming_read_errors, read_attributes

__all__ = ["EVENTS", "par04", "par04_events"]

EVENTS: Final = "events"
_FIELDS: Final = ("showers", "incident_energy", "incident_theta", "incident_phi")


def par04(place: h5py.Group, showers: h5py.Dataset, path: Path, where: str, refuse: Refuse) -> Source:
    """The four datasets."""
    count = count_of(showers, where)
    energy = energies_of(place, "incident_energy", count, where, refuse)
    theta, phi = (angles_of(place, axis, count, where, refuse) for axis in ("theta", "phi"))
    return _source(place, showers, showers.shape[1:], (energy, theta, phi), path, where, refuse)


def par04_events(place: h5py.Group, path: Path, where: str, refuse: Refuse) -> Source:
    """One compound dataset `events` with the four as fields.

    Raises:
        ShowerFileError: a field is missing or of another shape, or `events` is a link, virtual or too large.
    """
    events = place[EVENTS] if isinstance(place.get(EVENTS, getlink=True), h5py.HardLink) else None
    if not isinstance(events, h5py.Dataset) or events.is_virtual or events.external:
        raise ShowerFileError(f"{where}: '{EVENTS}' is no dataset inside this file; copy it in (h5repack)")
    missing = [name for name in _FIELDS if name not in (events.dtype.names or ())]
    if missing or events.ndim != 1:
        found = ", ".join(events.dtype.names or ()) or f"{events.dtype} {events.shape}"
        raise ShowerFileError(f"{where}: '{EVENTS}' has no field '{(missing or _FIELDS)[0]}' (found {found}); add it")
    voxels = events.dtype["showers"]
    if len(voxels.shape) != 3 or voxels.base.kind not in "fiu" or np.prod(voxels.shape) > MOST_VOXELS:
        raise ShowerFileError(f"{where}: 'showers' of '{EVENTS}' are {voxels}; (R, PHI, Z) of float32 was expected")
    for name in _FIELDS[1:]:
        column = events.dtype[name]
        if column.base.kind not in "fiu" or column.shape not in {(), (1,)}:
            raise ShowerFileError(f"{where}: '{name}' of '{EVENTS}' is {column}; one number for each row was expected")
    check_storage(events, where)
    count = count_of(events, where)
    with naming_read_errors(f"{where}: '{EVENTS}'"):
        check_chunks(events, 0, count, f"{where}: '{EVENTS}'")
        with np.errstate(over="ignore"):
            columns = [np.asarray(events.fields(name)[()], np.float32).reshape(count) for name in _FIELDS[1:]]
    energy, theta, phi = columns
    checks: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (check_energies, (energy,)),
        (check_angles, (theta, "theta")),
        (check_angles, (phi, "phi")),
    ]
    for name, (check, values) in zip(_FIELDS[1:], checks, strict=True):
        check(*values, f"{where}: '{EVENTS}' field '{name}'", refuse)
    return _source(place, events, voxels.shape, (energy, theta, phi), path, where, refuse, field="showers")


def _source(
    place: h5py.Group,
    dataset: h5py.Dataset,
    shape: tuple[int, ...],
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
    path: Path,
    where: str,
    refuse: Refuse,
    field: str | None = None,
) -> Source:
    attributes = read_attributes(place, where)
    grid = grid_of(shape, attributes, where)
    detector = detector_of(attributes, grid, place.name.strip("/") or path.stem, where, refuse)
    return Source("par04", (dataset,), grid, *columns, detector or lemurs_detector(path.stem, grid), attributes, field)
