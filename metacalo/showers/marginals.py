"""Conditional marginals: a monotone map between cell energies and a standard normal latent, tabulated and fitted.

A *site* is a place whose distribution is tabulated, for example one (r, z) ring; its *cells* share it (the phi cells).
At each knot of a context variable x a site has the probability of an exact zero, kept as t0 = ndtri(p0), and the
quantiles of ln(energy) given that it is not zero. Between knots both are interpolated linearly, so the map

    t = ndtri(p0 + (1 - p0) u),   u = P(energy' <= energy | energy' > 0)

takes every marginal to N(0, 1) whatever the detector. Zeros are the latents below t0: they are dequantised by drawing
from the normal truncated there, and come back as exact zeros. Averaging such tables over detectors averages quantile
functions, which is the Wasserstein barycentre of one-dimensional distributions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["LEVELS", "ConditionalMarginals", "dequantise", "fit_marginals"]

LEVELS = (0.001, 0.008, 0.03, 0.08, 0.18, 0.32, 0.5, 0.68, 0.82, 0.92, 0.97, 0.992, 0.999)
"""Quantile levels of the tables, dense in the tails where ln(energy) bends."""

_T0_LIMIT = 4.0  # p0 in [3e-5, 1 - 3e-5]: rarer zeros, or rarer hits, are not resolved by any sample we fit on
_LATENT_LIMIT = 8.0
_MIN_SLOPE = 1e-3  # smallest d ln(energy) / d score: keeps the map invertible where quantiles coincide


@dataclass(frozen=True)
class ConditionalMarginals:
    """Tables of one family of sites.

    Attributes:
        knots: context values of the table rows, ascending and equidistant, shape (K,).
        t0: normal score of the zero probability, shape (S, K).
        log_quantiles: ln(energy) at `LEVELS` given a hit, ascending in the last axis, shape (S, K, J).
        weight: effective number of showers behind a row, shape (S, K); 0 where it is prior or fill alone.
        extrapolate: continue the tables linearly outside the knots (else the end rows hold).
    """

    knots: Float[Tensor, "K"]
    t0: Float[Tensor, "S K"]
    log_quantiles: Float[Tensor, "S K J"]
    weight: Float[Tensor, "S K"]
    extrapolate: bool = False

    def _rows(self, x: Float[Tensor, "n S"]) -> tuple[Float[Tensor, "n S"], Float[Tensor, "n S J"]]:
        """t0 and quantiles at context `x`, with the quantiles forced to ascend."""
        step = self.knots[1] - self.knots[0]
        position = (x - self.knots[0]) / step
        last = len(self.knots) - 1
        if not self.extrapolate:
            position = position.clamp(0, last)
        left = position.floor().clamp(0, last - 1).long()
        share = (position - left)[..., None]
        site = torch.arange(self.t0.shape[0], device=x.device).expand_as(left)
        t0 = torch.lerp(self.t0[site, left], self.t0[site, left + 1], share[..., 0])
        table = torch.lerp(self.log_quantiles[site, left], self.log_quantiles[site, left + 1], share)
        return t0.clamp(-_T0_LIMIT, _T0_LIMIT), torch.cummax(table, dim=-1).values

    def _scores(self) -> Float[Tensor, "J"]:
        scores: Tensor = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
        return scores.to(self.t0)

    def to_latent(
        self, energy: Float[Tensor, "n S cell"], x: Float[Tensor, "n S"]
    ) -> tuple[Float[Tensor, "n S cell"], Float[Tensor, "n S"]]:
        """Latents of `energy` (>= 0, in the unit of the fit), NaN where it is zero, and t0 below which zeros lie."""
        t0, table = self._rows(x)
        hit = energy > 0
        log_energy = torch.log(torch.where(hit, energy, torch.ones_like(energy)))
        score = _interpolate(log_energy, table, self._scores())
        p0 = torch.special.ndtr(t0)[..., None]
        below = p0 + (1 - p0) * torch.special.ndtr(score)
        above = (1 - p0) * torch.special.ndtr(-score)
        latent = torch.where(below < 0.5, _ndtri(below), -_ndtri(above)).clamp(-_LATENT_LIMIT, _LATENT_LIMIT)
        return torch.where(hit, latent, torch.full_like(latent, torch.nan)), t0

    def to_energy(self, latent: Float[Tensor, "n S cell"], x: Float[Tensor, "n S"]) -> Float[Tensor, "n S cell"]:
        """Energies of latents, exactly zero at and below t0."""
        t0, table = self._rows(x)
        scores = self._scores()
        p0 = torch.special.ndtr(t0)[..., None]
        above = torch.special.ndtr(-latent) / (1 - p0)
        below = (torch.special.ndtr(latent) - p0) / (1 - p0)
        score = torch.where(above < 0.5, -_ndtri(above), _ndtri(below))
        energy = torch.exp(_extrapolated(score, scores, table))
        return torch.where(latent > t0[..., None], energy, torch.zeros_like(energy))

    def excess(self, latent: Float[Tensor, "n S cell"], x: Float[Tensor, "n S"]) -> Float[Tensor, "n S cell"]:
        """How far each latent lies above its zero threshold; negative for a zero."""
        return latent - self._rows(x)[0][..., None]

    def shrunk_towards(self, prior: ConditionalMarginals, strength: float) -> ConditionalMarginals:
        """Rows averaged with `prior`'s, which counts as `strength` showers (empirical Bayes)."""
        share = self.weight / (self.weight + strength)
        return ConditionalMarginals(
            self.knots,
            torch.lerp(prior.t0, self.t0, share),
            torch.lerp(prior.log_quantiles, self.log_quantiles, share[..., None]),
            self.weight,
            self.extrapolate,
        )

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The tables by name, for a safetensors file."""
        return {
            f"{prefix}.knots": self.knots,
            f"{prefix}.t0": self.t0,
            f"{prefix}.log_quantiles": self.log_quantiles,
            f"{prefix}.weight": self.weight,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], prefix: str, *, extrapolate: bool) -> ConditionalMarginals:
        """Inverse of `tensors`."""
        names = ("knots", "t0", "log_quantiles", "weight")
        knots, t0, log_quantiles, weight = (tensors[f"{prefix}.{name}"].float() for name in names)
        return cls(knots, t0, log_quantiles, weight, extrapolate)


def dequantise(latent: Tensor, t0: Tensor, generator: torch.Generator) -> Tensor:
    """Draws the latents of zeros (NaN in `latent`) from the standard normal below `t0` (broadcast against `latent`)."""
    uniform = torch.rand(latent.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(latent.device)
    below = torch.special.ndtr(t0) * uniform
    # erfinv is vectorised where ndtri is not, and exact enough here: p0 is never below ndtr(-4)
    return torch.where(latent.isnan(), 2**0.5 * torch.erfinv((2 * below - 1).clamp(-1 + 1e-7, 1 - 1e-7)), latent)


def _ndtri(probability: Tensor) -> Tensor:
    return torch.special.ndtri(probability.clamp(1e-30, 1 - 1e-7))  # type: ignore[no-any-return]


def _segment(index: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    return torch.gather(table, -1, index), torch.gather(table, -1, index + 1)


def _interpolate(value: Tensor, table: Tensor, scores: Tensor) -> Tensor:
    """Score at which `table` (n, S, J) reaches `value` (n, S, cell); end segments continue linearly."""
    index = torch.searchsorted(table[..., 1:-1].contiguous(), value.contiguous())
    low, high = _segment(index, table)
    slope = ((high - low) / (scores[index + 1] - scores[index])).clamp_min(_MIN_SLOPE)
    return (scores[index] + (value - low) / slope).clamp(-_LATENT_LIMIT, _LATENT_LIMIT)


def _extrapolated(score: Tensor, scores: Tensor, table: Tensor) -> Tensor:
    """Value of `table` at `score`: the inverse of `_interpolate`."""
    index = torch.bucketize(score, scores[1:-1])
    low, high = _segment(index, table)
    slope = ((high - low) / (scores[index + 1] - scores[index])).clamp_min(_MIN_SLOPE)
    return low + (score - scores[index]) * slope


def fit_marginals(
    energy: Float[np.ndarray, "n S cell"],
    x: Float[np.ndarray, "n S"],
    knots: Float[np.ndarray, "K"],
    neighbours: list[list[tuple[int, float]]],
    *,
    extrapolate: bool = False,
) -> ConditionalMarginals:
    """Weighted empirical tables: each shower counts at the two knots around its context, by its distance (hat weights).

    Args:
        energy: cell energies, >= 0.
        x: context of each site.
        knots: ascending, equidistant context values.
        neighbours: for each site, the sites (with weights) whose showers are pooled for it.
        extrapolate: see `ConditionalMarginals`.

    Rows without showers are filled from the nearest knot of the same site that has some.
    """
    _, n_sites, n_cells = energy.shape
    step = knots[1] - knots[0]
    hat = np.clip(1 - np.abs(np.clip(x, knots[0], knots[-1])[..., None] - knots) / step, 0, 1)  # (n, S, K)
    t0 = np.zeros((n_sites, len(knots)))
    quantiles = np.full((n_sites, len(knots), len(LEVELS)), np.nan)
    weight = hat.sum(0)
    levels = np.array(LEVELS)
    for site, pool in enumerate(neighbours):
        values = np.concatenate([energy[:, other].reshape(-1) for other, _ in pool])
        weights = np.concatenate([np.repeat(hat[:, other] * share, n_cells, axis=0) for other, share in pool])
        hits = values > 0
        total = weights.sum(0)
        hit_weights = weights[hits]
        zero_share = 1 - hit_weights.sum(0) / np.maximum(total, 1e-12)
        t0[site] = _normal_score(zero_share)
        order = np.argsort(values[hits])
        log_values = np.log(values[hits][order])
        hit_weights = hit_weights[order]
        for knot in range(len(knots)):
            some = hit_weights[:, knot] > 0
            if some.sum() >= 3:
                share = hit_weights[some, knot]
                cumulative = (np.cumsum(share) - 0.5 * share) / share.sum()
                quantiles[site, knot] = np.interp(levels, cumulative, log_values[some])
        _fill_from_nearest(t0[site], quantiles[site], total > 0.5)
    _fill_empty_sites(quantiles)
    return ConditionalMarginals(
        _single(knots),
        _single(np.clip(t0, -_T0_LIMIT, _T0_LIMIT)),
        _single(quantiles),
        _single(weight),
        extrapolate,
    )


def _single(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _normal_score(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(torch.special.ndtri(torch.from_numpy(clipped)))


def _fill_from_nearest(t0: np.ndarray, quantiles: np.ndarray, seen: np.ndarray) -> None:
    for array, known in ((t0, seen), (quantiles, np.isfinite(quantiles[:, 0]))):
        rows = np.flatnonzero(known)
        if len(rows):
            nearest = rows[np.abs(np.arange(len(array))[:, None] - rows).argmin(1)]
            array[:] = array[nearest]


def _fill_empty_sites(quantiles: np.ndarray) -> None:
    """Sites that were never hit take the mean table of those that were; their t0 says that hits are rare."""
    empty = ~np.isfinite(quantiles[:, 0, 0])
    if empty.all():
        quantiles[:] = 0.0
    elif empty.any():
        quantiles[empty] = quantiles[~empty].mean(0)
