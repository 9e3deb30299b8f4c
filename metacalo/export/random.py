"""The noise of a graph: from the run time's own random generator, or from a seed by hashing, the same everywhere."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["HashedNoise", "OwnNoise"]

_MASK = 2**32 - 1
_GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio, made odd
_MIX = (0x21F0AAAD, 0x735A2D97)  # C. Wellons, hash-prospector: a bijection of 32 bits with a bias of 0.11 %
_FLOATS = 2**24  # numbers that single precision tells apart in [0, 1)


class OwnNoise(nn.Module):
    """Numbers that the run time draws anew in every run.

    Args:
        n_normal, n_uniform: how many of each kind a shower needs.
    """

    def __init__(self, n_normal: int, n_uniform: int) -> None:
        super().__init__()
        self.n_normal, self.n_uniform = n_normal, n_uniform

    def forward(self, like: Float[Tensor, "n"]) -> tuple[Tensor, Tensor | None]:
        """Normal and uniform numbers (n, _) of as many showers as `like` has."""
        n = like.shape[0]
        return torch.randn(n, self.n_normal), torch.rand(n, self.n_uniform) if self.n_uniform else None


class HashedNoise(nn.Module):
    """Numbers that follow from the seed of each shower: random access by counter (Salmon et al. 2011), in int64.

    A counter and the seed are hashed to 32 bits, of which 24 make a uniform number and two of these, by the transform
    of Box and Muller, two normal ones (none beyond 5.77).

    Args:
        n_normal, n_uniform: how many of each kind a shower needs.
    """

    def __init__(self, n_normal: int, n_uniform: int) -> None:
        super().__init__()
        self.n_normal, self.n_uniform = n_normal, n_uniform

    def forward(self, seed: Int[Tensor, "n"]) -> tuple[Tensor, Tensor | None]:
        """Normal and uniform numbers (n, _) of showers with these seeds, 0 and above."""
        half = (self.n_normal + 1) // 2
        bits = _hashed(seed, 2 * half + self.n_uniform)
        radius = torch.sqrt(-2 * torch.log((bits[:, :half] + 1).float() / _FLOATS))
        angle = bits[:, half : 2 * half].float() * (2 * math.pi / _FLOATS)
        normal = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, : self.n_normal]
        return normal, bits[:, 2 * half :].float() / _FLOATS if self.n_uniform else None


def _hashed(seed: Int[Tensor, "n"], count: int) -> Int[Tensor, "n count"]:
    """24 random bits for each counter 0, 1, ... of each seed."""
    low, high = seed & _MASK, torch.div(seed, 2**32, rounding_mode="trunc") & _MASK
    first = _mixed((low + _GOLDEN) & _MASK)
    second = _mixed(first ^ high)
    counter = torch.arange(count) * _GOLDEN & _MASK
    once = _mixed(counter ^ second[:, None])
    return torch.div(_mixed((once + first[:, None]) & _MASK), 2**8, rounding_mode="trunc")


def _mixed(h: Tensor) -> Tensor:
    for shift, factor in zip((16, 15), _MIX, strict=True):
        h = (h ^ torch.div(h, 2**shift, rounding_mode="trunc")) * factor & _MASK
    return h ^ torch.div(h, 2**15, rounding_mode="trunc")
