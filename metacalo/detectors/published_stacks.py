"""Calorimeters of published samples, known by the names of their files.

Sources: Par04 of geant4-fastsim (SiW, SciPb); CaloChallenge (arXiv:2410.21611) and HGCal showers (zenodo 6082201) for
cells of SiW; LEMURS (arXiv:2509.05108, zenodo 17045562) for ODD, CLD and ALLEGRO.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Final

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.detectors.stack import Layer, parse_layers

__all__ = ["PARTICLES_OF_PDG", "lemurs_detector", "particle_in", "published_detector"]

_SHEETS: Final = "W:1.9,G10:0.15,G10:0.1,Si:0.5*,air:0.1,PCB:1.3,air:0.25,G10:0.75"

_ALLEGRO: Final = "Pb:1.017,steel:0.07,G10:0.079,lAr:0.81*,PCB:0.9,lAr:0.81*"


@dataclass(frozen=True)
class _Published:
    """A stack; active sheets have a star. Sizes of the cells are of a mesh of 9 rings, NaN where not published."""

    name: str
    sheets: str
    n_layers: int
    dr_mm: float = nan
    dz_mm: float = nan

    def on(self, grid: Grid) -> Detector:
        """The detector on a mesh of a file; sizes that the file states win."""
        layers: list[Layer] = []
        for sheet in self.sheets.split(","):
            layers += parse_layers(sheet.rstrip("*"), active=sheet.endswith("*"))
        dr_mm = self.dr_mm * 9 / grid.n_r  # meshes of more rings have narrower ones
        cells = replace(
            grid,
            dr_mm=dr_mm if isnan(grid.dr_mm) else grid.dr_mm,
            dz_mm=self.dz_mm if isnan(grid.dz_mm) else grid.dz_mm,
        )
        return Detector(self.name, tuple(layers), self.n_layers, cells)


_SIW: Final = _Published("SiW", "W:1.4,Si:0.3*", 90, dr_mm=4.65, dz_mm=3.4)
_SCIPB: Final = _Published("SciPb", "Pb:4.4,polystyrene:1.2*", 45)
_LEMURS: Final = {
    "par04siw": _SIW,
    "par04scipb": replace(_SCIPB, dr_mm=8.0),
    "odd": _Published("ODD", _SHEETS, 48),
    "fcceecld": _Published("CLD", _SHEETS, 40, dr_mm=4.65, dz_mm=5.05),
    # its plates are inclined; flat ones, ten to a layer of 36.86 mm, with its depth of 22 X0 and about its response
    "fcceeallegro": _Published("ALLEGRO", _ALLEGRO, 110, dr_mm=5.0),
}
_PARTICLES: Final = {
    "e-": ("e-", "electron", "electrons", "em"),
    "e+": ("e+", "positron", "positrons", "ep"),
    "gamma": ("gamma", "gammas", "photon", "photons"),
}
PARTICLES_OF_PDG: Final = {"11": "e-", "-11": "e+", "22": "gamma"}
"""Geant4's names of particles by their PDG numbers, as text."""

_OF_WORD: Final = {word: particle for particle, words in _PARTICLES.items() for word in words}


def published_detector(stem: str, grid: Grid) -> Detector | None:
    """The detector that a file name has as one of its words (SiW, SciPb); None for any other.

    Example:
        >>> published_detector("detector_SiW_eM_64GeV_angle70", Grid()).name, published_detector("SiWest", Grid())
        ('SiW', None)
    """
    known = {"siw": _SIW, "scipb": _SCIPB}
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=\d)", " ", stem.lower()))
    found = [known[word] for word in dict.fromkeys(words) if word in known]
    return found[0].on(grid) if len(found) == 1 else None


def lemurs_detector(stem: str, grid: Grid) -> Detector | None:
    """The detector of a file of LEMURS, such as `LEMURS_Par04SiW_gamma_100kEvents_1GeV1TeV_GPSflat_part1`; else None.

    Example:
        >>> lemurs_detector("LEMURS_FCCeeCLD_gamma_100kEvents_1GeV100GeV_GPSflat_part3", Grid()).grid.dz_mm
        5.05
    """
    match = re.match(r"(?:lemurs|ddsim_mesh)_(.+?)_(?:gamma|e-)", stem.lower())
    found = _LEMURS.get(match[1].replace("_", "")) if match else None
    return found.on(grid) if found else None


def particle_in(stem: str) -> str | None:
    """The particle that a file name has as one of its words, as Geant4 calls it; None where it has none, or two.

    Example:
        >>> particle_in("LEMURS_ODD_gamma_100kEvents"), particle_in("detector_SiW_eM_64GeV"), particle_in("gammas.e-")
        ('gamma', 'e-', None)
    """
    words = re.split(r"[_.\s]+|-(?=[a-z0-9])", stem.lower())
    found = {_OF_WORD[word] for word in words if word in _OF_WORD}
    return found.pop() if len(found) == 1 else None
