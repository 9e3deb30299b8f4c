"""Passage of particles through matter: X0, critical energy and minimum ionisation from the composition alone.

Nothing here is a table of detectors: elements (Z, A, mean excitation energy I) go in, and the four numbers that an
electromagnetic shower is made of come out. So a material that nobody foresaw is described as well as lead is.

Sources:
    Radiation length: Y.-S. Tsai, Rev. Mod. Phys. 46 (1974) 815, as in the PDG review "Passage of particles through
    matter", eqs. 34.25 and 34.26; compounds by mass fraction.
    Density effect: R. M. Sternheimer and R. F. Peierls, Phys. Rev. B 3 (1971) 3681 (general expressions).
    Electron collision loss: M. J. Berger and S. M. Seltzer, as in ICRU Report 37.
    Critical energy: B. Rossi's definition, the energy at which the collision loss per X0 equals the energy.
    I of compounds: Bragg's additivity with the ICRU 37 rules (13 % more than in the element; H, C, N, O, F, Cl apart).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from scipy.optimize import brentq

__all__ = ["ELEMENTS", "Composition", "critical_energy", "mean_excitation", "minimum_ionisation", "radiation_length"]

Composition = Mapping[str, float]  # element symbol -> mass fraction, summing to one

ALPHA = 7.2973525693e-3
ELECTRON_MASS = 0.51099895  # MeV
BETHE_K = 0.307075  # MeV cm2 / mol
TSAI = 716.408  # (4 alpha r_e^2 N_A)^-1 in g/cm2
PLASMON = 28.816  # eV, hbar omega_p of one mole of electrons in a cm3

# symbol: Z, A (g/mol), I (eV); I of the element from ICRU 37
ELEMENTS: dict[str, tuple[int, float, float]] = {
    "H": (1, 1.008, 19.2), "He": (2, 4.0026, 41.8), "Li": (3, 6.94, 40.0), "Be": (4, 9.0122, 63.7),
    "B": (5, 10.81, 76.0), "C": (6, 12.011, 78.0), "N": (7, 14.007, 82.0), "O": (8, 15.999, 95.0),
    "F": (9, 18.998, 115.0), "Ne": (10, 20.180, 137.0), "Na": (11, 22.990, 149.0), "Mg": (12, 24.305, 156.0),
    "Al": (13, 26.982, 166.0), "Si": (14, 28.085, 173.0), "P": (15, 30.974, 173.0), "S": (16, 32.06, 180.0),
    "Cl": (17, 35.45, 174.0), "Ar": (18, 39.948, 188.0), "K": (19, 39.098, 190.0), "Ca": (20, 40.078, 191.0),
    "Ti": (22, 47.867, 233.0), "V": (23, 50.942, 245.0), "Cr": (24, 51.996, 257.0), "Mn": (25, 54.938, 272.0),
    "Fe": (26, 55.845, 286.0), "Co": (27, 58.933, 297.0), "Ni": (28, 58.693, 311.0), "Cu": (29, 63.546, 322.0),
    "Zn": (30, 65.38, 330.0), "Ga": (31, 69.723, 334.0), "Ge": (32, 72.630, 350.0), "As": (33, 74.922, 347.0),
    "Se": (34, 78.971, 348.0), "Br": (35, 79.904, 343.0), "Kr": (36, 83.798, 352.0), "Y": (39, 88.906, 379.0),
    "Zr": (40, 91.224, 393.0), "Nb": (41, 92.906, 417.0), "Mo": (42, 95.95, 424.0), "Ag": (47, 107.868, 470.0),
    "Cd": (48, 112.414, 469.0), "In": (49, 114.818, 488.0), "Sn": (50, 118.710, 488.0), "Sb": (51, 121.760, 487.0),
    "Te": (52, 127.60, 485.0), "I": (53, 126.904, 491.0), "Xe": (54, 131.293, 482.0), "Cs": (55, 132.905, 488.0),
    "Ba": (56, 137.327, 491.0), "La": (57, 138.905, 501.0), "Ce": (58, 140.116, 523.0), "Gd": (64, 157.25, 591.0),
    "Lu": (71, 174.967, 694.0), "Hf": (72, 178.486, 705.0), "Ta": (73, 180.948, 718.0), "W": (74, 183.84, 727.0),
    "Pt": (78, 195.084, 790.0), "Au": (79, 196.967, 790.0), "Pb": (82, 207.2, 823.0), "Bi": (83, 208.980, 823.0),
    "Th": (90, 232.038, 847.0), "U": (92, 238.029, 890.0),
}  # fmt: skip
IN_COMPOUND = {"H": 19.2, "C": 81.0, "N": 82.0, "O": 106.0, "F": 112.0, "Cl": 180.0}
IN_GAS = {"H": 19.2, "C": 70.0, "N": 82.0, "O": 97.0}
LIGHT_LOGARITHMS = {1: (5.31, 6.144), 2: (4.79, 5.621), 3: (4.74, 5.805), 4: (4.71, 5.924)}


def _element_radiation_length(symbol: str) -> float:
    z, a, _ = ELEMENTS[symbol]
    x = (ALPHA * z) ** 2
    coulomb = x * (1 / (1 + x) + 0.20206 - 0.0369 * x + 0.0083 * x**2 - 0.002 * x**3)
    elastic, inelastic = LIGHT_LOGARITHMS.get(z, (math.log(184.15 * z ** (-1 / 3)), math.log(1194 * z ** (-2 / 3))))
    return TSAI * a / (z**2 * (elastic - coulomb) + z * inelastic)


def radiation_length(composition: Composition) -> float:
    """X0 in g/cm2: 1/X0 = sum of w_j / X_j over mass fractions w_j, X_j by Tsai's formula.

    Example:
        >>> round(radiation_length({"Pb": 1.0}), 2)
        6.37
    """
    return 1 / sum(weight / _element_radiation_length(symbol) for symbol, weight in composition.items())


def radiation_weighted_z(composition: Composition) -> float:
    """Mean Z of the elements, each weighted by its share of the radiation lengths."""
    shares = {symbol: weight / _element_radiation_length(symbol) for symbol, weight in composition.items()}
    return sum(share * ELEMENTS[symbol][0] for symbol, share in shares.items()) / sum(shares.values())


def _electrons(composition: Composition) -> float:
    return sum(weight * ELEMENTS[symbol][0] / ELEMENTS[symbol][1] for symbol, weight in composition.items())


def mean_excitation(composition: Composition, *, gas: bool = False) -> float:
    """Mean excitation energy I in eV, by Bragg's additivity of Z/A ln I."""

    def in_state(symbol: str) -> float:
        alone = ELEMENTS[symbol][2]
        if len(composition) == 1:
            return alone
        return IN_GAS.get(symbol, alone) if gas else IN_COMPOUND.get(symbol, 1.13 * alone)

    total = sum(
        weight * ELEMENTS[symbol][0] / ELEMENTS[symbol][1] * math.log(in_state(symbol))
        for symbol, weight in composition.items()
    )
    return math.exp(total / _electrons(composition))


def _density_effect(beta_gamma: float, excitation: float, plasma: float, gas: bool) -> float:
    c = 2 * math.log(excitation / plasma) + 1
    if gas:
        x_low, x_high = (1.6, 4.0) if c < 10 else (1.8 + 0.1 * (c - 10.5), 4.0) if c < 12.25 else (2.0, 5.0)
    else:
        x_high, edge, shift = (2.0, 3.681, 1.0) if excitation < 100 else (3.0, 5.215, 1.5)
        x_low = 0.2 if c < edge else 0.326 * c - shift
    x = math.log10(beta_gamma)
    if x <= x_low:
        return 0.0
    linear = 2 * math.log(10) * x - c
    if x >= x_high:
        return linear
    return linear + (c - 2 * math.log(10) * x_low) * ((x_high - x) / (x_high - x_low)) ** 3


def minimum_ionisation(composition: Composition, density: float, *, gas: bool = False) -> float:
    """Minimum of the mean energy loss of a heavy particle (Bethe, a muon's mass) in MeV cm2/g; density in g/cm3."""
    excitation, electrons = mean_excitation(composition, gas=gas), _electrons(composition)
    plasma = PLASMON * math.sqrt(density * electrons)

    def loss(beta_gamma: float) -> float:
        gamma2 = 1 + beta_gamma**2
        beta2, ratio = beta_gamma**2 / gamma2, ELECTRON_MASS / 105.658
        largest = 2 * ELECTRON_MASS * beta_gamma**2 / (1 + 2 * math.sqrt(gamma2) * ratio + ratio**2)
        logarithm = 0.5 * math.log(2 * ELECTRON_MASS * beta_gamma**2 * largest / (excitation * 1e-6) ** 2)
        correction = _density_effect(beta_gamma, excitation, plasma, gas) / 2
        return BETHE_K * electrons / beta2 * (logarithm - beta2 - correction)

    return min(loss(2.0 + 0.05 * step) for step in range(60))


def critical_energy(composition: Composition, density: float, *, gas: bool = False) -> float:
    """Rossi's critical energy of electrons in MeV: the E at which (dE/dx)_collision X0 = E; density in g/cm3."""
    excitation, electrons = mean_excitation(composition, gas=gas), _electrons(composition)
    plasma, x0 = PLASMON * math.sqrt(density * electrons), radiation_length(composition)

    def surplus(energy: float) -> float:
        tau = energy / ELECTRON_MASS
        gamma = tau + 1
        beta2 = 1 - 1 / gamma**2
        bracket = 1 - beta2 + (tau**2 / 8 - (2 * tau + 1) * math.log(2)) / gamma**2
        logarithm = 2 * math.log(tau * ELECTRON_MASS * 1e6 / excitation) + math.log(1 + tau / 2) + bracket
        correction = _density_effect(math.sqrt(tau * (tau + 2)), excitation, plasma, gas)
        return BETHE_K / 2 * electrons / beta2 * (logarithm - correction) * x0 - energy

    return float(brentq(surplus, 1.0, 1000.0))
