"""Geant4's data sets: which a simulation needs, where they are, and what to do where they are not."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from metacalo.detectors.radiation import ELEMENTS
from metacalo.errors import DataSetError, MissingExtraError

__all__ = ["DATA_SETS", "DataSet", "environment", "found_data_sets", "require_elements"]


class DataSet(NamedTuple):
    """One of Geant4's data sets: the variable that names its folder, the folder's name without version, its use."""

    variable: str
    name: str
    use: str


DATA_SETS: Final = (
    DataSet("G4LEDATA", "G4EMLOW", "electromagnetic physics"),
    DataSet("G4ENSDFSTATEDATA", "G4ENSDFSTATE", "nuclides, which every simulation looks up"),
    DataSet("G4PARTICLEXSDATA", "G4PARTICLEXS", "hadrons: cross sections"),
    DataSet("G4LEVELGAMMADATA", "PhotonEvaporation", "hadrons: excited nuclei"),
    DataSet("G4SAIDXSDATA", "G4SAIDDATA", "hadrons: nucleons and pions"),
    DataSet("G4NEUTRONHPDATA", "G4NDL", "hadrons: lists that end in HP"),
    DataSet("G4RADIOACTIVEDATA", "RadioactiveDecay", "hadrons: lists that end in HP"),
    DataSet("G4INCLDATA", "G4INCL", "hadrons: lists with INCLXX"),
    DataSet("G4ABLADATA", "G4ABLA", "hadrons: lists with INCLXX"),
    DataSet("G4PIIDATA", "G4PII", "not used here"),
    DataSet("G4REALSURFACEDATA", "RealSurface", "not used here"),
    DataSet("G4CHANNELINGDATA", "G4CHANNELING", "not used here"),
)
"""All that geant4_pybind asks for; the first two are enough for showers of electrons, positrons and photons."""

INSTALL: Final = "pip install 'metacalo[geant4]'"


def found_data_sets() -> dict[str, Path]:
    """Variable to folder, of the data sets that are on this machine.

    A variable that is set wins; then come `$GEANT4_DATA_DIR`, where geant4_pybind stores what it downloads
    (`~/.geant4_pybind`), and, in a source tree, the folder `shared/geant4/data` beside it.
    """
    found: dict[str, Path] = {}
    for data_set in DATA_SETS:
        folder = os.environ.get(data_set.variable)
        places = [Path(folder)] if folder else _stored(data_set.name)
        if existing := next((place for place in places if place.is_dir()), None):
            found[data_set.variable] = existing
    beside = Path(__file__).parents[3] / "shared" / "geant4" / "data"
    if "G4LEDATA" not in found and "G4LEDATA" not in os.environ and beside.is_dir():
        found["G4LEDATA"] = beside
    electromagnetic = found.get("G4LEDATA")
    if "G4ENSDFSTATEDATA" not in found and electromagnetic and (electromagnetic / "ENSDFSTATE.dat").is_file():
        found["G4ENSDFSTATEDATA"] = electromagnetic
    return found


def _stored(name: str) -> list[Path]:
    folders = [Path(folder) for folder in (os.environ.get("GEANT4_DATA_DIR"),) if folder]
    folders.append(Path.home() / ".geant4_pybind")
    return [place for folder in folders for place in sorted(folder.glob(f"{name}[0-9]*"), reverse=True)]


def environment(physics: str) -> dict[str, str]:
    """Variables for a process that runs Geant4 with that physics, so that it neither asks nor downloads.

    Raises:
        MissingExtraError: geant4_pybind is not installed.
        DataSetError: a data set is missing, or a variable leads nowhere.
    """
    if importlib.util.find_spec("geant4_pybind") is None:
        raise MissingExtraError(f"geant4_pybind runs Geant4 and is not installed; {INSTALL}")
    found = found_data_sets()
    for data_set in DATA_SETS:
        if data_set.variable in found or data_set.variable not in _needed(physics):
            continue
        folder = os.environ.get(data_set.variable)
        what = (
            f"{data_set.variable} is {folder}, where there is no folder" if folder else f"{data_set.name} is not found"
        )
        raise DataSetError(
            f"Geant4's data set {what}, and {physics} needs it ({data_set.use}); set {data_set.variable} to its "
            "folder, or run 'metacalo simulate --setup' to download it"
        )
    anywhere = found["G4LEDATA"]  # no variable may be unset, but what is not used is not read
    folders = {data_set.variable: str(found.get(data_set.variable, anywhere)) for data_set in DATA_SETS}
    return {**folders, "GEANT4_DATA_DIR": str(anywhere.parent)}


def _needed(physics: str) -> set[str]:
    needed = {"G4LEDATA", "G4ENSDFSTATEDATA"}
    if physics.startswith("G4Em") and "Extra" not in physics:
        return needed
    needed |= {"G4PARTICLEXSDATA", "G4LEVELGAMMADATA", "G4SAIDXSDATA"}
    if "HP" in physics or physics == "Shielding":
        needed |= {"G4NEUTRONHPDATA", "G4RADIOACTIVEDATA"}
    if "INCLXX" in physics:
        needed |= {"G4INCLDATA", "G4ABLADATA"}
    return needed


def require_elements(materials: Mapping[str, Iterable[str]], folder: str) -> None:
    """Asks for each element of each material whether the folder of G4LEDATA has it; Geant4 would abort.

    Args:
        materials: name to its elements' symbols.
        folder: what G4LEDATA is.

    Raises:
        DataSetError: it has not.
    """
    spectra = Path(folder) / "brem_SB"
    if not spectra.is_dir():
        raise DataSetError(
            f"G4LEDATA is {folder}, which has no folder brem_SB; set it to the folder of G4EMLOW (G4EMLOW8.8 or so)"
        )
    for name, symbols in materials.items():
        for symbol in symbols:
            if not (spectra / f"br{ELEMENTS[symbol][0]}").is_file():
                covered = [other for other, (z, *_) in ELEMENTS.items() if (spectra / f"br{z}").is_file()]
                raise DataSetError(
                    f"material '{name}' has {symbol}, of which the Geant4 data in {folder} know nothing (they have "
                    f"{', '.join(covered)}); take another material, or set G4LEDATA to the official G4EMLOW"
                )
