"""How likely normalised showers are under each generator, in nats.

A generator is a density of `Latents`, not of showers in MeV. The normaliser that stands between them is the same for
all showers of a detector, but it has no Jacobian: counts of hits and empty rings stand for intervals of latents, within
which they are drawn. Scores behind one normaliser can be compared with one another, those behind two cannot.

`autoregressive_density` gives two numbers:

    log_likelihood   ln P(s | c) of the sequence s of code indices, a discrete probability: what the prior learned.
    bound            of the density of the latents, ln p(x) >= ln P(s | c) + ln p(x | s): one term of the sum over s.
                     p(x | s) is uniform within the bins of total and layers, the decoder's normal for the rest.

`diffusion_bound` is the evidence lower bound in continuous time (Kingma et al., arXiv:2107.00630, eq. 17; Song et al.,
arXiv:2101.09258). On x_a = sin(a) x + cos(a) noise the ratio of signal to noise is tan^2(a), and x - x_hat is
cos(a) (v - v_hat), so that 1/2 dSNR |x - x_hat|^2 = tan(a) |v - v_hat|^2 da. A network that returns v_hat = 0 samples
independent normals, for which the bound is exact for every x. Less that,

    ln p(x) >= ln N(x; 0, 1) + int_0^end tan(a) E[2 v.v_hat - |v_hat|^2] da,

whose integrand is small where latents are nearly normal, as the normaliser makes them, and vanishes at both ends for an
exact denoiser. Nothing is lost at a = 0, where x_a is the prior's noise. Beyond `end` the network counts as zero: the
last step is N(x; sin(a) x_a, cos^2(a)), a normalised density, so that the bound is one at any `end`. What that costs
against an exact denoiser is about cos^2(end) / 2 (m^2 + (s^2 - 1)^2 / s^2) for a value of mean m and width s.

The bound is of ancestral sampling in infinitely many steps. Samplers of few steps, shortcuts among them, have no
density that comes as cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import Batch
from metacalo.generators.diffusion import Diffusion, mix
from metacalo.normaliser.latents import Latents

__all__ = [
    "END",
    "AutoregressiveDensity",
    "Bound",
    "PathDraws",
    "autoregressive_density",
    "denoising_gain",
    "diffusion_bound",
    "normal_log_density",
]

END = math.atan(20.0)
"""Where the path is cut: the noise is a twentieth of the signal, and training has hardly been any further."""

_STRUCTURE = ("total", "layers", "rings", "hits")

Velocity = Callable[[Latents, float], Latents]
"""(x_a, angle) to the estimate of v."""


class Bound(NamedTuple):
    """A lower bound of ln p, and the standard error of its estimate, both in nats."""

    value: Float[Tensor, "n"]
    error: Float[Tensor, "n"]


class AutoregressiveDensity(NamedTuple):
    """ln P of the codes, and the bound of ln p of the latents, both in nats."""

    log_likelihood: Float[Tensor, "n"]
    bound: Float[Tensor, "n"]


@dataclass(frozen=True)
class PathDraws:
    """Where on the path a bound is estimated: the same angles and noise for every shower, so that bounds compare.

    Attributes:
        angles: one in each of as many equal intervals of [0, end], rad, shape (times,).
        noise: one shower of noise for each.
        end: rad.
    """

    angles: Float[Tensor, "times"]
    noise: Latents
    end: float

    @classmethod
    def stratified(
        cls, times: int, grid: tuple[int, int, int], generator: torch.Generator, *, end: float = END
    ) -> Self:
        """Draws for a mesh of `grid` cells.

        Raises:
            ValueError: `times` is not even and positive, or `end` not between 0 and pi/2.
        """
        if times < 2 or times % 2 or not 0 < end < math.pi / 2:
            message = f"{times} times up to an angle of {end:g}: an even number, and an angle below pi/2, are needed"
            raise ValueError(message)
        angles = (torch.arange(times) + torch.rand(times, generator=generator)) * (end / times)
        return cls(angles, Latents.noise(times, grid, generator), end)

    def to(self, device: torch.device | str) -> PathDraws:
        """The same draws with their noise on another device."""
        return PathDraws(self.angles, self.noise.to(device), self.end)


def normal_log_density(latents: Latents, components: Collection[str]) -> Float[Tensor, "n"]:
    """Log-density of independent standard normals, of those components of the latents together."""
    values = _rows(latents, components)
    return -0.5 * (values**2).sum(1) - 0.5 * values.shape[1] * math.log(2 * math.pi)


def denoising_gain(velocity: Velocity, latents: Latents, components: Collection[str], draws: PathDraws) -> Bound:
    """What a denoiser adds to the log-density of independent normals: int_0^end tan(a) E[2 v.v_hat - |v_hat|^2] da.

    The error is that of collapsed strata (Cochran, Sampling Techniques, 5A.12): neighbours serve as two draws of one
    stretch of the path, so that it comes out rather too large than too small.

    Args:
        velocity: the denoiser.
        latents: of n showers.
        components: those that the denoiser sees.
        draws: where on the path.
    """
    width, terms = draws.end / len(draws.angles), []
    for i, angle in enumerate(draws.angles.tolist()):
        noise = draws.noise[i : i + 1]
        sine, cosine = (latents.total.new_tensor([f(angle)]) for f in (math.sin, math.cos))
        v = _rows(mix(latents, noise, cosine, -sine), components)
        v_hat = _rows(velocity(mix(latents, noise, sine, cosine), angle), components)
        terms.append(width * math.tan(angle) * (v_hat * (2 * v - v_hat)).sum(1))
    values = torch.stack(terms)
    return Bound(values.sum(0), (values[::2] - values[1::2]).square().sum(0).sqrt())


def diffusion_bound(model: Diffusion, batch: Batch, draws: PathDraws, *, cells: bool = False) -> Bound:
    """Lower bound of ln p(latents | conditions) under a denoiser.

    The density is of total, layers, rings and hits, and of the cells if the network sees them; with `cells` of them in
    any case. Those that the network does not see are independent normals.
    """
    seen = model.settings.weights.components
    gain = denoising_gain(lambda x, angle: model.velocity(x, angle, batch.conditions), batch.latents, seen, draws)
    return Bound(normal_log_density(batch.latents, _components(cells or model.sees_cells)) + gain.value, gain.error)


def autoregressive_density(model: Autoregressive, batch: Batch, *, cells: bool = False) -> AutoregressiveDensity:
    """Log-probability of the codes, and the lower bound of ln p(latents | conditions) that they give.

    The density is of the same latents as in `diffusion_bound`; those that have no codes are independent normals. An
    energy latent beyond the outermost bins, 4.5 widths off, counts as within them.
    """
    codes = model.encode(batch.latents)
    log_likelihood = model.prior.log_likelihood(codes, batch.conditions).double()
    n_energies, tokenizer = model.prior.n_energies, model.tokenizer
    mean, log_sigma = tokenizer.decode(codes[:, n_energies:].reshape(len(codes), -1, model.prior.depth))
    nothing, one = (batch.latents.map(like) for like in (torch.zeros_like, torch.ones_like))
    # a ring that patches in phi share is the mean of theirs, and its width the mean of their widths
    means, widths = tokenizer.patching.split(mean, nothing), tokenizer.patching.split(log_sigma.exp(), one)
    decoded = [
        component for component in _components(cells or model.sees_cells) if component not in ("total", "layers")
    ]
    scores = batch.latents.combine(means, torch.sub).combine(widths, torch.div)
    bound = normal_log_density(scores, decoded) - _rows(widths, decoded).log().sum(1)
    return AutoregressiveDensity(log_likelihood, log_likelihood + bound - n_energies * math.log(model.bin_width))


def _components(cells: bool) -> tuple[str, ...]:
    return (*_STRUCTURE, "cells") if cells else _STRUCTURE


def _rows(latents: Latents, components: Collection[str]) -> Float[Tensor, "n value"]:
    """Those components in one row per shower; in double precision, for sums of thousands of values."""
    return torch.cat(
        [getattr(latents, component).reshape(len(latents), -1).double() for component in components], dim=1
    )
