"""The response E_total / E_inc as a function of energy and angle: few parameters, because few shots must fit them.

    ln(response) = m(u) + b cos^2(theta) + s(u) q,   m quadratic, ln s linear in u,

where u is ln(E_inc) mapped so that the trained range is [-1, 1], and q has tabulated quantiles. In m it is held beyond
+-1.2, in s below -1.2 and above 1 TeV: the width goes on falling as sampling fluctuations do. The angle matters because
a slanted path crosses the same layers with thicker passive parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.condition_vector import energy_coordinate
from metacalo.normaliser.marginals import LEVELS, ConditionalMarginals, Interval
from metacalo.normaliser.tabulate import fit_marginals
from metacalo.typing import ShowerArray

__all__ = ["CALIBRATED", "Response", "convention_scale", "fit_response"]

CALIBRATED = 0.5
"""Mean response above which deposits were divided by the sampling fraction."""

_KNOTS = np.array([0.0, 1.0])  # a table needs two; both hold the same row
_RANGE = 1.2  # |u| beyond which the mean is held
_WIDTH_RANGE = (-1.2, 2.0)  # u beyond which the width is held
_RIDGE = (1e-6, 0.3, 0.3, 0.3)  # of the parameters of the mean, in showers
_FALLBACK_WIDTH = 0.05  # s, where there are too few showers to measure it
_FEWEST = 8
_OUTLIER = 3.0  # in units of s
_STRENGTH = (1.0, 10.0, 10.0, 20.0, 3.0, 20.0)  # how much more the prior counts for each parameter, the level first
_SHAPE_STRENGTH = 20.0


@dataclass(frozen=True)
class Response:
    """Parameters of the response.

    Attributes:
        mean: of m(u) = mean . (1, u, u^2), then the coefficient of cos^2(theta), shape (4,).
        log_width: of ln s(u) = log_width . (1, u), shape (2,).
        shape: table of q, one site, the same at all contexts; its lower atom is the empty shower.
        weight: showers behind the parameters.
    """

    mean: Float[Tensor, "4"]
    log_width: Float[Tensor, "2"]
    shape: ConditionalMarginals
    weight: float

    def _location_and_width(self, energy: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        u = energy_coordinate(energy)
        v = u.clamp(*_WIDTH_RANGE)
        u = u.clamp(-_RANGE, _RANGE)
        basis = torch.stack([torch.ones_like(u), u, u**2, torch.cos(theta) ** 2], dim=-1)
        width = torch.stack([torch.ones_like(v), v], dim=-1) @ self.log_width
        return basis @ self.mean, torch.exp(width)

    def forward(self, response: Float[Tensor, "n"], energy: Float[Tensor, "n"], theta: Float[Tensor, "n"]) -> Interval:
        """Intervals of latents.

        Args:
            response: E_total / E_inc; every latent below t0 stands for 0.
            energy: E_inc in MeV.
            theta: polar angles in rad.
        """
        location, width = self._location_and_width(energy, theta)
        value = (torch.log(response) - location) / width
        lower, upper = self.shape.forward(value[:, None, None], torch.zeros_like(energy)[:, None])
        return Interval(lower[:, 0, 0], upper[:, 0, 0])

    def inverse(
        self, latent: Float[Tensor, "n"], energy: Float[Tensor, "n"], theta: Float[Tensor, "n"]
    ) -> Float[Tensor, "n"]:
        """E_total / E_inc of latents: inverse of `forward`."""
        location, width = self._location_and_width(energy, theta)
        value = self.shape.inverse(latent[:, None, None], torch.zeros_like(energy)[:, None])[:, 0, 0]
        return torch.exp(location + width * value)

    def vector(self) -> Float[Tensor, "parameter"]:
        """All parameters but the weight in a row, for regression over detectors."""
        return torch.cat([self.mean, self.log_width, self.shape.columns()[0, 0]])

    @classmethod
    def from_vector(cls, vector: Float[Tensor, "parameter"], weight: float) -> Response:
        """Inverse of `vector`."""
        columns = vector[6:].expand(1, len(_KNOTS), -1)
        knots = torch.tensor(_KNOTS, dtype=torch.float32, device=vector.device)
        weights = torch.full((1, len(_KNOTS)), weight, device=vector.device)
        table = ConditionalMarginals.from_columns(knots, columns, weights)
        return cls(vector[:4], vector[4:6], table, weight)

    def columns(self) -> Float[Tensor, "1 1 parameter"]:
        """The vector as the one row of a table."""
        return self.vector()[None, None]

    def row_weight(self) -> Float[Tensor, "1 1"]:
        """Showers behind the parameters."""
        return torch.full((1, 1), self.weight)

    def shrunk_towards(self, prior: Response, strength: float) -> Response:
        """Parameters averaged with `prior`'s, which count as `strength` showers for the level of the mean.

        They count as more for what few showers determine badly: slopes, widths and the shape.
        """
        mine, theirs = self.vector(), prior.vector()
        factors = torch.tensor([*_STRENGTH, *[_SHAPE_STRENGTH] * (len(mine) - len(_STRENGTH))])
        share = self.weight / (self.weight + strength * factors)
        return Response.from_vector(torch.lerp(theirs, mine, share), self.weight)

    def tensors(self) -> dict[str, Tensor]:
        """All parameters by name, for a safetensors file."""
        return {"vector": self.vector(), "weight": torch.tensor([self.weight])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Response:
        """Inverse of `tensors`."""
        return cls.from_vector(tensors["vector"].float(), float(tensors["weight"][0]))


def fit_response(
    response: Float[np.ndarray, "n"], energy: Float[np.ndarray, "n"], theta: Float[np.ndarray, "n"]
) -> Response:
    """Weighted least squares; the weights are the inverse variances that the fit itself finds.

    Args:
        response: E_total / E_inc, at least one of them above 0.
        energy: E_inc in MeV.
        theta: polar angles in rad.

    With fewer than 8 showers that are not empty the width is 5 % and the shape normal.
    """
    seen = response > 0
    value = np.log(response[seen])
    coordinate = energy_coordinate(torch.from_numpy(energy[seen])).numpy()
    u, v = coordinate.clip(-_RANGE, _RANGE), coordinate.clip(*_WIDTH_RANGE)
    basis = np.stack([np.ones_like(u), u, u**2, np.cos(theta[seen]) ** 2], axis=1)
    width = np.array([np.log(_FALLBACK_WIDTH), 0.0])
    mean = np.zeros(4)
    for _ in range(4):
        inverse = np.exp(-2 * (width[0] + width[1] * v))
        inverse = inverse / inverse.mean()
        gram = basis.T @ (basis * inverse[:, None]) + np.diag(_RIDGE)
        mean = np.linalg.solve(gram, basis.T @ (inverse * value))
        residual = value - basis @ mean
        if len(u) >= _FEWEST:
            width = _log_width(residual, v, np.array([np.log(residual.std() + 1e-6), 0.0]))
    standard = residual / np.exp(width[0] + width[1] * v)
    scored = np.full(len(response), -np.inf)
    scored[seen] = standard
    table = fit_marginals([(scored, np.zeros(len(response)))], _KNOTS)
    if len(u) < _FEWEST:
        table.quantiles[:] = torch.special.ndtri(torch.tensor(LEVELS))
    parameters = [torch.from_numpy(array.astype(np.float32)) for array in (mean, width)]
    columns = table.columns()[0, 0]
    return Response.from_vector(torch.cat([*parameters, columns]), float(len(u)))


def _log_width(residual: np.ndarray, u: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Line of ln s in u by maximum likelihood for normal residuals (Fisher scoring), clipped against outliers."""
    basis = np.stack([np.ones_like(u), u], axis=1)
    width = start
    for _ in range(10):
        squared = np.minimum(residual**2 * np.exp(-2 * basis @ width), _OUTLIER**2)
        step = np.linalg.lstsq(basis, 0.5 * (squared - 1), rcond=None)[0]
        width = width + np.clip(step, -1, 1)
    return np.array([width[0], float(np.clip(width[1], -2.5, 2.5))])


def convention_scale(showers: ShowerArray, energy: Float[np.ndarray, "n"]) -> float:
    """1 where deposits were divided by the sampling fraction, else their mean part of the incident energy.

    Args:
        showers: deposits (n, R, PHI, Z) in MeV.
        energy: incident energies in MeV.

    Example:
        >>> showers, energy = np.full((2, 1, 1, 3), 100.0, np.float32), np.array([1000.0, 1500.0])
        >>> convention_scale(showers, energy), convention_scale(3 * showers, energy)
        (0.25, 1.0)
    """
    response = float(np.mean(showers.sum((1, 2, 3), dtype=np.float64) / energy))
    return 1.0 if response > CALIBRATED else response
