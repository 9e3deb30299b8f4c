"""What marginals leave of the incident energy in latents: their mean and width at each energy.

Marginals make each latent standard normal over all energies. At one energy its mean and width still differ from 0 and
1: a ring of 10 MeV is the core of a 1 GeV shower and the fringe of a 100 GeV one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.marginals import Interval

__all__ = ["ENERGY_KNOTS", "EnergyDependence", "fit_energy_dependence", "hat_weights"]

ENERGY_KNOTS = np.linspace(np.log(1e3), np.log(1e5), 5)
"""Knots in ln(E_inc / MeV) of means and widths: 1 to 100 GeV, held outside."""

_WIDTH_LIMITS = (0.3, 3.0)
_EM_ROUNDS = 30
_SQRT_2PI = math.sqrt(2 * math.pi)
_FAR = 8.0  # score of what is as good as infinite
_NARROW = 1e-2  # width of an interval that counts as its middle
_LEAST = 1e-9  # probability of an interval that single precision still resolves


def hat_weights(log_energy: Tensor, knots: np.ndarray) -> Float[Tensor, "n K"]:
    """Weight of each knot at ln(E_inc / MeV); linear interpolation between knots is a product with it."""
    step = knots[1] - knots[0]
    position = (log_energy.clamp(float(knots[0]), float(knots[-1])) - knots[0]) / step
    distance = (position[:, None] - torch.arange(len(knots), device=position.device)).abs()
    return torch.clamp(1 - distance, min=0).float()


@dataclass(frozen=True)
class EnergyDependence:
    """Mean and width of each structural latent as functions of ln(E_inc), linear between `ENERGY_KNOTS`.

    Attributes:
        mean, log_width: shape (K, d).
        weight: showers behind each knot, shape (K,).
    """

    mean: Float[Tensor, "K d"]
    log_width: Float[Tensor, "K d"]
    weight: Float[Tensor, "K"]

    def forward(self, structure: Float[Tensor, "n d"], log_energy: Float[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """Structure with mean 0 and width 1 at each energy."""
        hat = hat_weights(log_energy, ENERGY_KNOTS)
        return (structure - hat @ self.mean) * torch.exp(-(hat @ self.log_width))

    def inverse(self, structure: Float[Tensor, "n d"], log_energy: Float[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """Inverse of `forward`."""
        hat = hat_weights(log_energy, ENERGY_KNOTS)
        return structure * torch.exp(hat @ self.log_width) + hat @ self.mean

    def shrunk_towards(self, prior: EnergyDependence, strength: float) -> EnergyDependence:
        """Mean and width averaged with `prior`'s, which count as `strength` showers at each knot."""
        share = (self.weight / (self.weight + strength))[:, None]
        return EnergyDependence(
            torch.lerp(prior.mean, self.mean, share), torch.lerp(prior.log_width, self.log_width, share), self.weight
        )

    def columns(self) -> Float[Tensor, "d K column"]:
        """Mean and log width side by side, for regression over detectors."""
        return torch.stack([self.mean.T, self.log_width.T], dim=-1)

    @classmethod
    def from_columns(cls, columns: Float[Tensor, "d K column"], weight: Float[Tensor, "K"]) -> EnergyDependence:
        """Inverse of `columns`."""
        return cls(columns[..., 0].T.contiguous(), columns[..., 1].T.contiguous(), weight)

    @classmethod
    def none(cls, size: int) -> EnergyDependence:
        """Of `size` latents, one that changes nothing."""
        n_knots = len(ENERGY_KNOTS)
        return cls(torch.zeros(n_knots, size), torch.zeros(n_knots, size), torch.zeros(n_knots))

    def row_weight(self) -> Float[Tensor, "d K"]:
        """Showers behind mean and width of each latent at each knot."""
        return self.weight.expand(self.mean.shape[1], -1)

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name, for a safetensors file."""
        return {"mean": self.mean, "log_width": self.log_width, "weight": self.weight}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> EnergyDependence:
        """Inverse of `tensors`."""
        return cls(*(tensors[name].float() for name in ("mean", "log_width", "weight")))


def fit_energy_dependence(
    structure: Interval, log_energy: Float[Tensor, "n"], prior: EnergyDependence | None = None, strength: float = 0.0
) -> EnergyDependence:
    """Most probable means and widths of normals of which intervals are known (EM; Dempster, Laird and Rubin 1977).

    What lies in an interval is averaged over, never drawn: most outer rings are empty, and values drawn under the means
    so far would hold those means where they are. Knots without showers follow their neighbours. The first latent, of
    the total, does not depend on the energy.

    Args:
        structure: intervals (n, d) of the structural latents, energy dependence included.
        log_energy: ln(E_inc / MeV).
        prior: where to start from.
        strength: latents, known exactly, that `prior` counts for at each knot.
    """
    hat = hat_weights(log_energy, ENERGY_KNOTS)
    gram = hat.T @ hat
    roughness = _roughness(len(ENERGY_KNOTS))
    pull = strength * torch.eye(len(ENERGY_KNOTS))
    known = prior if prior is not None else EnergyDependence.none(structure.lower.shape[1])
    mean, variance = known.mean.clone(), torch.exp(2 * known.log_width)
    towards_mean, towards_variance = pull @ mean, (pull + 0.01 * torch.eye(len(ENERGY_KNOTS))) @ variance
    inverse = torch.linalg.inv(gram + pull + roughness)
    open_columns = (structure.lower < structure.upper).any(0)
    for columns, n_rounds in ((~open_columns, 2), (open_columns, _EM_ROUNDS)):
        lower, upper = (side[:, columns] for side in structure)
        level, spread = mean[:, columns], variance[:, columns]
        for _ in range(n_rounds):
            centre, width = hat @ level, torch.sqrt(hat @ spread)
            score, square = _moments((lower - centre) / width, (upper - centre) / width)
            level = inverse @ (hat.T @ (centre + width * score) + towards_mean[:, columns])
            moved = hat @ level - centre
            squared = width**2 * square - 2 * moved * width * score + moved**2
            low, high = _WIDTH_LIMITS
            spread = (inverse @ (hat.T @ squared + towards_variance[:, columns])).clamp(low**2, high**2)
        mean[:, columns], variance[:, columns] = level, spread
    log_width = 0.5 * torch.log(variance)
    mean[:, 0], log_width[:, 0] = 0.0, 0.0  # the response is a function of the energy already
    return EnergyDependence(mean, log_width, hat.sum(0))


def _moments(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean square of standard normals truncated to intervals."""
    flip = lower + upper > 0  # where probabilities are small and their differences exact
    a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    a, b = a.clamp_min(-_FAR), b.clamp_max(_FAR)
    below, above = torch.exp(-0.5 * a**2) / _SQRT_2PI, torch.exp(-0.5 * b**2) / _SQRT_2PI
    inside = torch.special.ndtr(b) - torch.special.ndtr(a)
    narrow = (b - a < _NARROW) | (inside < _LEAST)
    inside = torch.where(narrow, torch.ones_like(inside), inside)
    middle = torch.maximum(torch.minimum(0.5 * (a + b), b), a)
    first = torch.where(narrow, middle, (below - above) / inside)
    second = torch.where(narrow, middle**2, 1 + (a * below - b * above) / inside)
    return torch.where(flip, -first, first), second


def _roughness(n_knots: int) -> Float[Tensor, "K K"]:
    """One shower's worth of preference for neighbouring knots to be equal, and a hundredth for zero."""
    difference = torch.eye(n_knots)[1:] - torch.eye(n_knots)[:-1]
    return difference.T @ difference + 0.01 * torch.eye(n_knots)
