"""How a `Normaliser` is fitted: tables, energy dependence and correlations of their latents, the spectrum of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.errors import ShowerFileError
from metacalo.normaliser import cells, rings
from metacalo.normaliser.encoded import draw_structure
from metacalo.normaliser.energy_dependence import EnergyDependence, fit_energy_dependence
from metacalo.normaliser.hits import count_hits, fit_hits
from metacalo.normaliser.latents import Latents, structure_size
from metacalo.normaliser.longitudinal import Longitudinal, fit_longitudinal
from metacalo.normaliser.marginals import Interval
from metacalo.normaliser.normaliser import PRIOR_STRENGTH, Normaliser
from metacalo.normaliser.prior_weight import credibility
from metacalo.normaliser.response import fit_response
from metacalo.normaliser.spectrum import Spectrum, fit_spectrum
from metacalo.normaliser.tabulate import fit_marginals
from metacalo.normaliser.threshold import excess, least_hit
from metacalo.typing import ShowerArray, ShowerTensor

__all__ = ["LOG_ENERGY_KNOTS", "fit_normaliser", "with_spectrum"]

LOG_ENERGY_KNOTS = np.linspace(np.log(1e3), np.log(1e5), 5)
"""Knots in ln(E_inc / MeV) of the layers' tables: 1 to 100 GeV, continued linearly outside."""


def fit_normaliser(
    showers: ShowerArray,
    energy: Float[np.ndarray, "n"],
    theta: Float[np.ndarray, "n"],
    prior: Normaliser | None = None,
) -> Normaliser:
    """Tables fitted on showers (MeV) of incident energies (MeV) and angles (rad).

    Args:
        showers: the shots.
        energy: their incident energies.
        theta: their polar angles.
        prior: what the tables are shrunk towards, as far as it agrees with the shots (`credibility`).

    Raises:
        ShowerFileError: no shower holds any energy.
    """
    energy, theta = np.asarray(energy, dtype=np.float64), np.asarray(theta, dtype=np.float64)
    total = showers.sum((1, 2, 3), dtype=np.float64)
    if not (total > 0).any():
        raise ShowerFileError("every shower given to fit the normaliser is empty; choose showers with energy deposits")
    scale = float(np.mean(total / energy))
    threshold = float(showers[showers > 0].min())
    scaled = showers / np.float32(scale)
    least = least_hit(threshold, scale)
    above = excess(torch.from_numpy(scaled), least).numpy()
    in_rings = scaled.sum(2)
    in_layers = in_rings.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        fractions = np.log(in_layers) - np.log(total / scale)[:, None]
    fractions[in_layers <= 0] = -np.inf
    hits = (scaled > 0).sum(2)
    n_r, n_phi, n_z = showers.shape[1:]
    log_energy = np.log(energy)
    tables = Normaliser(
        total=fit_response(total / scale / energy, energy, theta),
        layers=fit_marginals([(fractions[:, z], log_energy) for z in range(n_z)], LOG_ENERGY_KNOTS, extrapolate=True),
        rings=rings.fit_rings(in_rings, energy, least),
        hits=fit_hits(hits, in_rings, energy, np.random.default_rng(0)),
        shares=cells.fit_shares(above, hits, above.sum(2), np.random.default_rng(1)),
        spectrum=Spectrum.none(n_r),
        energy_dependence=EnergyDependence.none(structure_size((n_r, 1, n_z))),
        longitudinal=Longitudinal.none(1 + n_z),
        scale=scale,
        threshold=threshold,
    )
    strengths = PRIOR_STRENGTH
    if prior is not None:
        belief = credibility(tables, prior)
        strengths = {stage: belief * values for stage, values in PRIOR_STRENGTH.items()}
        tables = tables.shrunk_towards(replace(prior, energy_dependence=tables.energy_dependence), strengths)
    incident, angle = (torch.from_numpy(array.astype(np.float32)) for array in (energy, theta))
    structure = tables.encode_structure(torch.from_numpy(in_rings), torch.from_numpy(hits), incident, angle, n_phi)
    tables = _with_energy(tables, structure, torch.log(incident), (n_r, n_phi, n_z), prior, strengths)
    if prior is None:
        return tables
    return with_spectrum(tables, torch.from_numpy(scaled), torch.log(incident), strengths["spectrum"])


def _with_energy(
    tables: Normaliser,
    structure: Interval,
    log_energy: Float[Tensor, "n"],
    grid: tuple[int, int, int],
    prior: Normaliser | None,
    strengths: Mapping[str, float],
) -> Normaliser:
    """EnergyDependence and correlations of layers, of structural latents of which intervals are known.

    Twice, since where latents lie within their intervals depends on them.
    """
    generator = torch.Generator().manual_seed(0)
    copula, known = (None, None) if prior is None else (prior.copula, prior.energy_dependence)
    energy_dependence = fit_energy_dependence(
        structure, log_energy, known, 0.0 if prior is None else strengths["energy_dependence"]
    )
    drawn = draw_structure(structure, energy_dependence, log_energy, grid, copula, generator)
    longitudinal = fit_longitudinal(energy_dependence.forward(drawn, log_energy), log_energy, 1 + grid[2])
    if prior is not None:
        longitudinal = longitudinal.shrunk_towards(prior.longitudinal, strengths["longitudinal"])
    return replace(tables, energy_dependence=energy_dependence, longitudinal=longitudinal)


def with_spectrum(
    tables: Normaliser,
    scaled: ShowerTensor,
    log_energy: Float[Tensor, "n"],
    strength: float = PRIOR_STRENGTH["spectrum"],
) -> Normaliser:
    """Tables with a spectrum fitted to showers, in MeV over the scale of the file, which moves that of `tables`.

    Args:
        tables: all else.
        scaled: the showers.
        log_energy: ln(E_inc / MeV).
        strength: hits of a ring that the spectrum of `tables` counts for.
    """
    in_rings, hits = scaled.sum(2), count_hits(scaled)
    n, *grid = scaled.shape
    latents = Latents.noise(n, (grid[0], grid[1], grid[2]), torch.Generator().manual_seed(2))
    if tables.copula is not None:
        latents = tables.copula.inverse(latents, log_energy)

    def decode(spectrum: Spectrum) -> ShowerTensor:
        return excess(replace(tables, spectrum=spectrum).share_out(latents.cells, hits, in_rings), tables.least)

    return replace(tables, spectrum=fit_spectrum(excess(scaled, tables.least), decode, tables.spectrum, strength))
