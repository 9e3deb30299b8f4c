"""Against the PDG's tables of atomic and nuclear properties (pdg.lbl.gov/AtomicNuclearProperties)."""

from __future__ import annotations

import numpy as np
import pytest

from metacalo.detectors.materials import MATERIALS, Material, find_material, mass_fractions
from metacalo.detectors.radiation import mean_excitation
from metacalo.errors import DetectorError

# X0 mm, E_c MeV (electrons, Rossi), R_M mm, dE/dx_min MeV cm2/g
PDG = {
    "C": (193.2, 81.74, 50.1, 1.742),
    "Al": (88.97, 42.70, 44.19, 1.615),
    "Si": (93.70, 40.19, 49.44, 1.664),
    "Ti": (35.60, 26.19, 28.83, 1.477),
    "Fe": (17.57, 21.68, 17.19, 1.451),
    "Cu": (14.36, 19.42, 15.68, 1.403),
    "Zn": (17.43, 18.93, 19.50, 1.411),
    "Sn": (12.06, 11.86, 21.57, 1.263),
    "W": (3.504, 7.97, 9.327, 1.145),
    "Pb": (5.612, 7.43, 16.02, 1.122),
    "U": (3.166, 6.65, 10.09, 1.081),
    "lAr": (140.0, 32.84, 90.43, 1.508),
    "LKr": (47.03, 17.03, 58.57, 1.357),
    "polystyrene": (413.1, 93.11, 94.09, 1.936),
    "PVT": (425.4, 94.2, 95.7, 1.956),
    "quartz": (122.9, 50.58, 51.6, 1.699),
    "PbWO4": (8.904, 9.64, 19.59, 1.229),
    "CsI": (18.60, 11.17, 35.31, 1.243),
    "BGO": (11.18, 10.50, 22.59, 1.251),
    "air": (303900.0, 87.92, 73300.0, 1.815),
}


@pytest.mark.parametrize("name", PDG)
def test_material_agrees_with_the_pdg(name: str) -> None:
    """X0 is exact but for rounding; the generic density effect costs up to 3 % of E_c and R_M, 2 % of dE/dx."""
    material = MATERIALS[name]
    x0, e_c, r_m, loss = PDG[name]
    np.testing.assert_allclose(material.X0_mm, x0, rtol=1e-3)
    np.testing.assert_allclose(material.E_c_MeV, e_c, rtol=0.03)
    np.testing.assert_allclose(material.R_M_mm, r_m, rtol=0.03)
    np.testing.assert_allclose(10 * material.mip_MeV_mm / material.density_g_cm3, loss, rtol=0.02)


@pytest.mark.parametrize(("name", "electronvolts"), [("polystyrene", 68.7), ("PbWO4", 600.7), ("CsI", 553.1)])
def test_mean_excitation_of_compounds(name: str, electronvolts: float) -> None:
    """Within 5 % of the measured or tabulated I, which enters dE/dx by its logarithm."""
    np.testing.assert_allclose(mean_excitation(MATERIALS[name].composition), electronvolts, rtol=0.05)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("lAr", "lAr"),
        ("LAr", "lAr"),
        ("liquid argon", "lAr"),
        ("Liquid-Argon", "lAr"),
        ("G4_lAr", "lAr"),
        ("Sci", "polystyrene"),
        ("G4_POLYSTYRENE", "polystyrene"),
        ("G4_PLASTIC_SC_VINYLTOLUENE", "PVT"),
        ("G4_Pb", "Pb"),
        ("lead", "Pb"),
        ("g4_w", "W"),
        ("G4_STAINLESS-STEEL", "steel"),
        ("PWO", "PbWO4"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert find_material(alias).name == name


def test_unknown_material_has_a_near_match() -> None:
    with pytest.raises(DetectorError, match=r"^unknown material 'tungstn'; did you mean 'tungsten'\?$"):
        find_material("tungstn")
    with pytest.raises(DetectorError, match=r"^unknown material 'zzzzzz' \(known: .*Pb"):
        find_material("zzzzzz")


def test_no_two_materials_share_an_alias() -> None:
    for material in MATERIALS.values():
        for alias in (material.name, *material.aliases):
            assert find_material(alias) is material


def test_mass_fractions_of_a_formula() -> None:
    np.testing.assert_allclose(mass_fractions("H2O")["O"], 15.999 / (15.999 + 2.016))
    np.testing.assert_allclose(sum(mass_fractions("Lu1.8Y0.2SiO5").values()), 1)


@pytest.mark.parametrize(
    ("composition", "density", "sentence"),
    [
        ({}, 1.0, "no composition"),
        ({"Qx": 1.0}, 1.0, "unknown element 'Qx'"),
        ({"Pb": 0.5}, 1.0, "sum to 0.5, they must sum to 1"),
        ({"Pb": 1.5, "W": -0.5}, 1.0, "mass fraction -0.5 of W must be above 0"),
        ({"Pb": 1.0}, float("nan"), "density nan"),
        ({"Pb": 1.0}, 0.0, "density 0.0"),
    ],
)
def test_impossible_materials_are_refused(composition: dict[str, float], density: float, sentence: str) -> None:
    with pytest.raises(DetectorError, match=sentence):
        Material("mine", composition, density)


def test_equal_materials_are_equal_and_hash_alike() -> None:
    mine, same = (Material("W-Ni", {"W": 0.9, "Ni": 0.1}, 17.0) for _ in range(2))
    assert mine == same
    assert hash(mine) == hash(same)
    assert mine != find_material("W")
    assert mine != "W-Ni"
