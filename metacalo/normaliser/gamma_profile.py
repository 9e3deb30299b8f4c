"""The longitudinal profile by rule of thumb, which predictions for new detectors start from.

The mean shower follows a gamma distribution in depth, t in radiation lengths (Longo & Sestili 1975; Review of Particle
Physics, "Passage of particles through matter", electromagnetic cascades):

    dE/dt ~ (b t)^(a - 1) e^(-b t),   (a - 1) / b = ln(E_inc / E_c) - 0.5,   b = 0.5
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.detectors.detector import DESCRIPTORS

__all__ = ["log_layer_fractions"]

_B = 0.5
_LEAST_MAXIMUM = 0.1  # in radiation lengths
_FLOOR = 3e-4  # of the energy: late photons and neutrons, which the distribution does not know
_CRITICAL_ENERGY, _CELL_DEPTH = (DESCRIPTORS.index(name) for name in ("ln E_c / 10 MeV", "ln dz / X0"))


def log_layer_fractions(
    descriptors: Float[Tensor, "d"], log_energy: Float[Tensor, "K"], n_z: int
) -> Float[Tensor, "z K"]:
    """Ln of each layer's part of the energy at ln(E_inc / MeV), for a detector of these `Detector.descriptors()`."""
    log_critical = descriptors[_CRITICAL_ENERGY].double() + torch.log(torch.tensor(10.0, dtype=torch.float64))
    depth = torch.arange(n_z + 1, dtype=torch.float64) * torch.exp(descriptors[_CELL_DEPTH].double())
    maximum = (log_energy.double() - log_critical - 0.5).clamp_min(_LEAST_MAXIMUM)
    before = torch.special.gammainc(
        (1 + _B * maximum).expand(n_z + 1, -1), _B * depth[:, None].expand(-1, len(maximum))
    )
    return torch.log(before.diff(dim=0) + _FLOOR).float()
