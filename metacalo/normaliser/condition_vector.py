"""The condition vector: what a generator knows of the wanted shower and its detector."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float

from metacalo.detectors.condition_range import TRAINED_ENERGY_MEV
from metacalo.errors import ShowerFileError
from metacalo.typing import Conditions

__all__ = [
    "POSSIBLE_MEV",
    "condition_columns",
    "condition_size",
    "encode_conditions",
    "energy_coordinate",
    "require_conditions",
]

POSSIBLE_MEV = (1e-6, 1e12)
"""Energies whose showers can be looked up in single precision: 1 eV to 1e9 GeV, far beyond any particle."""

_HARMONICS = 3


def energy_coordinate(energy: Float[torch.Tensor, "n"]) -> Float[torch.Tensor, "n"]:
    """U = ln(E / MeV) mapped so that the trained range is [-1, 1]."""
    low, high = math.log(TRAINED_ENERGY_MEV[0]), math.log(TRAINED_ENERGY_MEV[1])
    return 2 * (torch.log(energy) - low) / (high - low) - 1


def condition_size(n_descriptors: int) -> int:
    """Length of the vector that `encode_conditions` makes."""
    return 1 + 2 * _HARMONICS + 2 + 2 + n_descriptors


def encode_conditions(
    energy: Float[np.ndarray, "n"],
    theta: Float[np.ndarray, "n"],
    phi: Float[np.ndarray, "n"],
    descriptors: Float[np.ndarray, "d"],
) -> Conditions:
    """Condition vectors, shape (n, condition_size(d)), float32.

    Args:
        energy: incident energies in MeV.
        theta: polar angles in rad.
        phi: azimuths in rad.
        descriptors: `Detector.descriptors()`, of order one.

    The columns are u = ln(E) mapped so that the trained range is [-1, 1], sin and cos of its first harmonics (Fourier
    features), cos theta and its square, sin phi and cos phi, and the descriptors.

    Raises:
        ShowerFileError: an energy is not within `POSSIBLE_MEV`, or an angle is not finite.
    """
    require_conditions(energy, theta, phi)
    columns = [torch.from_numpy(np.asarray(values, dtype=np.float64)) for values in (energy, theta, phi, descriptors)]
    return condition_columns(*columns).float()


def require_conditions(
    energy: Float[np.ndarray, "n"], theta: Float[np.ndarray, "n"], phi: Float[np.ndarray, "n"]
) -> None:
    """Raises `ShowerFileError` where an energy is not within `POSSIBLE_MEV`, or an angle is not finite."""
    least, most = POSSIBLE_MEV
    if not ((np.asarray(energy) > least) & (np.asarray(energy) < most)).all():
        raise ShowerFileError(
            "incident energies must be finite and above zero (1 eV to 1e9 GeV); correct them (they are in MeV in files)"
        )
    if not (np.isfinite(theta).all() and np.isfinite(phi).all()):
        raise ShowerFileError("theta and phi must be finite; correct them (they are in rad in files)")


def condition_columns(
    energy: Float[torch.Tensor, "n"],
    theta: Float[torch.Tensor, "n"],
    phi: Float[torch.Tensor, "n"],
    descriptors: Float[torch.Tensor, "d"],
) -> Conditions:
    """What `encode_conditions` makes, of tensors and in their precision, whatever the values."""
    u, cosine = energy_coordinate(energy), torch.cos(theta)
    columns = [u]
    for k in range(_HARMONICS):
        columns += [torch.sin(2**k * math.pi / 2 * u), torch.cos(2**k * math.pi / 2 * u)]
    columns += [cosine, cosine**2, torch.sin(phi), torch.cos(phi)]
    return torch.cat([torch.stack(columns, dim=1), descriptors.expand(energy.shape[0], -1)], dim=1)
