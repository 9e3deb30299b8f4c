"""Showers that ship, in memory and as files that other programs, or a user with few of them, would have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metacalo.showers import Showers, data_folder, open_showers, write_showers

SIW, PBLAR = (data_folder("tasks") / name / "showers.h5" for name in ("siw", "pblar"))


def shipped(name: str, rows: slice | np.ndarray | list[int] = slice(None)) -> Showers:
    """Showers of a task."""
    with open_showers(data_folder("tasks") / name / "showers.h5") as file:
        return file.load(rows)


def write_plain(path: Path, showers: Showers, **attributes: Any) -> Path:
    """A Par04 file as other programs write it, which says of its detector only what is given."""
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        file["showers"], file["incident_energy"] = showers.showers, showers.energy
        file["incident_theta"], file["incident_phi"] = showers.theta, showers.phi
    return path


def attributes_of(name: str) -> dict[str, Any]:
    """What the file of a task says of itself."""
    with open_showers(data_folder("tasks") / name / "showers.h5") as file:
        return dict(file.attributes)


def write_task(folder: Path, name: str, count: int) -> Path:
    """A task with the first showers of one that ships; returns the folder of tasks."""
    write_showers(folder / name / "showers.h5", shipped(name, slice(0, count)))
    shutil.copy(data_folder("tasks") / name / "detector.toml", folder / name)
    return folder
