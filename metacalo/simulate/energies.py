"""Energies, angles and seeds of showers: each follows from the seed of the run and the shower's place alone."""

from __future__ import annotations

import math

import numpy as np

from metacalo.detectors.ranges import parse_angles, parse_range
from metacalo.detectors.simulation_settings import BeamSettings
from metacalo.simulate.job import Shot

__all__ = ["shot", "spectrum_text"]

SEEDS = 2**31 - 1
FULL_TURN = (0.0, 2 * math.pi)


def shot(beam: BeamSettings, shape: str, seed: int, index: int) -> Shot:
    """Shower number `index` of the run with that seed, whoever simulates it and whenever."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    energy, theta, phi = rng.random(3)
    values = beam.energies_GeV
    if values:
        energy = values[int(energy * len(values))]
    else:
        energy = _powers(energy, *parse_range(str(beam.energy_GeV)), beam.spectral_index)
    (low, high), (left, right) = beam.theta_range, _phi_range(beam, shape)
    first = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return Shot(
        index,
        float(np.float32(1000 * energy)),  # as the file will hold it
        float(np.float32(low + theta * (high - low))),
        float(np.float32(left + phi * (right - left))),
        1 + (first + index) % SEEDS,
    )


def _powers(u: float, low: float, high: float, index: float) -> float:
    """The quantile `u` of dN/dE ~ E^-index."""
    if abs(index - 1) < 1e-9:
        return float(low * (high / low) ** u)
    power = 1 - index
    return float((low**power + u * (high**power - low**power)) ** (1 / power))


def _phi_range(beam: BeamSettings, shape: str) -> tuple[float, float]:
    if beam.phi is not None:
        return parse_angles("phi", str(beam.phi))
    return FULL_TURN if shape == "barrel" else (0.0, 0.0)


def spectrum_text(beam: BeamSettings, shape: str) -> str:
    """Energies and angles in words, for the attributes of a file."""
    values, (low, high) = beam.energies_GeV, beam.theta_range
    if values:
        energies = ", ".join(f"{value:g}" for value in values) + " GeV"
    else:
        kind = {1.0: "log-uniform", 0.0: "uniform"}.get(beam.spectral_index, f"dN/dE ~ E^-{beam.spectral_index:g}")
        ends = parse_range(str(beam.energy_GeV))
        energies = f"{kind} {ends[0]:g}-{ends[1]:g} GeV"
    theta = f"theta {low:.6g}" if low == high else f"theta uniform {low:g}-{high:g}"
    left, right = _phi_range(beam, shape)
    phi = f"phi {left:g}" if left == right else f"phi uniform {left:g}-{right:.4g}"
    return f"{energies}; {theta}; {phi}"
