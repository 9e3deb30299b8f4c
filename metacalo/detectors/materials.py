"""Materials of calorimeters: composition and density in, X0, Moliere radius, critical energy and dE/dx out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cached_property

from metacalo.detectors.radiation import (
    ELEMENTS,
    critical_energy,
    minimum_ionisation,
    radiation_length,
    radiation_weighted_z,
)
from metacalo.errors import DetectorError

__all__ = ["MATERIALS", "SCATTERING_ENERGY_MEV", "Material", "find_material", "mass_fractions"]

SCATTERING_ENERGY_MEV = 21.2052  # E_s = m_e c2 sqrt(4 pi / alpha)


@dataclass(frozen=True, eq=False)
class Material:
    """A material, described by its composition.

    Attributes:
        name: the name that files and reports use.
        composition: element symbol -> mass fraction; the fractions sum to one.
        density_g_cm3: density in g/cm3.
        aliases: other names it is known by; case, spaces, hyphens and a leading `G4_` never matter.
        kind: what it counts as when detectors are compared by material (steel counts as iron).
        gas: true for a gas, whose density effect sets in later.

    Example:
        >>> round(find_material("G4_Pb").X0_mm, 2)
        5.61
    """

    name: str
    composition: Mapping[str, float]
    density_g_cm3: float
    aliases: tuple[str, ...] = ()
    kind: str = ""
    gas: bool = False

    def __post_init__(self) -> None:
        if not self.composition:
            raise DetectorError(f"material '{self.name}' has no composition; give element mass fractions")
        for symbol, weight in self.composition.items():
            if symbol not in ELEMENTS:
                raise DetectorError(f"material '{self.name}': unknown element '{symbol}'{near_match(symbol, ELEMENTS)}")
            if not weight > 0:
                raise DetectorError(f"material '{self.name}': mass fraction {weight} of {symbol} must be above 0")
        total = sum(self.composition.values())
        if abs(total - 1) > 0.01:
            raise DetectorError(f"material '{self.name}': mass fractions sum to {total:.4g}, they must sum to 1")
        if not 1e-6 < self.density_g_cm3 < 30:
            raise DetectorError(f"material '{self.name}': density {self.density_g_cm3} g/cm3 must lie between 0 and 30")
        object.__setattr__(self, "composition", {key: value / total for key, value in self.composition.items()})
        object.__setattr__(self, "kind", self.kind or self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Material):
            return NotImplemented
        return (self.name, self.density_g_cm3, self.composition) == (other.name, other.density_g_cm3, other.composition)

    def __hash__(self) -> int:
        return hash((self.name, self.density_g_cm3))

    @cached_property
    def X0_mm(self) -> float:  # noqa: N802
        """Radiation length in mm (Tsai's formula)."""
        return 10 * radiation_length(self.composition) / self.density_g_cm3

    @cached_property
    def E_c_MeV(self) -> float:  # noqa: N802
        """Critical energy of electrons in MeV, Rossi's definition."""
        return critical_energy(self.composition, self.density_g_cm3, gas=self.gas)

    @property
    def R_M_mm(self) -> float:  # noqa: N802
        """Moliere radius in mm, E_s X0 / E_c."""
        return SCATTERING_ENERGY_MEV * self.X0_mm / self.E_c_MeV

    @cached_property
    def mip_MeV_mm(self) -> float:  # noqa: N802
        """Mean energy loss of a minimum ionising particle in MeV/mm."""
        return minimum_ionisation(self.composition, self.density_g_cm3, gas=self.gas) * self.density_g_cm3 / 10

    @cached_property
    def mean_z(self) -> float:
        """Z of the elements, weighted by radiation lengths."""
        return radiation_weighted_z(self.composition)


def mass_fractions(formula: str) -> dict[str, float]:
    """Mass fractions of a chemical formula.

    Example:
        >>> {symbol: round(weight, 3) for symbol, weight in mass_fractions("PbWO4").items()}
        {'Pb': 0.455, 'W': 0.404, 'O': 0.141}
    """
    masses: dict[str, float] = {}
    for symbol, count in re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", formula):
        masses[symbol] = masses.get(symbol, 0.0) + ELEMENTS[symbol][1] * float(count or 1)
    total = sum(masses.values())
    return {symbol: mass / total for symbol, mass in masses.items()}


def _of(formula: str, density: float, *aliases: str, name: str = "", kind: str = "") -> Material:
    return Material(name or formula, mass_fractions(formula), density, aliases, kind)


GLASS_EPOXY = {"Si": 0.281, "O": 0.468, "C": 0.220, "H": 0.031}  # 60 % SiO2, 40 % epoxy by mass

# Densities: PDG atomic and nuclear properties; alloys by their data sheets.
_ALL = (
    _of("Be", 1.848, "beryllium"),
    _of("C", 2.21, "graphite", "carbon"),
    _of("Mg", 1.740, "magnesium"),
    _of("Al", 2.699, "aluminium", "aluminum"),
    _of("Si", 2.329, "silicon"),
    _of("Ti", 4.540, "titanium"),
    _of("Fe", 7.874, "iron"),
    _of("Ni", 8.902, "nickel"),
    _of("Cu", 8.960, "copper"),
    _of("Zn", 7.133, "zinc"),
    _of("Mo", 10.22, "molybdenum"),
    _of("Sn", 7.310, "tin"),
    _of("Ta", 16.654, "tantalum"),
    _of("W", 19.30, "tungsten"),
    _of("Au", 19.32, "gold"),
    _of("Pb", 11.35, "lead"),
    _of("U", 18.95, "uranium", "DU"),
    _of("Ar", 1.396, "liquid argon", "liquidArgon", name="lAr"),
    _of("Kr", 2.418, "liquid krypton", name="LKr"),
    _of("Xe", 2.953, "liquid xenon", name="LXe"),
    Material("air", {"C": 0.000124, "N": 0.755267, "O": 0.231781, "Ar": 0.012827}, 1.205e-3, gas=True),
    _of("C8H8", 1.060, "Sci", "PS", name="polystyrene"),
    _of("C9H10", 1.032, "scintillator", "polyvinyltoluene", "plastic sc vinyltoluene", "plastic scintillator",
        name="PVT", kind="polystyrene"),
    _of("C5H8O2", 1.19, "acrylic", "plexiglass", "lucite", name="PMMA"),
    _of("C2H4", 0.94, "polyethylene", name="PE"),
    _of("C22H10N2O5", 1.42, "polyimide", name="Kapton"),
    _of("C10H8O4", 1.40, "polyester", name="Mylar"),
    _of("H2O", 1.00, name="water"),
    _of("PbWO4", 8.300, "PWO", "lead tungstate"),
    _of("CsI", 4.510, "cesium iodide", "caesium iodide"),
    _of("NaI", 3.667, "sodium iodide"),
    _of("BaF2", 4.893, "barium fluoride"),
    _of("CeF3", 6.16, "cerium fluoride"),
    _of("PbF2", 7.77, "lead fluoride"),
    _of("Bi4Ge3O12", 7.130, "bismuth germanate", name="BGO"),
    _of("Lu2SiO5", 7.4, name="LSO"),
    _of("Lu1.8Y0.2SiO5", 7.1, name="LYSO"),
    _of("Gd3Al2Ga3O12", 6.63, "GGAG", name="GAGG"),
    _of("SiO2", 2.200, "fused silica", "SiO2", "silica", "silicon dioxide", name="quartz"),
    Material("lead glass", {"O": 0.156453, "Si": 0.080866, "Ti": 0.008092, "As": 0.002651, "Pb": 0.751938}, 6.22,
             ("glass lead", "SF57")),
    Material("brass", {"Cu": 0.70, "Zn": 0.30}, 8.53, ("cartridge brass",), kind="Cu"),
    Material("steel", {"Fe": 0.74, "Cr": 0.18, "Ni": 0.08}, 8.02, ("stainless steel", "SS304", "inox"), kind="Fe"),
    Material("WCu", {"W": 0.75, "Cu": 0.25}, 14.98, ("CuW", "tungsten copper"), kind="W"),
    Material("WNiFe", {"W": 0.93, "Ni": 0.05, "Fe": 0.02}, 17.6, ("tungsten alloy", "densimet"), kind="W"),
    Material("G10", GLASS_EPOXY, 1.70),
    Material("FR4", GLASS_EPOXY, 1.85, ("PCB",), kind="G10"),
)  # fmt: skip

MATERIALS: dict[str, Material] = {material.name: material for material in _ALL}


def _key(name: str) -> str:
    return re.sub(r"[\s_.\-]", "", name.strip().lower().removeprefix("g4_"))


_BY_KEY = {_key(alias): material for material in _ALL for alias in (material.name, *material.aliases)}


def near_match(name: str, known: Mapping[str, object]) -> str:
    """The end of an error's sentence: the near match, else all that is known."""
    lower = {key.lower(): key for key in known}
    near = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean '{lower[near[0]]}'?" if near else f" (known: {', '.join(known)})"


def find_material(name: str) -> Material:
    """The material of that name or alias: `lAr`, `G4_Pb`, `liquid argon`, `Sci`.

    Raises:
        DetectorError: no such material; the sentence has the near match.
    """
    try:
        return _BY_KEY[_key(name)]
    except KeyError:
        near = _near_names(_key(name))
        hint = f"; did you mean {' or '.join(near)}?" if near else f" (known: {', '.join(MATERIALS)})"
        raise DetectorError(f"unknown material '{name}'{hint}") from None


def _near_names(key: str) -> list[str]:
    """In quotes, the names that are nearest to `key`: several where they are equally near."""
    found = get_close_matches(key, _BY_KEY, n=3, cutoff=0.5)
    alike = [SequenceMatcher(None, other, key).ratio() for other in found]
    spelt = {_key(alias): alias for material in _ALL for alias in (*material.aliases[::-1], material.name)}
    return [f"'{spelt[other]}'" for other, ratio in zip(found, alike, strict=True) if ratio > alike[0] - 0.05]
