"""How the layers of a shower go with one another: a matter of the energy and of the detector.

A shower of 100 GeV has a smooth profile, one of 1 GeV a ragged one, and a layer of one detector is half a radiation
length, of another two. The correlations that detectors share (`copula`) know too little of that. So the correlation
matrix of total and layers is kept at several energies: predicted from the descriptors, corrected by the shots, and what
the copula says is turned into it by a linear map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.copula import Copula
from metacalo.normaliser.energy_dependence import ENERGY_KNOTS, hat_weights

__all__ = ["Longitudinal", "fit_longitudinal"]

_SMALLEST_EIGENVALUE = 1e-2  # of a correlation matrix: what neither few shots nor half precision can distinguish from 0
_ENOUGH = 1e-6


@dataclass(frozen=True)
class Longitudinal:
    """Correlation matrices of the first d structural latents (total, then layers), at unit mean and width.

    Attributes:
        correlation: at `ENERGY_KNOTS` in ln(E_inc), linear between them, shape (K, d, d).
        weight: showers behind each knot, shape (K,).
    """

    correlation: Float[Tensor, "K d d"]
    weight: Float[Tensor, "K"]

    def inverse(
        self, structure: Float[Tensor, "n D"], log_energy: Float[Tensor, "n"], copula: Copula
    ) -> Float[Tensor, "n D"]:
        """Structure (D >= d) with these correlations in place of those that the copula gave it."""
        return _exchanged(structure, self._copulas(log_energy, copula), self.at(log_energy))

    def forward(
        self, structure: Float[Tensor, "n D"], log_energy: Float[Tensor, "n"], copula: Copula
    ) -> Float[Tensor, "n D"]:
        """Inverse of `inverse`."""
        return _exchanged(structure, self.at(log_energy), self._copulas(log_energy, copula))

    def at(self, log_energy: Float[Tensor, "n"]) -> Float[Tensor, "n d d"]:
        """Matrices at ln(E_inc / MeV)."""
        return torch.einsum("nk,kij->nij", hat_weights(log_energy, ENERGY_KNOTS), self.correlation)

    def _copulas(self, log_energy: Float[Tensor, "n"], copula: Copula) -> Float[Tensor, "n d d"]:
        return copula.structure.covariance(log_energy, self.correlation.shape[1])

    def shrunk_towards(self, prior: Longitudinal, strength: float) -> Longitudinal:
        """Matrices averaged with `prior`'s, which count as `strength` showers (inverse Wishart)."""
        share = (self.weight / (self.weight + strength))[:, None, None]
        return Longitudinal(_as_correlation(torch.lerp(prior.correlation, self.correlation, share)), self.weight)

    @classmethod
    def none(cls, size: int) -> Longitudinal:
        """Of values that do not depend on one another."""
        n_knots = len(ENERGY_KNOTS)
        return cls(torch.eye(size).repeat(n_knots, 1, 1), torch.zeros(n_knots))

    def columns(self) -> Float[Tensor, "pair K 1"]:
        """What lies below the diagonals, for regression over detectors."""
        d = self.correlation.shape[1]
        row, column = torch.tril_indices(d, d, offset=-1)
        return self.correlation[:, row, column].T[..., None]

    @classmethod
    def from_columns(cls, columns: Float[Tensor, "pair K 1"], weight: Float[Tensor, "K"]) -> Longitudinal:
        """Inverse of `columns`; the nearest matrices that are correlations."""
        d = int((1 + (1 + 8 * len(columns)) ** 0.5) / 2)
        row, column = torch.tril_indices(d, d, offset=-1)
        matrices = torch.eye(d).repeat(columns.shape[1], 1, 1)
        matrices[:, row, column] = columns[..., 0].T
        matrices[:, column, row] = columns[..., 0].T
        return cls(_as_correlation(matrices), weight)

    def row_weight(self) -> Float[Tensor, "pair K"]:
        """Showers behind each correlation at each knot."""
        d = self.correlation.shape[1]
        return self.weight.expand(d * (d - 1) // 2, -1)

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name, for a safetensors file."""
        return {"correlation": self.correlation, "weight": self.weight}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Longitudinal:
        """Inverse of `tensors`.

        Raises:
            ValueError: a matrix is not a correlation matrix, so that nothing could be drawn with it.
        """
        correlation = tensors["correlation"].float()
        square = correlation.ndim == 3 and correlation.shape[1] == correlation.shape[2]
        if not square or torch.linalg.cholesky_ex(correlation).info.any():
            raise ValueError("longitudinal.correlation holds no positive definite matrices")
        return cls(correlation, tensors["weight"].float())


def _exchanged(
    structure: Float[Tensor, "n D"], before: Float[Tensor, "n d d"], after: Float[Tensor, "n d d"]
) -> Float[Tensor, "n D"]:
    """Structure whose first values have the covariance `after` where they had `before`."""
    d = before.shape[1]
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(before), structure[:, :d, None], upper=False)
    return torch.cat([(torch.linalg.cholesky(after) @ white)[..., 0], structure[:, d:]], dim=1)


def fit_longitudinal(structure: Float[Tensor, "n D"], log_energy: Float[Tensor, "n"], size: int) -> Longitudinal:
    """Correlation matrices of the first `size` values of `structure`, which has mean 0 and width 1 at each energy.

    Args:
        structure: at unit mean and width.
        log_energy: ln(E_inc / MeV).
        size: total and layers.
    """
    hat = hat_weights(log_energy, ENERGY_KNOTS)
    few = structure[:, :size]
    summed = torch.einsum("nk,ni,nj->kij", hat, few, few)
    weight = hat.sum(0)
    nothing = torch.eye(size).expand_as(summed)
    mean = torch.where(weight[:, None, None] > _ENOUGH, summed / weight[:, None, None].clamp_min(_ENOUGH), nothing)
    return Longitudinal(_as_correlation(mean), weight)


def _as_correlation(matrices: Float[Tensor, "K d d"]) -> Float[Tensor, "K d d"]:
    """With 1 on the diagonals, and no eigenvalue below the smallest that is believed."""
    values, vectors = torch.linalg.eigh(matrices.double())
    matrices = (vectors * values.clamp_min(_SMALLEST_EIGENVALUE)[:, None]) @ vectors.mT
    width = torch.sqrt(torch.diagonal(matrices, dim1=1, dim2=2)).clamp_min(_ENOUGH)
    return (matrices / width[:, :, None] / width[:, None]).float()
