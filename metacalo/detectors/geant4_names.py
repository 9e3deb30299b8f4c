"""Names of materials in Geant4's table of NIST."""

from __future__ import annotations

from metacalo.detectors.materials import Material

__all__ = ["NIST_NAMES", "nist_name"]

NIST_NAMES = {
    "C": "G4_GRAPHITE",
    "lAr": "G4_lAr",
    "LKr": "G4_lKr",
    "LXe": "G4_lXe",
    "air": "G4_AIR",
    "polystyrene": "G4_POLYSTYRENE",
    "PVT": "G4_PLASTIC_SC_VINYLTOLUENE",
    "PMMA": "G4_PLEXIGLASS",
    "PE": "G4_POLYETHYLENE",
    "PbWO4": "G4_PbWO4",
    "CsI": "G4_CESIUM_IODIDE",
    "NaI": "G4_SODIUM_IODIDE",
    "BaF2": "G4_BARIUM_FLUORIDE",
    "BGO": "G4_BGO",
    "quartz": "G4_SILICON_DIOXIDE",
    "lead glass": "G4_GLASS_LEAD",
    "Kapton": "G4_KAPTON",
    "Mylar": "G4_MYLAR",
    "water": "G4_WATER",
}
"""metacalo's name -> Geant4's; elements are `G4_` and their symbol."""


def nist_name(material: Material) -> str:
    """What Geant4 may know the material as; its density and elements decide whether that is it."""
    if material.name in NIST_NAMES:
        return NIST_NAMES[material.name]
    return f"G4_{material.name}" if list(material.composition) == [material.name] else ""
