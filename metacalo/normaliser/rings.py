"""From layer energies to the energies of their rings: sticks broken from the inside outwards.

Ring r takes a part of what the rings before it have left. Where it neither takes nothing nor all, it holds at least the
threshold of a cell and leaves as much, and a part f of the rest is its own. The log-odds ln(f / (1 - f)), given the
logarithms of what was left and of the incident energy, have a table per ring and depth; its atoms are a ring without
energy and one that takes all. So the rings of a layer add up to its energy exactly, none holds less than the smallest
cell can, and none piles up there.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.normaliser.marginals import ConditionalMarginals, Interval
from metacalo.normaliser.tabulate import fit_marginals
from metacalo.normaliser.threshold import excess

__all__ = [
    "DEPTH_BLOCK",
    "LOG_ENERGY_KNOTS",
    "LOG_INCIDENT_PLANES",
    "break_rings",
    "depth_sites",
    "encode_rings",
    "fit_rings",
    "log_energy",
    "ring_of_rows",
]

LOG_ENERGY_KNOTS = np.linspace(np.log(0.3), np.log(8e3), 7)
"""Knots in ln(E / MeV) of the energy that is to be shared out, 0.3 MeV to 8 GeV."""

LOG_INCIDENT_PLANES = np.linspace(np.log(1e3), np.log(1e5), 3)
"""Knots in ln(E_inc / MeV) of tables that have two contexts."""

DEPTH_BLOCK = 3
"""Layers that share a table."""


def depth_sites(n_r: int, n_z: int, block: int = DEPTH_BLOCK) -> Int[Tensor, "r z"]:
    """Site of each ring and layer: one per ring and `block` of layers."""
    return torch.arange(n_r)[:, None] * -(-n_z // block) + torch.arange(n_z)[None] // block


def ring_of_rows(n_rows: int, n_z: int) -> Int[Tensor, "S"]:
    """Number of the ring and plane of each of the rows of `fit_rings`' tables: what the rows of all depths share."""
    n_blocks, n_planes = -(-n_z // DEPTH_BLOCK), len(LOG_INCIDENT_PLANES)
    row = torch.arange(n_rows)
    return row // (n_blocks * n_planes) * n_planes + row % n_planes


def log_energy(energy: Tensor) -> Tensor:
    """Ln(E / MeV), held below 1 eV so that it is finite for zero."""
    return torch.log(energy.clamp_min(1e-6))


def _left(rings: Float[Tensor, "n r z"]) -> Float[Tensor, "n r z"]:
    """Energy in each ring and those outside it."""
    return rings.flip(1).cumsum(1).flip(1)


def _log_odds(rings: Tensor, left: Tensor, threshold: float) -> Float[Tensor, "n r z"]:
    """-inf and +inf at the atoms, NaN where nothing was left, and for the outermost ring, which has no choice."""
    outside = torch.cat([left[:, 1:], torch.zeros_like(left[:, :1])], dim=1)
    odds = torch.log(excess(rings, threshold)) - torch.log(excess(outside, threshold))
    odds = torch.where(left > 0, odds, torch.full_like(odds, torch.nan))
    return torch.cat([odds[:, :-1], torch.full_like(odds[:, :1], torch.nan)], dim=1)


def encode_rings(
    table: ConditionalMarginals, rings: Float[Tensor, "n r z"], energy: Float[Tensor, "n"], threshold: float
) -> Interval:
    """Intervals of latents (n, r, z) of ring energies.

    Args:
        table: see `fit_rings`.
        rings: ring energies in MeV (over the scale of the file).
        energy: E_inc in MeV.
        threshold: smallest cell energy, in the unit of `rings`.
    """
    n, n_r, n_z = rings.shape
    left = _left(rings)
    site = depth_sites(n_r, n_z).to(rings.device).flatten().expand(n, -1)
    last = table.t0.shape[0] // len(table.planes) - 1
    site = site.clamp_max(last)  # the outermost ring has no table and needs none
    odds = _log_odds(rings, left, threshold).flatten(1)[..., None]
    incident = torch.log(energy)[:, None].expand_as(site)
    lower, upper = table.forward(odds, log_energy(left).flatten(1), site, incident)
    return Interval(lower.reshape(n, n_r, n_z), upper.reshape(n, n_r, n_z))


def break_rings(
    table: ConditionalMarginals,
    latent: Float[Tensor, "n r z"],
    layers: Float[Tensor, "n z"],
    energy: Float[Tensor, "n"],
    threshold: float,
) -> Float[Tensor, "n r z"]:
    """Ring energies that add up to `layers`; none is between zero and `threshold` (unless its layer is).

    Args:
        table: of (n_r - 1) rings and the blocks of layers, see `fit_rings`.
        latent: of the rings; those of the outermost are not read.
        layers: layer energies in MeV (over the scale of the file).
        energy: E_inc in MeV.
        threshold: smallest cell energy, in the same unit.
    """
    n, n_r, n_z = latent.shape
    sites = depth_sites(n_r, n_z).to(latent.device)
    incident = torch.log(energy)[:, None].expand_as(layers)
    left, rings = layers, []
    for ring in range(n_r - 1):
        odds = table.inverse(latent[:, ring, :, None], log_energy(left), sites[ring].expand(n, -1), incident)[..., 0]
        taken, left = _break(left, odds, threshold)
        rings.append(taken)
    return torch.stack([*rings, left], dim=1)


def _break(left: Tensor, odds: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """What a ring takes of `left` and what it leaves, at least `threshold` each unless one of them takes all.

    Each is a sigmoid of its own: 1 - part would forget what is below 6e-8 of a large layer.
    """
    shared = left - 2 * threshold
    odds = torch.where(shared < 0, torch.where(odds < 0, -torch.inf, torch.inf), odds)
    both = torch.isfinite(odds)
    taken, rest = (
        torch.where(both, threshold + shared * torch.sigmoid(side), torch.where(side > 0, left, 0.0))
        for side in (odds, -odds)
    )
    return taken, rest


def fit_rings(
    rings: Float[np.ndarray, "n r z"], energy: Float[np.ndarray, "n"], threshold: float
) -> ConditionalMarginals:
    """Tables of (n_r - 1) rings and the blocks of layers, given ln(E_left / MeV) and ln(E_inc / MeV).

    Both are needed: 10 MeV outside a ring are one hit at 1 GeV and the sum of many at 100 GeV.

    Args:
        rings: ring energies in MeV (over the scale of the file).
        energy: E_inc in MeV.
        threshold: smallest cell energy, in the unit of `rings`.
    """
    energies = torch.from_numpy(rings)
    left = _left(energies)
    odds, x = _log_odds(energies, left, threshold).numpy(), log_energy(left).numpy()
    y = np.broadcast_to(np.log(energy)[:, None, None], x.shape)
    n_r, n_z = rings.shape[1:]
    blocks = [slice(z, z + DEPTH_BLOCK) for z in range(0, n_z, DEPTH_BLOCK)]
    samples = [
        tuple(array[:, r, block].reshape(-1) for array in (odds, x, y)) for r in range(n_r - 1) for block in blocks
    ]
    return fit_marginals(samples, LOG_ENERGY_KNOTS, LOG_INCIDENT_PLANES)
