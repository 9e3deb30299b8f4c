"""Images of showers: the two exact symmetries of a shower in the frame of its direction."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from metacalo.normaliser.latents import Latents

__all__ = ["has_image_in_x", "reflected"]


def reflected(latents: Latents, flip_y: Tensor, flip_x: Tensor) -> Latents:
    """Mirrors phi -> -phi where `flip_y` (n,), phi -> pi - phi where `flip_x` (n,) (needs an even number of phi cells).

    Only cells know phi; the rest of a shower is that of its images.
    """
    cells = latents.cells
    cells = torch.where(flip_y[:, None, None, None], cells.flip(2), cells)
    if has_image_in_x(latents):
        mirrored = cells.flip(2).roll(cells.shape[2] // 2, 2)
        cells = torch.where(flip_x[:, None, None, None], mirrored, cells)
    return replace(latents, cells=cells)


def has_image_in_x(latents: Latents) -> bool:
    """Whether phi -> pi - phi maps cells to cells: their number in phi is even."""
    return latents.grid[1] % 2 == 0
