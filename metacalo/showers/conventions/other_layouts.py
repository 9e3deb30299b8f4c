"""Layouts of other projects that hold no mesh of metacalo's: each gets a sentence that says what it looks like."""

from __future__ import annotations

import h5py

from metacalo.errors import ShowerFileError

__all__ = ["refuse_other_layouts"]


def refuse_other_layouts(place: h5py.Group, names: list[str], where: str) -> None:
    """Names a file that other software wrote for readers of its own.

    Raises:
        ShowerFileError: the datasets are those of such a layout.
    """
    if "gen_info" in names:
        raise ShowerFileError(
            f"{where}: 'gen_info' beside {_shapes(place, names)} looks like a layout of layers and cells with "
            "incident energies of GeV in gen_info[:, 0], which has no mesh in r, phi and z; write the "
            "showers as (N, R, PHI, Z) in MeV with 'incident_energy', 'incident_theta' and 'incident_phi'"
        )
    if {"showers", "energies", "directions"} <= {*names} and _is_ragged(place, "showers"):
        raise ShowerFileError(
            f"{where}: 'showers' are points of different numbers, as showerdata writes them, and no mesh; "
            "add them up in the cells of one and write (N, R, PHI, Z) in MeV"
        )


def _own(place: h5py.Group, name: str) -> object:
    """What lies in this very file under that name; links to other places are not followed."""
    return place[name] if isinstance(place.get(name, getlink=True), h5py.HardLink) else None


def _is_ragged(place: h5py.Group, name: str) -> bool:
    dataset = _own(place, name)
    return isinstance(dataset, h5py.Dataset) and h5py.check_vlen_dtype(dataset.dtype) is not None


def _shapes(place: h5py.Group, names: list[str]) -> str:
    found = (_own(place, name) for name in names if name != "gen_info")
    shown = [f"'{each.name.lstrip('/')}' {each.shape}" for each in found if isinstance(each, h5py.Dataset)]
    return ", ".join(shown[:3]) or "nothing else"
