"""From layer energies to the energies of their rings: sticks broken from the inside outwards.

Ring r takes a part f of what the rings before it have left. Its log-odds ln(f / (1 - f)), given the logarithm of what
was left, have a table per ring and depth; its atoms are a ring without energy and one that takes all. So the rings of
a layer add up to its energy exactly, and no ring holds less than the smallest cell can.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.showers.marginals import ConditionalMarginals, Interval
from metacalo.showers.tabulate import fit_marginals

__all__ = [
    "DEPTH_BLOCK",
    "LOG_ENERGY_KNOTS",
    "break_rings",
    "depth_sites",
    "encode_rings",
    "fit_rings",
    "log_energy",
    "ring_of_sites",
]

LOG_ENERGY_KNOTS = np.linspace(np.log(0.03), np.log(8e3), 9)
"""Knots in ln(E / MeV) of the energy that is to be shared out, 0.03 MeV to 8 GeV."""

DEPTH_BLOCK = 3
"""Layers that share a table."""

_TINY = 1e-9  # MeV


def depth_sites(n_r: int, n_z: int, block: int = DEPTH_BLOCK) -> Int[Tensor, "r z"]:
    """Site of each ring and layer: one per ring and `block` of layers."""
    return torch.arange(n_r)[:, None] * -(-n_z // block) + torch.arange(n_z)[None] // block


def ring_of_sites(sites: int, n_z: int) -> Int[Tensor, "S"]:
    """Ring of each of the `sites` of a table of rings, see `fit_rings`."""
    return torch.arange(sites) // -(-n_z // DEPTH_BLOCK)


def log_energy(energy: Tensor) -> Tensor:
    """Ln(E / MeV), held below 1 eV so that it is finite for zero."""
    return torch.log(energy.clamp_min(1e-6))


def _left(rings: Float[Tensor, "n r z"]) -> Float[Tensor, "n r z"]:
    """Energy in each ring and those outside it."""
    return rings.flip(1).cumsum(1).flip(1)


def _log_odds(rings: Tensor, left: Tensor) -> Float[Tensor, "n r z"]:
    """-inf and +inf at the atoms, NaN where nothing was left, and for the outermost ring, which has no choice."""
    outside = torch.cat([left[:, 1:], torch.zeros_like(left[:, :1])], dim=1)
    odds = torch.log(rings) - torch.log(outside)
    odds = torch.where(left > 0, odds, torch.full_like(odds, torch.nan))
    return torch.cat([odds[:, :-1], torch.full_like(odds[:, :1], torch.nan)], dim=1)


def encode_rings(table: ConditionalMarginals, rings: Float[Tensor, "n r z"]) -> Interval:
    """Intervals of latents (n, r, z) of ring energies in MeV (over the scale of the file)."""
    n, n_r, n_z = rings.shape
    left = _left(rings)
    site = depth_sites(n_r, n_z).to(rings.device).flatten().expand(n, -1)
    site = site.clamp_max(table.t0.shape[0] - 1)  # the outermost ring has no table and needs none
    odds = _log_odds(rings, left).flatten(1)[..., None]
    lower, upper = table.to_latent(odds, log_energy(left).flatten(1), site)
    return Interval(lower.reshape(n, n_r, n_z), upper.reshape(n, n_r, n_z))


def break_rings(
    table: ConditionalMarginals, latent: Float[Tensor, "n r z"], layers: Float[Tensor, "n z"], threshold: float
) -> Float[Tensor, "n r z"]:
    """Ring energies that add up to `layers`; none is between zero and `threshold` (unless its layer is).

    Args:
        table: of (n_r - 1) rings and the blocks of layers, see `fit_rings`.
        latent: of the rings; those of the outermost are not read.
        layers: layer energies in MeV (over the scale of the file).
        threshold: smallest cell energy, in the same unit.
    """
    n, n_r, n_z = latent.shape
    sites = depth_sites(n_r, n_z).to(latent.device)
    left, rings = layers, []
    for ring in range(n_r - 1):
        odds = table.to_value(latent[:, ring, :, None], log_energy(left), sites[ring].expand(n, -1))[..., 0]
        taken, left = _break(left, odds, threshold)
        rings.append(taken)
    return torch.stack([*rings, left], dim=1)


def _break(left: Tensor, odds: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """What a ring takes of `left` and what it leaves, at least `threshold` each unless one of them takes all.

    Each is a sigmoid of its own: 1 - part would forget what is below 6e-8 of a large layer.
    """
    all_of_it = torch.full_like(odds, torch.inf).copysign(odds)
    odds = torch.where(left < 2 * threshold, all_of_it, odds)
    least = torch.where(torch.isfinite(odds), threshold / left.clamp_min(_TINY), 0.0)
    taken, rest = (torch.sigmoid(side).clamp(least, 1 - least) for side in (odds, -odds))
    return left * taken, left * rest


def fit_rings(rings: Float[np.ndarray, "n r z"]) -> ConditionalMarginals:
    """Tables of (n_r - 1) rings and the blocks of layers, from ring energies in MeV (over the scale of the file)."""
    energies = torch.from_numpy(rings)
    left = _left(energies)
    odds, x = _log_odds(energies, left).numpy(), log_energy(left).numpy()
    n_r, n_z = rings.shape[1:]
    blocks = [slice(z, z + DEPTH_BLOCK) for z in range(0, n_z, DEPTH_BLOCK)]
    samples = [(odds[:, r, b].reshape(-1), x[:, r, b].reshape(-1)) for r in range(n_r - 1) for b in blocks]
    return fit_marginals(samples, LOG_ENERGY_KNOTS)
