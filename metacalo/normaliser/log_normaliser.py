"""The usual preprocessing of diffusion models of showers, for comparison with `normalise`.

Each cell is its part of the incident energy, f = e / (3/2 E_inc), in logit space, standardised with one mean and one
width for all cells, energies and detectors:

    z = (ln(p / (1 - p)) - mean) / width,   p = 1e-6 + (1 - 2e-6) f

These are the constants of the published CaloDiT (github.com/IBM/FMFastSim, its "original" preprocessing). Nothing is
known of layers, rings and hits: those latents are zero, and a network must leave them alone (`LossWeights`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.errors import ShowerFileError
from metacalo.normaliser.copula import Copula
from metacalo.normaliser.latents import Latents, structure_size
from metacalo.typing import ShowerArray, ShowerTensor

__all__ = ["LogEncoded", "LogNormaliser", "LogPrior", "fit_log_normaliser", "fit_log_prior"]

_LARGEST = 1.5  # of cell energy over incident energy; room for calibrated deposits above 1
_MARGIN = 1e-6
_SMALLEST_WIDTH = 1e-3


@dataclass(frozen=True)
class LogEncoded:
    """Showers as latents of their cells; nothing is left to draw.

    Attributes:
        cells: shape (n, r, phi, z).
        log_energy: ln(E_inc / MeV), shape (n,).
    """

    cells: ShowerTensor
    log_energy: Float[Tensor, "n"]
    with_cells: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.log_energy)

    def __getitem__(self, rows: Tensor | slice) -> LogEncoded:
        return LogEncoded(self.cells[rows], self.log_energy[rows])

    def dequantise(self, generator: torch.Generator, copula: Copula | None = None) -> Latents:
        """The latents; zeros keep their one value, as in the published preprocessing."""
        n, n_r, n_phi, n_z = self.cells.shape
        nothing = self.cells.new_zeros(n, structure_size((n_r, n_phi, n_z)))
        return Latents.from_flat(torch.cat([nothing, self.cells.flatten(1)], dim=1), (n_r, n_phi, n_z))

    @classmethod
    def concatenate(cls, parts: list[LogEncoded]) -> LogEncoded:
        """Encoded showers one after another."""
        return cls(torch.cat([part.cells for part in parts]), torch.cat([part.log_energy for part in parts]))


@dataclass(frozen=True)
class LogNormaliser:
    """Invertible map between showers (MeV) and `Latents` whose cells alone say anything.

    Attributes:
        mean, width: of the logits.
        scale: mean E_total / E_inc of the file's convention, by which energies are divided first.
        threshold: smallest non-zero cell energy of the file in MeV; what comes out below it is zero.
        grid: cells of the mesh, (r, phi, z).
    """

    mean: float
    width: float
    scale: float
    threshold: float
    grid: tuple[int, int, int]
    copula: ClassVar[None] = None
    longitudinal: ClassVar[None] = None

    def encode(
        self, showers: ShowerTensor, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"], *, cells: bool = True
    ) -> LogEncoded:
        """Latents of showers (MeV) of incident energy (MeV); the angle (rad) is of no use, cells all there is."""
        part = showers / (self.scale * _LARGEST * energy[:, None, None, None])
        logit = torch.logit(_MARGIN + (1 - 2 * _MARGIN) * part.clamp(0, 1))
        return LogEncoded((logit - self.mean) / self.width, torch.log(energy))

    def inverse(self, latents: Latents, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"]) -> ShowerTensor:
        """Showers in MeV."""
        part = (torch.sigmoid(latents.cells * self.width + self.mean) - _MARGIN) / (1 - 2 * _MARGIN)
        cells = self.scale * _LARGEST * energy[:, None, None, None] * part
        return torch.where(cells < self.threshold, torch.zeros_like(cells), cells)

    def shrunk_towards(self, prior: LogNormaliser) -> LogNormaliser:
        """The normaliser with the mean and width of `prior`: one standardisation for all."""
        return replace(self, mean=prior.mean, width=prior.width)

    def to(self, device: torch.device | str) -> LogNormaliser:
        """Itself: it has no tensors."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """All numbers by name, for a safetensors file."""
        values = (self.mean, self.width, self.scale, self.threshold)
        return {"scalars": torch.tensor(values, dtype=torch.float64), "grid": torch.tensor(self.grid)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LogNormaliser:
        """Inverse of `tensors`."""
        mean, width, scale, threshold = tensors["scalars"].tolist()
        n_r, n_phi, n_z = tensors["grid"].tolist()
        return cls(mean, width, scale, threshold, (n_r, n_phi, n_z))


@dataclass(frozen=True)
class LogPrior:
    """What is known before any shower: the standardisation, for every detector the same."""

    normaliser: LogNormaliser

    def predict(self, descriptors: Float[Tensor, "d"], *, scale: float = 1.0) -> LogNormaliser:
        """The normaliser of a detector that was never seen, for the convention `scale`."""
        return replace(self.normaliser, scale=scale, threshold=self.normaliser.threshold * scale)

    def tensors(self) -> dict[str, Tensor]:
        """All numbers by name, for a safetensors file."""
        return self.normaliser.tensors()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LogPrior:
        """Inverse of `tensors`."""
        return cls(LogNormaliser.from_tensors(tensors))


def fit_log_normaliser(
    showers: ShowerArray, energy: Float[np.ndarray, "n"], prior: LogNormaliser | None = None
) -> LogNormaliser:
    """Mean and width of the logits of these showers (MeV, at incident energies in MeV), or those of `prior`.

    Raises:
        ShowerFileError: no shower holds any energy.
    """
    hit = showers > 0
    if not hit.any():
        raise ShowerFileError("every shower given to fit the normaliser is empty; choose showers with energy deposits")
    scale = float(np.mean(showers.sum((1, 2, 3), dtype=np.float64) / energy))
    n_r, n_phi, n_z = showers.shape[1:]
    plain = LogNormaliser(0.0, 1.0, scale, float(showers[hit].min()), (n_r, n_phi, n_z))
    if prior is not None:
        return plain.shrunk_towards(prior)
    incident = torch.from_numpy(np.asarray(energy, dtype=np.float32))
    logits = plain.encode(torch.from_numpy(showers), incident, incident).cells.double()
    return replace(plain, mean=float(logits.mean()), width=max(float(logits.std()), _SMALLEST_WIDTH))


def fit_log_prior(normalisers: Sequence[LogNormaliser], showers: Sequence[int]) -> LogPrior:
    """One standardisation over detectors, each counting by the square root of its number of showers, as in training."""
    weight = np.sqrt(np.asarray(showers, dtype=np.float64))
    mean = np.average([normaliser.mean for normaliser in normalisers], weights=weight)
    square = np.average([normaliser.width**2 + normaliser.mean**2 for normaliser in normalisers], weights=weight)
    threshold = np.median([normaliser.threshold / normaliser.scale for normaliser in normalisers])
    width = math.sqrt(max(float(square - mean**2), _SMALLEST_WIDTH**2))
    return LogPrior(LogNormaliser(float(mean), width, 1.0, float(threshold), normalisers[0].grid))
