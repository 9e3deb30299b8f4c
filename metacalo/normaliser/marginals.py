"""Conditional marginals: a monotone map between a value and a standard normal latent, as tables (`tabulate` fits them).

A *site* is a place whose distribution is tabulated, for example the inner ring of three neighbouring layers. At each
knot of a context variable x a site has the probability of the value's lower atom (-inf: an exact zero of an energy)
and of its upper atom (+inf: all of an energy), kept as the normal scores t0 and t1, and the quantiles of the values
between. Between knots all are interpolated linearly, so that

    t = ndtri(p0 + (1 - p0 - p1) u),   u = P(value' <= value | no atom),   p0 = ndtr(t0),  p1 = ndtr(-t1)

takes every marginal to N(0, 1) whatever the detector. An atom stands for a whole interval of latents, from which
`draw_within` dequantises it. Averaging such tables over detectors averages quantile functions, which is the
Wasserstein barycentre of one-dimensional distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "ATOM_LIMIT",
    "LEVELS",
    "NO_ATOM",
    "N_ATOMS",
    "ConditionalMarginals",
    "Interval",
    "draw_within",
    "held_inside",
    "score_of",
    "scores_of_levels",
]

LEVELS = (0.001, 0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99, 0.999)
"""Quantile levels of the tables, dense in the tails where values bend."""

ATOM_LIMIT = 4.0
"""|Score| at which an atom ends at most: its probability is in [3e-5, 1 - 3e-5], finer than any sample resolves."""

NO_ATOM = 8.0
"""|Score| of an atom that cannot be."""

N_ATOMS = 2
"""Columns of `ConditionalMarginals.columns` before those of the quantiles."""

_TENSORS = ("knots", "t0", "t1", "quantiles", "weight", "planes")
_MEDIAN = LEVELS.index(0.5)
# values that no departure counts for; 3 to 100 serve alike (docs/experiments/trust-in-shots.md)
_COMMON_STRENGTH = 30.0
_LATENT_LIMIT = 6.0
_REACHED = 5.0  # |score| at which an atom that can be begins at the latest: single precision draws none beyond 5.29
_ROUNDING = 1e-2  # of a score, where regression or averages stand for `NO_ATOM`
_APART, _LARGEST_PART = 3e-4, 0.03  # from the ends of an interval: in score, and of its width
_MIN_SLOPE = 1e-3  # smallest d value / d score: keeps the map invertible where quantiles coincide


class Interval(NamedTuple):
    """Scores between which a latent lies, of any one shape; equal where a value has one latent only."""

    lower: Tensor
    upper: Tensor


def draw_within(interval: Interval, generator: torch.Generator) -> Tensor:
    """Standard normal latents truncated to the interval and off its ends, of its shape; `generator` is of the CPU."""
    lower, upper = interval
    below, above = torch.special.ndtr(lower), torch.special.ndtr(upper)
    uniform = torch.rand(lower.shape, generator=generator).to(lower.device)
    drawn = score_of(below + (above - below) * uniform)
    return torch.where(lower == upper, lower, held_inside(drawn, interval))


def held_inside(latent: Tensor, interval: Interval) -> Tensor:
    """Latents held a little off the ends of the interval: the rounding of later maps must not step over them."""
    lower, upper = interval
    margin = (_LARGEST_PART * (upper - lower)).clamp(max=_APART)
    return torch.minimum(torch.maximum(latent, lower + margin), upper - margin)


def score_of(probability: Tensor) -> Tensor:
    """The normal score (inverse of `ndtr`), limited to +-5.29 by single precision."""
    # erfinv is vectorised where ndtri is not
    return 2**0.5 * torch.erfinv((2 * probability - 1).clamp(-1 + 1.2e-7, 1 - 1.2e-7))


def scores_of_levels() -> Float[Tensor, "J"]:
    """Normal scores of `LEVELS`."""
    scores: Tensor = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    return scores.float()


@dataclass(frozen=True)
class ConditionalMarginals:
    """Tables of one family of sites.

    Methods take n showers, s columns with one context each, and c values in each column.

    Attributes:
        knots: context values of the table rows, ascending and equidistant, shape (K,), K > 1.
        t0, t1: normal scores at which the lower atom ends and the upper one begins, shape (S, K).
        quantiles: values at `LEVELS` between the atoms, ascending in the last axis, shape (S, K, J).
        weight: effective number of values behind a row, shape (S, K); 0 where it is prior or fill alone.
        extrapolate: continue the tables linearly outside the knots (else the end rows hold).
        planes: knots of a second context y, ascending and equidistant, shape (P,); the tables of a site at its P planes
            follow one another in the first axis. Beyond its ends the end planes hold. One plane: no second context.
    """

    knots: Float[Tensor, "K"]
    t0: Float[Tensor, "S K"]
    t1: Float[Tensor, "S K"]
    quantiles: Float[Tensor, "S K J"]
    weight: Float[Tensor, "S K"]
    extrapolate: bool = False
    planes: Float[Tensor, "P"] = field(default_factory=lambda: torch.zeros(1))

    def _rows(
        self, x: Float[Tensor, "n s"], site: Int[Tensor, "n s"] | None, y: Float[Tensor, "n s"] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """t0, t1 (n, s, 1) and ascending quantiles (n, s, J) at contexts `x` and `y`."""
        last = len(self.knots) - 1
        position = (x - self.knots[0]) / (self.knots[1] - self.knots[0])
        if not self.extrapolate:
            position = position.clamp(0, last)
        left = position.floor().clamp(0, last - 1).long()
        share = (position - left)[..., None]
        if site is None:
            site = torch.arange(self.t0.shape[0] // len(self.planes), device=x.device).expand_as(left)
        columns = torch.cat([self.t0[..., None], self.t1[..., None], self.quantiles], dim=-1).flatten(0, 1)
        n_planes = len(self.planes)
        index = site * n_planes * (last + 1) + left
        row = torch.lerp(columns[index], columns[index + 1], share)
        if y is not None and n_planes > 1:
            height = ((y - self.planes[0]) / (self.planes[1] - self.planes[0])).clamp(0, n_planes - 1)
            plane = height.floor().clamp(0, n_planes - 2).long()
            lower, upper = index + plane * (last + 1), index + (plane + 1) * (last + 1)
            below, above = (torch.lerp(columns[at], columns[at + 1], share) for at in (lower, upper))
            row = torch.lerp(below, above, (height - plane)[..., None])
        t0 = -_reachable(-row[..., :1]).clamp_min(-ATOM_LIMIT)
        t1 = torch.maximum(_reachable(row[..., 1:2]).clamp_min(-ATOM_LIMIT), t0 + 1e-3)
        quantiles = row[..., 2:]  # of ascending rows; beyond them lines may cross
        return t0, t1, torch.cummax(quantiles, dim=-1).values if self.extrapolate else quantiles

    def forward(
        self,
        value: Float[Tensor, "n s c"],
        x: Float[Tensor, "n s"],
        site: Int[Tensor, "n s"] | None = None,
        y: Float[Tensor, "n s"] | None = None,
    ) -> Interval:
        """Intervals of latents that stand for `value`.

        Args:
            value: -inf and +inf are the atoms, NaN is a value that does not exist (all latents stand for it).
            x: contexts, in the units of the knots.
            site: whose tables each context belongs to; by default column k belongs to site k.
            y: second contexts, in the units of the planes, for tables with planes.
        """
        t0, t1, table = self._rows(x, site, y)
        inner = torch.isfinite(value)
        u = torch.special.ndtr(_score_in(table, torch.where(inner, value, 0.0), scores_of_levels().to(value)))
        p0, p1 = torch.special.ndtr(t0), torch.special.ndtr(-t1)
        latent = held_inside(score_of(p0 + (1 - p0 - p1) * u), Interval(t0, t1))  # however far out, it is no atom
        infinite = torch.full_like(latent, torch.inf)
        start, end = t0.clamp_min(-_LATENT_LIMIT), t1.clamp_max(_LATENT_LIMIT)  # an atom that cannot be is far out
        lower = torch.where(inner, latent, torch.where(value == torch.inf, end, -infinite))
        upper = torch.where(inner, latent, torch.where(value == -torch.inf, start, infinite))
        return Interval(lower, upper)

    def inverse(
        self,
        latent: Float[Tensor, "n s c"],
        x: Float[Tensor, "n s"],
        site: Int[Tensor, "n s"] | None = None,
        y: Float[Tensor, "n s"] | None = None,
    ) -> Float[Tensor, "n s c"]:
        """Values of latents: -inf up to t0, +inf from t1 on. Contexts and sites as for `forward`."""
        t0, t1, table = self._rows(x, site, y)
        p0, p1 = torch.special.ndtr(t0), torch.special.ndtr(-t1)
        latent = latent.clamp(-_LATENT_LIMIT, _LATENT_LIMIT)
        score = score_of((torch.special.ndtr(latent) - p0) / (1 - p0 - p1).clamp_min(1e-9))
        value = _value_in(table, score, scores_of_levels().to(latent))
        value = torch.where(latent <= t0, -torch.inf, value)
        return torch.where(latent >= t1, torch.inf, value)

    def relative_variance(self, x: Float[Tensor, "n s"], site: Int[Tensor, "n s"]) -> Float[Tensor, "n s"]:
        """Var(w) / E(w)^2 of w = exp(value) between the atoms, at contexts `x`."""
        _, _, table = self._rows(x, site, None)
        score = torch.linspace(-3.5, 3.5, 29, device=x.device)
        density = torch.exp(-0.5 * score**2)
        w = torch.exp(_value_in(table, score.repeat(*x.shape, 1), scores_of_levels().to(x)))
        first, second = (w @ density) / density.sum(), (w**2 @ density) / density.sum()
        return second / first**2 - 1

    def shrunk_towards(
        self, prior: ConditionalMarginals, strength: float, alike: Int[Tensor, "S"] | None = None
    ) -> ConditionalMarginals:
        """Rows averaged with `prior`'s (same sites and knots), which count as `strength` values (empirical Bayes).

        Args:
            prior: what is known without values.
            strength: values that it counts for in each row.
            alike: number of the group that each site belongs to, from 0. The prior is first moved, at each knot, by the
                mean departure of the medians of a group: their common error comes from all their values.
        """
        quantiles = prior.quantiles if alike is None else prior.quantiles + self._common_departure(prior, alike)
        share = self.weight / (self.weight + strength)
        return ConditionalMarginals(
            self.knots,
            torch.lerp(prior.t0, self.t0, share),
            torch.lerp(prior.t1, self.t1, share),
            torch.lerp(quantiles, self.quantiles, share[..., None]),
            self.weight,
            self.extrapolate,
            self.planes,
        )

    def _common_departure(self, prior: ConditionalMarginals, alike: Int[Tensor, "S"]) -> Float[Tensor, "S K 1"]:
        departure = (self.quantiles - prior.quantiles)[..., _MEDIAN]
        nothing = self.weight.new_zeros(int(alike.max()) + 1, self.weight.shape[1])
        values = nothing.index_add(0, alike, self.weight)
        summed = nothing.index_add(0, alike, self.weight * departure)
        return (summed / (values + _COMMON_STRENGTH))[alike, :, None]

    def columns(self) -> Float[Tensor, "S K column"]:
        """t0, t1 and the quantiles side by side, for regression over detectors."""
        return torch.cat([self.t0[..., None], self.t1[..., None], self.quantiles], dim=-1)

    @classmethod
    def from_columns(
        cls,
        knots: Tensor,
        columns: Float[Tensor, "S K column"],
        weight: Tensor,
        *,
        extrapolate: bool = False,
        planes: Tensor | None = None,
    ) -> ConditionalMarginals:
        """Inverse of `columns`; quantiles that do not ascend are lifted to the one before."""
        quantiles = torch.cummax(columns[..., 2:], dim=-1).values
        planes = torch.zeros(1) if planes is None else planes
        return cls(knots, columns[..., 0], columns[..., 1], quantiles, weight, extrapolate, planes)

    def row_weight(self) -> Float[Tensor, "S K"]:
        """Values behind each row."""
        return self.weight

    def tensors(self) -> dict[str, Tensor]:
        """The tables by name, for a safetensors file."""
        return {name: getattr(self, name).contiguous() for name in _TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, extrapolate: bool) -> ConditionalMarginals:
        """Inverse of `tensors`; they do not say whether to extrapolate."""
        knots, t0, t1, quantiles, weight, planes = (tensors[name].float() for name in _TENSORS)
        return cls(knots, t0, t1, quantiles, weight, extrapolate, planes)


def _reachable(start: Tensor) -> Tensor:
    """Scores at which atoms begin: those of atoms that can be, however rare an average says, where draws reach them."""
    return torch.where(start < NO_ATOM - _ROUNDING, start.clamp_max(_REACHED), NO_ATOM)


def _segment(table: Tensor, index: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Value at the start of segments of `table`, and their slope d value / d score."""
    low, high = torch.gather(table, -1, index), torch.gather(table, -1, index + 1)
    return low, ((high - low) / (scores[index + 1] - scores[index])).clamp_min(_MIN_SLOPE)


def _score_in(table: Float[Tensor, "n s J"], value: Float[Tensor, "n s c"], scores: Float[Tensor, "J"]) -> Tensor:
    """Score at which `table` reaches `value`; the end segments continue linearly."""
    index = torch.searchsorted(table[..., 1:-1].contiguous(), value.contiguous())
    low, slope = _segment(table, index, scores)
    return (scores[index] + (value - low) / slope).clamp(-_LATENT_LIMIT, _LATENT_LIMIT)


def _value_in(table: Float[Tensor, "n s J"], score: Float[Tensor, "n s c"], scores: Float[Tensor, "J"]) -> Tensor:
    """Value that `table` has at `score`: the inverse of `_score_in`."""
    index = torch.bucketize(score.contiguous(), scores[1:-1])
    low, slope = _segment(table, index, scores)
    return low + (score - scores[index]) * slope
