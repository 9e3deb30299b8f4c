"""The conventions that shower files keep, recognised by what a file holds; the user is never asked.

    par04           showers (N, R, PHI, Z) MeV; incident_energy (N,) MeV; incident_theta, incident_phi (N,) rad
                    (LEMURS; the same four as the fields of one compound dataset `events`)
    calochallenge   showers (N, Z * PHI * R): z slowest, then phi, then r; incident_energies (N, 1) MeV; no angles
    hgcal           one dataset per energy, its name the energy in GeV, (N, R, PHI, Z) MeV; angle in the file name

A new layout of HDF5 files is a module here that makes a `Source`, and a line of `recognise`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import h5py

from metacalo.errors import ShowerFileError
from metacalo.showers.conventions.calochallenge_files import calochallenge, flatten_calochallenge
from metacalo.showers.conventions.hgcal_files import hgcal, hgcal_angle, is_hgcal
from metacalo.showers.conventions.other_layouts import refuse_other_layouts
from metacalo.showers.conventions.par04_files import EVENTS, par04, par04_events
from metacalo.showers.conventions.source import (
    Convention,
    Refuse,
    Source,
    check_angles,
    check_energies,
    dataset_of,
    refuse_at_once,
    unflatten_calochallenge,
)
from metacalo.showers.hdf5_limits import is_own_group

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

EXPECTED: Final = (
    "expected 'showers' with 'incident_energy', 'incident_theta' and 'incident_phi' (Par04), "
    "'showers' with 'incident_energies' (CaloChallenge), or one dataset per energy named in GeV (HGCal)"
)


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
    refuse_other_layouts(place, names, where)
    if EVENTS in names and "showers" not in names:
        return par04_events(place, path, where, refuse)
    if "showers" in names:
        showers = dataset_of(place, "showers", where)
        if showers.ndim == 4:
            return par04(place, showers, path, where, refuse)
        if showers.ndim == 2:
            return calochallenge(place, showers, path, where, refuse, mesh)
        raise ShowerFileError(
            f"{where}: 'showers' has shape {showers.shape}; (N, R, PHI, Z) or, flat, (N, Z * PHI * R) was expected"
        )
    if is_hgcal(names):
        return hgcal(place, path, where, refuse)
    if place.name == "/" and (groups := [name for name in names if is_own_group(place, name)]):
        listed = ", ".join(groups[:40])
        raise ShowerFileError(
            f"{where}: holds no showers of its own but groups; choose one with group= (--group): {listed}"
        )
    found = ", ".join(f"'{name}'" for name in names[:12]) or "nothing"
    raise ShowerFileError(f"{where}: not a shower file: found {found}; {EXPECTED}")
