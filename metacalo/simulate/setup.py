"""`metacalo simulate --setup`: which data sets of Geant4 are there, and how to get the others."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from metacalo.errors import ConfigError, MissingExtraError, SimulationError
from metacalo.simulate.data_sets import DATA_SETS, INSTALL, found_data_sets

__all__ = ["data_set_table", "download", "required_option"]


def data_set_table() -> Table:
    """A row for each data set: what it is for, and where it is."""
    table = Table("variable", "data set", "for", "found", title="Geant4 data sets")
    found = found_data_sets()
    for data_set in DATA_SETS:
        place = found.get(data_set.variable)
        table.add_row(data_set.variable, data_set.name, data_set.use, escape(str(place)) if place else "-")
    return table


def download() -> str:
    """Lets geant4_pybind ask on the terminal for what is missing and download it; what is to be said afterwards.

    Nothing is asked where there is no terminal, or the data for electromagnetic showers are there.

    Raises:
        MissingExtraError: geant4_pybind is not installed.
        SimulationError: the download failed.
    """
    if importlib.util.find_spec("geant4_pybind") is None:
        raise MissingExtraError(f"geant4_pybind runs Geant4 and is not installed; {INSTALL}")
    found = found_data_sets()
    if {"G4LEDATA", "G4ENSDFSTATEDATA"} <= set(found):
        return "showers of e-, e+ and gamma can be simulated; hadrons need the sets named so"
    how = (
        "The first two sets are needed. Set their variables to where your Geant4 has them, or let geant4_pybind "
        "download all sets, more than a gigabyte, from cern.ch into ~/.geant4_pybind"
    )
    if not sys.stdin.isatty():
        return f"{how}: run 'metacalo simulate --setup' on a terminal"
    variables = {name: value for name, value in os.environ.items() if name != "GEANT4_DATA_DIR"}
    code = "import geant4_pybind, os; os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], env=variables, check=False)
    if done.returncode:
        raise SimulationError(f"geant4_pybind ended with exit code {done.returncode} before all data sets were there")
    left = {"G4LEDATA", "G4ENSDFSTATEDATA"} - set(found_data_sets())
    return how if left else "showers can be simulated"


def required_option(detector: Path | None) -> Path:
    """The description to simulate.

    Raises:
        ConfigError: none was given.
    """
    if detector is None:
        message = "nothing to simulate; give --detector my.toml (metacalo tasks new my.toml writes one), or --family"
        raise ConfigError(message)
    return detector
