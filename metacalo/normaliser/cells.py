"""From ring energies and hit counts to cells: which of a ring's phi cells are hit, and how they share its energy.

No hit is below the threshold of the file, and Geant4's spectrum does not pile up there. So what hits share is the
excess of their ring: its energy less one threshold for each hit. All that is called energy below is excess.

The n cells of a ring with the largest latents are hit. Given the (n+1)-th largest latent tau of independent standard
normal ones, the n above it are independent normals truncated at tau (order statistics), so that

    u = (ndtr(t) - ndtr(tau)) / (1 - ndtr(tau))

is uniform whatever n, and stands for the cell's weight; shares are weights over their sum. The logarithms of weights
are tabulated by ring, n and the mean energy of a hit. Independent latents therefore have the right multiplicity, cell
spectrum and ring energy, exactly conserved, in dense cores as among single tracks outside; what sits at an absolute
energy is for `Spectrum`.

Which latents the cells without energy get is free. They are ranked by the energy around them, so that a field of
latents varies as smoothly as the shower did.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.normaliser.marginals import ConditionalMarginals, score_of
from metacalo.normaliser.rings import log_energy
from metacalo.normaliser.spectrum import Spectrum
from metacalo.normaliser.tabulate import fit_marginals
from metacalo.typing import ShowerTensor

__all__ = [
    "ALONE",
    "LOG_HIT_KNOTS",
    "encode_shares",
    "fit_shares",
    "place_cells",
    "share_out",
    "surroundings",
]

LOG_HIT_KNOTS = np.linspace(np.log(0.02), np.log(6e2), 15)
"""Knots in ln(E / MeV) of the mean energy of a hit, 0.02 to 600 MeV."""

ALONE = torch.inf
"""Score of a hit that has its ring for itself: any share stands for it."""

_HIT_CLASSES = (2, 3, 4, 6, 9, 13, 20, 32)  # smallest counts of the classes; full rings are one of their own
_RANK_NOISE = 1.0  # in ln(energy): ranks of empty cells are half random, or phi would be more coherent than showers are
_KERNEL_PHI_Z = (0.25, 0.5, 1.0, 0.5, 0.25)
_KERNEL_R = (0.3, 1.0, 0.3)
_NOTHING = 1e-6  # in MeV, or its root: stands for no energy
_SMALLEST_SHAPE = 0.3  # of the Gamma distribution of a ring's total


def _classes(n_phi: int) -> Tensor:
    return torch.tensor([*(edge for edge in _HIT_CLASSES if edge < n_phi), max(n_phi, 2)])


def _share_site(hits: Int[Tensor, "n r z"], n_phi: int) -> Int[Tensor, "n r z"]:
    """Row of the share tables: ring and class of the hit count."""
    classes = _classes(n_phi).to(hits.device)
    index = torch.bucketize(hits.contiguous(), classes, right=True).clamp_min(1) - 1
    ring = torch.arange(hits.shape[1], device=hits.device)[None, :, None]
    return ring * len(classes) + index


def _log_ratio(showers: ShowerTensor, hits: Int[Tensor, "n r z"], rings: Float[Tensor, "n r z"]) -> ShowerTensor:
    """Ln of a hit's energy over the mean one of its ring; 0 where there is no hit."""
    mean = rings / hits.clamp_min(1)
    return torch.where(showers > 0, torch.log(showers / mean[:, :, None].clamp_min(_NOTHING)), 0.0)


def _log_total(relative_variance: np.ndarray, hits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ln of a random total, over its mean, for each ring: what turns shares into independent weights.

    Shares that follow a Dirichlet distribution become independent Gamma variables with the relative variance 1 / a when
    all of a ring are multiplied by one total of shape n a (Lukacs 1955); the total itself changes no share.
    """
    shape = np.clip(hits / np.maximum(relative_variance, 1e-6), _SMALLEST_SHAPE, None)
    return np.asarray(np.log(np.maximum(rng.standard_gamma(shape), 1e-30) / shape))


def _seeds(showers: ShowerTensor) -> list[int]:
    """Of each shower by its own bits: equal ones get equal totals, in any batch, different ones independent ones."""
    bits = showers.contiguous().view(torch.int32)
    seeds: list[int] = bits.flatten(1).sum(1, dtype=torch.int64).abs().tolist()
    return seeds


def _flat(cells: Tensor) -> Float[Tensor, "n ring phi"]:
    return cells.permute(0, 1, 3, 2).flatten(1, 2)


def encode_shares(
    table: ConditionalMarginals, showers: ShowerTensor, hits: Int[Tensor, "n r z"], rings: Float[Tensor, "n r z"]
) -> ShowerTensor:
    """Normal scores of the hit cells' weights, NaN where a cell has no energy, `ALONE` where it has all of its ring.

    Args:
        table: see `fit_shares`.
        showers: excesses in MeV (over the scale of the file).
        hits: from `hits.count_hits`.
        rings: sums of `showers` over phi.
    """
    n, n_r, n_phi, n_z = showers.shape
    mean_hit = log_energy(rings / hits.clamp_min(1)).flatten(1)
    site = _share_site(hits, n_phi).flatten(1)
    variances, counts = table.relative_variance(mean_hit, site).cpu().numpy(), hits.flatten(1).cpu().numpy()
    draws = zip(variances, counts, map(np.random.default_rng, _seeds(showers)), strict=True)
    totals = np.array([_log_total(variance, count, rng) for variance, count, rng in draws])
    weight = _flat(_log_ratio(showers, hits, rings))
    weight = weight + torch.from_numpy(totals.reshape(counts.shape)).to(showers)[..., None]
    score, _ = table.forward(weight, mean_hit, site)
    score = score.reshape(n, n_r, n_z, n_phi).permute(0, 1, 3, 2)
    score = torch.where(hits[:, :, None] > 1, score, torch.full_like(score, ALONE))
    return torch.where(showers > 0, score, torch.full_like(score, torch.nan))


def fit_shares(
    showers: Float[np.ndarray, "n r phi z"],
    hits: Int[np.ndarray, "n r z"],
    rings: Float[np.ndarray, "n r z"],
    rng: np.random.Generator,
) -> ConditionalMarginals:
    """Tables of log-weights by ring and class of the hit count, given ln of the mean energy of a hit.

    Args:
        showers: excesses in MeV (over the scale of the file).
        hits: cells with energy in each ring.
        rings: sums of `showers` over phi.
        rng: of the totals that turn shares into weights.
    """
    counts, n_phi = torch.from_numpy(hits), showers.shape[2]
    ratio = _flat(_log_ratio(torch.from_numpy(showers), counts, torch.from_numpy(rings))).numpy()
    hit = _flat(torch.from_numpy(showers)).numpy() > 0
    site = _share_site(counts, n_phi).flatten(1).numpy()
    count = hits.reshape(site.shape)
    mean_hit = np.log(np.maximum(rings.reshape(site.shape) / np.maximum(count, 1), 1e-6))
    samples = []
    for row in range(showers.shape[1] * len(_classes(n_phi))):
        chosen = (site == row) & (count > 1)
        y, own, n, x = ratio[chosen], hit[chosen], count[chosen], mean_hit[chosen]
        scatter = (np.expm1(y) ** 2 * own).sum(1) / n  # of n times a Dirichlet share: (n - 1) / (n a + 1)
        mean_scatter = np.maximum(_smoothed(scatter, x), 1e-6)
        alpha = np.maximum((n - 1) / mean_scatter - 1, _SMALLEST_SHAPE) / n
        weight = y + _log_total(1 / alpha, n, rng)[:, None]
        samples.append((weight[own], np.broadcast_to(x[:, None], own.shape)[own]))
    return fit_marginals(samples, LOG_HIT_KNOTS)


def _smoothed(value: Float[np.ndarray, "m"], x: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """Mean of `value` around each `x`: piecewise linear between `LOG_HIT_KNOTS`."""
    step = LOG_HIT_KNOTS[1] - LOG_HIT_KNOTS[0]
    hat = np.clip(1 - np.abs(np.clip(x, LOG_HIT_KNOTS[0], LOG_HIT_KNOTS[-1])[:, None] - LOG_HIT_KNOTS) / step, 0, 1)
    total = hat.sum(0)
    known = total > 0
    if not known.any():
        return value
    at_knots = (hat.T @ value)[known] / total[known]
    return np.asarray(np.interp(x, LOG_HIT_KNOTS[known], at_knots))


def surroundings(showers: ShowerTensor) -> ShowerTensor:
    """Ln of the smoothed root of the energy (MeV) around each cell (phi wraps round): what ranks the empty ones."""
    field = torch.sqrt(showers)
    turned = [weight * field.roll(shift, 2) for shift, weight in zip(range(-2, 3), _KERNEL_PHI_Z, strict=True)]
    padded = torch.nn.functional.pad(torch.stack(turned).sum(0), (2, 2, 0, 0, 1, 1))
    n_r, n_z = showers.shape[1], showers.shape[3]
    smooth = torch.zeros_like(showers)
    for i, across in enumerate(_KERNEL_R):
        for j, along in enumerate(_KERNEL_PHI_Z):
            smooth += across * along * padded[:, i : i + n_r, :, j : j + n_z]
    return torch.log(smooth + _NOTHING)


def place_cells(score: ShowerTensor, around: ShowerTensor, generator: torch.Generator) -> ShowerTensor:
    """Cell latents, drawn anew with every call.

    Args:
        score: from `encode_shares`.
        around: from `surroundings`.
        generator: of the order statistics and of the ranks of the empty cells.
    """
    n, n_r, n_phi, n_z = score.shape
    score, around = _flat(score), _flat(around)
    hit = ~score.isnan()
    n_hits = hit.sum(-1, keepdim=True)
    device = score.device
    noise = torch.randn(score.shape, generator=generator).to(device)
    key = torch.where(hit, torch.inf, around + _RANK_NOISE * noise)
    order = key.argsort(-1, descending=True)
    uniform = torch.rand(score.shape, generator=generator).to(device).sort(-1, descending=True).values
    tau = torch.where(n_hits < n_phi, uniform.gather(-1, n_hits.clamp_max(n_phi - 1)), 0.0)
    drawn = torch.empty_like(uniform).scatter_(-1, order, uniform)
    alone = torch.rand(score.shape, generator=generator).to(device)
    share = torch.where(score == ALONE, alone, torch.special.ndtr(score))
    latent = score_of(torch.where(hit, tau + (1 - tau) * share, drawn))
    return latent.reshape(n, n_r, n_z, n_phi).permute(0, 1, 3, 2)


def share_out(
    table: ConditionalMarginals,
    latent: ShowerTensor,
    hits: Int[Tensor, "n r z"],
    rings: Float[Tensor, "n r z"],
    threshold: float,
    spectrum: Spectrum | None = None,
) -> ShowerTensor:
    """Cell energies that add up to `rings`, each hit's above `threshold`.

    Args:
        table: see `fit_shares`.
        latent: of the cells: the `hits` largest of a ring are hit.
        hits: from `hits.draw_hits`; 0 gives an empty ring.
        rings: ring energies in MeV (over the scale of the file), at least `threshold` for each hit.
        threshold: smallest cell energy, in the unit of `rings`.
        spectrum: corrects the cells' excesses before they are made to add up.
    """
    n, n_r, n_phi, n_z = latent.shape
    cells = _flat(latent)
    count = hits.flatten(1)[..., None]
    descending, order = cells.sort(dim=-1, descending=True, stable=True)
    least = descending.gather(-1, count.clamp_max(n_phi - 1))
    tau = torch.where(count < n_phi, torch.special.ndtr(least), 0.0)
    hit = torch.arange(n_phi, device=cells.device) < count
    hit = torch.empty_like(hit).scatter_(-1, order, hit)  # by rank: as many as were drawn even if some are equal
    u = (torch.special.ndtr(cells) - tau) / (1 - tau).clamp_min(1e-9)
    above = (rings - hits * threshold).clamp_min(0.0)
    mean_hit = log_energy(above / hits.clamp_min(1)).flatten(1)
    ratio = table.inverse(score_of(u.clamp(0, 1)), mean_hit, _share_site(hits, n_phi).flatten(1))
    share = torch.where(hit, ratio, -torch.inf).softmax(-1)
    shared = above.flatten(1)[..., None] * torch.where(count > 0, share, 0.0)
    if spectrum is not None:
        in_mesh = shared.reshape(n, n_r, n_z, n_phi).permute(0, 1, 3, 2)
        shared = _flat(spectrum.inverse(in_mesh))
    energy = torch.where(hit, threshold + shared, 0.0)
    energy = energy * (rings.flatten(1)[..., None] / energy.sum(-1, keepdim=True).clamp_min(1e-9))
    return energy.reshape(n, n_r, n_z, n_phi).permute(0, 1, 3, 2)
