"""Whether Geant4 can run here; tests that need it say why they were skipped."""

from __future__ import annotations

import importlib.util

import pytest

from metacalo.simulate.data_sets import found_data_sets

_WHY = (
    "geant4_pybind is not installed: pip install 'metacalo[geant4]'"
    if importlib.util.find_spec("geant4_pybind") is None
    else "Geant4's data sets are not found: metacalo simulate --setup"
    if "G4LEDATA" not in found_data_sets()
    else ""
)

needs_geant4 = pytest.mark.skipif(bool(_WHY), reason=_WHY or "Geant4 is here")

SMALL = """
name = "small"

[[layers]]
material = "Pb"
thickness_mm = 5

[[layers]]
material = "PVT"
thickness_mm = 5
active = true

[beam]
energy_GeV = "0.1:0.5"
"""
"""A detector.toml whose showers take a few milliseconds."""
