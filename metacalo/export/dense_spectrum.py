"""The spectrum of cells over the whole mesh: hits are marked, not gathered, so that a graph has fixed shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.spectrum import LOG_CELL_KNOTS, Spectrum, shared_hits
from metacalo.typing import ShowerTensor

__all__ = ["DenseSpectrum"]

_NOTHING = 1e-30  # MeV: below any cell


@dataclass(frozen=True)
class DenseSpectrum(Spectrum):
    """A `Spectrum` that sharpens in single precision, with a look-up in the place of a search.

    Its knots are equidistant in ln(E / MeV), so that the correction of a cell lies between two entries of a table whose
    places follow from its energy.

    Attributes:
        start, slope: corrections of ln(E / MeV) at the knots, ring by ring, and what they gain to the next.
    """

    start: Float[Tensor, "r_K"]
    slope: Float[Tensor, "r_K"]

    @classmethod
    def of(cls, spectrum: Spectrum) -> DenseSpectrum:
        """The same corrections."""
        correction = spectrum.corrections().float()
        slope = torch.cat([correction.diff(dim=1), torch.zeros_like(correction[:, :1])], dim=1)
        return cls(spectrum.offset, spectrum.weight, correction.flatten(), slope.flatten())

    def inverse(self, cells: ShowerTensor) -> ShowerTensor:
        """See `Spectrum.inverse`."""
        low, high = float(LOG_CELL_KNOTS[0]), float(LOG_CELL_KNOTS[-1])
        steps = len(LOG_CELL_KNOTS) - 1
        shared = shared_hits(cells)
        value = torch.log(cells.clamp_min(_NOTHING))
        position = ((value - low) * (steps / (high - low))).clamp(0, steps)
        left = position.floor()
        index = left.long() + torch.arange(cells.shape[1], device=cells.device)[:, None, None] * (steps + 1)
        moved = torch.exp(value + self.start[index] + (position - left) * self.slope[index])
        moved = torch.where(shared, moved, 0.0)
        factor = cells.sum(2, keepdim=True) / moved.sum(2, keepdim=True).clamp_min(_NOTHING)
        return torch.where(shared, moved * factor, cells)
