"""Writes ROOT ntuples as Par04 does, from showers."""

from __future__ import annotations

from pathlib import Path

import awkward
import numpy as np
import uproot

from metacalo.showers import Showers


def write_ntuple(path: Path, showers: Showers, *, angles: bool = True, one_tree: bool = False) -> Path:
    """Trees `virtualReadout` and `global`, or all in one `events` as early Par04; without angles likewise."""
    event, *indices = np.nonzero(showers.showers)
    counts = np.bincount(event, minlength=len(showers))
    deposits = showers.showers[event, *indices].astype(np.float64)
    cells = {
        "EnergyCell": awkward.unflatten(deposits, counts),
        **{
            name: awkward.unflatten(index.astype(np.int32), counts)
            for name, index in zip(("rhoCell", "phiCell", "zCell"), indices, strict=True)
        },
    }
    particle = {"EnergyMC": showers.energy.astype(np.float64), "SimTime": np.ones(len(showers))}
    if angles:
        particle |= {"ThetaMC": showers.theta.astype(np.float64), "PhiMC": showers.phi.astype(np.float64)}
    trees = {"events": particle | cells} if one_tree else {"global": particle, "virtualReadout": cells}
    with uproot.recreate(path) as file:
        for name, branches in trees.items():
            write_tree(file, name, branches)
    return path


def write_tree(file: uproot.WritableFile, name: str, branches: dict[str, awkward.Array | np.ndarray]) -> None:
    """A TTree of those branches."""
    file.mktree(name, {key: _kind(values) for key, values in branches.items()}).extend(branches)


def _kind(values: awkward.Array | np.ndarray) -> object:
    return values.dtype if isinstance(values, np.ndarray) else values.type.content
