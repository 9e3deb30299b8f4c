"""How many of a ring's phi cells are hit: a count n stands for all values in (n - 1, n] of a table."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.normaliser.marginals import ConditionalMarginals, Interval
from metacalo.normaliser.rings import LOG_ENERGY_KNOTS, LOG_INCIDENT_PLANES, depth_sites, log_energy
from metacalo.normaliser.tabulate import fit_marginals
from metacalo.typing import ShowerTensor

__all__ = ["count_hits", "draw_hits", "encode_hits", "fit_hits"]

_BLOCK = 5  # layers that share a table


def count_hits(showers: ShowerTensor) -> Int[Tensor, "n r z"]:
    """Cells with energy in each ring."""
    return (showers > 0).sum(2)


def _contexts(rings: Float[Tensor, "n r z"], energy: Float[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor]:
    """ln(E_ring), site and ln(E_inc) of each ring, shape (n, r z)."""
    n, n_r, n_z = rings.shape
    site = depth_sites(n_r, n_z, _BLOCK).to(rings.device).flatten().expand(n, -1)
    return log_energy(rings).flatten(1), site, torch.log(energy)[:, None].expand_as(site)


def encode_hits(
    table: ConditionalMarginals,
    hits: Int[Tensor, "n r z"],
    rings: Float[Tensor, "n r z"],
    energy: Float[Tensor, "n"],
    n_phi: int,
) -> Interval:
    """Intervals of latents (n, r, z) of hit counts: n stands for all values in (n - 1, n].

    Args:
        table: see `fit_hits`.
        hits: from `count_hits`; every latent stands for that of an empty ring.
        rings: ring energies in MeV (over the scale of the file).
        energy: E_inc in MeV.
        n_phi: cells of a ring: the most that can be hit.
    """
    x, site, y = _contexts(rings, energy)
    most = torch.where(hits > 0, hits.to(rings), torch.nan).flatten(1)[..., None]
    lower, _ = table.forward(most - 1, x, site, y)
    _, upper = table.forward(most, x, site, y)
    lower = torch.where(most == 1, torch.full_like(lower, -torch.inf), lower)
    upper = torch.where(most == n_phi, torch.full_like(upper, torch.inf), upper)
    return Interval(torch.minimum(lower, upper).reshape(hits.shape), upper.reshape(hits.shape))


def draw_hits(
    table: ConditionalMarginals,
    latent: Float[Tensor, "n r z"],
    rings: Float[Tensor, "n r z"],
    energy: Float[Tensor, "n"],
    n_phi: int,
    threshold: float,
) -> Int[Tensor, "n r z"]:
    """Hit counts of latents: at least one where a ring has energy, at most as many as `threshold` allows.

    Args:
        table: see `fit_hits`.
        latent: of the hit counts.
        rings: ring energies in MeV (over the scale of the file).
        energy: E_inc in MeV.
        n_phi: cells of a ring.
        threshold: smallest cell energy, in the unit of `rings`.
    """
    value = table.inverse(latent.flatten(1)[..., None], *_contexts(rings, energy))[..., 0]
    most = (rings * (1 + 1e-5) / threshold).floor().clamp(1, n_phi)
    count = torch.minimum(value.reshape(rings.shape).ceil().clamp_min(1), most)
    return torch.where(rings > 0, count, 0.0).long()


def fit_hits(
    hits: Int[np.ndarray, "n r z"],
    rings: Float[np.ndarray, "n r z"],
    energy: Float[np.ndarray, "n"],
    rng: np.random.Generator,
) -> ConditionalMarginals:
    """Tables of hit counts, which `rng` spreads evenly over (n - 1, n], given ln(E_ring / MeV) and ln(E_inc / MeV).

    Both are needed: at one incident energy a ring that holds more energy has a larger hit rather than more of them.
    """
    n_r, n_z = rings.shape[1:]
    sites = depth_sites(n_r, n_z, _BLOCK).numpy()
    value = np.where(hits > 0, hits - rng.random(hits.shape), np.nan)
    x = np.log(np.maximum(rings, 1e-6))
    y = np.broadcast_to(np.log(energy)[:, None, None], x.shape)
    samples = [tuple(array[:, sites == site].reshape(-1) for array in (value, x, y)) for site in range(sites.max() + 1)]
    return fit_marginals(samples, LOG_ENERGY_KNOTS, LOG_INCIDENT_PLANES)
