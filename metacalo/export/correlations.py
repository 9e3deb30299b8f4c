"""Correlations of the layers as one table over the energy, in the place of two Cholesky factors of each shower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.errors import MetacaloError
from metacalo.normaliser.copula import COMPONENT_KNOTS, Copula
from metacalo.normaliser.energy_dependence import ENERGY_KNOTS
from metacalo.normaliser.longitudinal import Longitudinal

__all__ = ["LARGEST_ERROR", "TabulatedLongitudinal"]

LARGEST_ERROR = 1e-5
"""Of an entry of the linear map that is tabulated, where layers have latents of width 1."""

_KNOTS = np.union1d(np.round(COMPONENT_KNOTS, 9), np.round(ENERGY_KNOTS, 9))  # equidistant: the first hold the others
_DEGREES = (6, 8, 12, 16)  # of the polynomials, tried in turn
_CHECKED = (np.arange(11) + 0.37) / 11 * 2 - 1  # places in each segment, off the nodes


@dataclass(frozen=True)
class TabulatedLongitudinal(Longitudinal):
    """A `Longitudinal` that imposes its correlations by the product of both Cholesky factors, looked up.

    Between two knots in ln(E_inc) all that the product is made of is smooth, so that it is a Chebyshev series there;
    beyond the outermost nothing depends on the energy.

    Attributes:
        series: coefficients of all segments one after another, shape (segment order, d d).
    """

    series: Float[Tensor, "term d2"]

    @classmethod
    def of(cls, longitudinal: Longitudinal, copula: Copula) -> TabulatedLongitudinal:
        """The same correlations where `copula` gave others.

        Raises:
            MetacaloError: no series keeps `LARGEST_ERROR`.
        """
        for degree in _DEGREES:
            order = np.arange(degree + 1)
            nodes = np.cos(np.pi * (order + 0.5) / (degree + 1))
            transform = 2 / (degree + 1) * np.cos(order[:, None] * np.arccos(nodes))
            transform[0] /= 2
            maps = _maps(longitudinal, copula, _energies(nodes)).reshape(len(_KNOTS) - 1, degree + 1, -1)
            series = (torch.from_numpy(transform) @ maps).flatten(0, 1).float()
            table = cls(longitudinal.correlation, longitudinal.weight, series)
            off = _energies(_CHECKED)
            if float((table.at_energy(off.float()) - _maps(longitudinal, copula, off)).abs().max()) < LARGEST_ERROR:
                return table
        raise MetacaloError(f"correlations of the layers cannot be tabulated to {LARGEST_ERROR}; adapt with more shots")

    def inverse(
        self, structure: Float[Tensor, "n D"], log_energy: Float[Tensor, "n"], copula: Copula
    ) -> Float[Tensor, "n D"]:
        """See `Longitudinal.inverse`; the copula must be that of the table."""
        d = self.correlation.shape[1]
        imposed = (self.at_energy(log_energy) @ structure[:, :d, None])[..., 0]
        return torch.cat([imposed, structure[:, d:]], dim=1)

    def at_energy(self, log_energy: Float[Tensor, "n"]) -> Float[Tensor, "n d d"]:
        """The map at ln(E_inc / MeV)."""
        d, segments = self.correlation.shape[1], len(_KNOTS) - 1
        low, high = float(_KNOTS[0]), float(_KNOTS[-1])
        position = (log_energy - low).clamp(0, high - low) * (segments / (high - low))
        segment = position.floor().clamp(0, segments - 1)
        angle = torch.acos((2 * (position - segment) - 1).clamp(-1, 1))
        terms = torch.cos(angle[:, None] * torch.arange(len(self.series) // segments))
        own = (torch.arange(segments) == segment[:, None]).float()
        return ((own[..., None] * terms[:, None]).flatten(1) @ self.series).reshape(-1, d, d)


def _energies(within: Float[np.ndarray, "m"]) -> Float[Tensor, "segment_m"]:
    """ln(E_inc / MeV) at places -1 to 1 of all segments."""
    return torch.from_numpy((_KNOTS[:-1, None] + np.diff(_KNOTS)[:, None] * (within + 1) / 2).flatten())


def _maps(longitudinal: Longitudinal, copula: Copula, log_energy: Float[Tensor, "n"]) -> Float[Tensor, "n d d"]:
    """Cholesky factors of what is wanted times the inverse of those of what the copula gives; double precision."""
    size = longitudinal.correlation.shape[1]
    wanted = torch.linalg.cholesky(longitudinal.at(log_energy).double())
    given = torch.linalg.cholesky(copula.structure.covariance(log_energy, size).double())
    maps: Tensor = torch.linalg.solve_triangular(given, wanted, upper=False, left=False)
    return maps
