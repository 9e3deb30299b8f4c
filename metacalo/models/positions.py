"""Positional embeddings of patches on the cylindrical mesh."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["sincos_3d"]


def sincos_3d(counts: tuple[int, int, int], width: int) -> Float[Tensor, "token width"]:
    """Fixed sine-cosine embedding of the patch positions, in the token order of `Patching` (z, r, phi).

    A third of the width goes to each axis, as in CaloDiT. r and z have the usual geometric frequencies; phi has whole
    harmonics of the circle, so that it wraps round: the first and the last cell are neighbours.

    Args:
        counts: patches along (r, phi, z).
        width: embedding width, at least 6; what three equal even parts leave over is zero.
    """
    n_r, n_phi, n_z = counts
    per_axis = width // 6 * 2
    r = _axis(torch.arange(n_r), _geometric(per_axis // 2))
    z = _axis(torch.arange(n_z), _geometric(per_axis // 2))
    angle = 2 * math.pi * torch.arange(n_phi) / n_phi
    phi = _axis(angle, 1 + torch.arange(per_axis // 2) % max(1, n_phi // 2))
    table = torch.zeros(n_z, n_r, n_phi, width)
    table[..., :per_axis] = z[:, None, None]
    table[..., per_axis : 2 * per_axis] = r[None, :, None]
    table[..., 2 * per_axis : 3 * per_axis] = phi[None, None, :]
    return table.reshape(-1, width)


def _geometric(n: int) -> Tensor:
    return 100.0 ** (-torch.arange(n) / max(1, n - 1))


def _axis(position: Tensor, frequency: Tensor) -> Tensor:
    phase = position[:, None].float() * frequency[None, :].float()
    return torch.cat([phase.sin(), phase.cos()], dim=1)
