"""The energy of hits above the threshold of the file, which is what is shared out among rings and cells.

No hit of Geant4's showers is below the threshold, and their spectrum does not pile up there: shares of the energy
itself, held at the threshold, would.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["excess", "least_hit"]

_ROUNDING = 1e-3  # a cell of the sample must not fall below its own threshold on the way back
_SMALLEST = 1e-6  # of the threshold


def excess(energy: Tensor, threshold: float) -> Tensor:
    """What each non-zero `energy` has above `threshold`, in the unit of both; 0 where there is none, else above 0."""
    above = (energy - threshold).clamp_min(_SMALLEST * threshold)
    return torch.where(energy > 0, above, torch.zeros_like(energy))


def least_hit(threshold: float, scale: float) -> float:
    """Energy over `scale`, in MeV, that every hit is above: the `threshold` of the file in MeV, but for rounding."""
    return threshold / scale * (1 - _ROUNDING)
