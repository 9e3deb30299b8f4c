"""What is well formed, for the cases of the fuzz to spoil."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from metacalo.adapt import AdaptSettings, adapt
from metacalo.model_folders.base import resolve_base
from metacalo.showers import data_folder, open_showers, write_showers
from tests.fuzz.hdf5 import seed_files

__all__ = ["BASE", "Seeds"]

BASE: Final = "base-no-pblar"


class Seeds:
    """Small shower files, a model, a library, a base, settings and a ROOT ntuple, in a new folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.files = seed_files(folder)
        self.real = folder / "real.h5"
        with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
            write_showers(self.real, file.load(slice(0, 2400, 60)))
        settings = AdaptSettings(base=BASE, shots=30, steps=0, compared_showers=0)
        self.model = adapt(self.real, folder / "model", settings, quiet=True).out
        frozen = settings.model_copy(update={"generator": "frozen"})
        self.library = adapt(self.real, folder / "library", frozen, quiet=True).out
        self.base = resolve_base(BASE).path
        self.root = folder / "par04.root"
        self.has_root = _write_ntuple(self.root)
        self.tomls = [data_folder("pretrained") / f"{BASE}.toml", data_folder("tasks") / "pblar" / "detector.toml"]


def _write_ntuple(path: Path) -> bool:
    try:
        import awkward
        import uproot
    except ImportError:
        return False
    rng = np.random.default_rng(1)
    counts = rng.integers(5, 20, 12)
    cells = {
        name: awkward.unflatten(rng.integers(0, most, counts.sum()).astype(np.int32), counts)
        for name, most in (("rhoCell", 9), ("phiCell", 16), ("zCell", 45))
    }
    cells["EnergyCell"] = awkward.unflatten(rng.gamma(1, 1, counts.sum()), counts)
    with uproot.recreate(path) as file:
        file["virtualReadout"] = cells
        file["global"] = {"EnergyMC": np.full(12, 1000.0), "ThetaMC": np.full(12, 1.5), "PhiMC": np.zeros(12)}
    return True
