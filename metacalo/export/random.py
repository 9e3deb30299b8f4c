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
_FLOATS = 2**24  # distinct single-precision numbers used in [0, 1)


class OwnNoise(nn.Module):
    """Numbers that the run time draws anew in every run, and other ones in every session of a process.

    ONNX Runtime seeds its normal numbers with the time at which the process began and a place in the graph, so that all
    sessions of a process, such as those of Geant4's worker threads, draw the same. Its dropout is fed from one
    generator of the whole process. It therefore decides on a sign for each number, and an orthogonal map makes of each
    a sum over all: as normal and as independent as before, and unlike the same numbers with other signs.

    Args:
        n_normal, n_uniform: how many of each kind a shower needs.
    """

    rotation: Tensor

    def __init__(self, n_normal: int, n_uniform: int) -> None:
        super().__init__()
        self.n_normal, self.n_uniform = n_normal, n_uniform
        side = math.isqrt(n_normal + n_uniform - 1) + 1
        self.register_buffer("rotation", _cosines(side), persistent=False)

    def forward(self, like: Float[Tensor, "n"]) -> tuple[Tensor, Tensor | None]:
        """Normal and uniform numbers (n, _) of as many showers as `like` has."""
        shape = (like.shape[0], *self.rotation.shape)
        _, kept = torch.native_dropout(
            torch.ones(shape), 0.5, True
        )  # optimisers take dropout for idle but for its mask
        signs = 2 * kept.float() - 1
        numbers = (self.rotation @ (signs * torch.randn(shape)) @ self.rotation).flatten(1)
        normal, rest = numbers[:, : self.n_normal], numbers[:, self.n_normal : self.n_normal + self.n_uniform]
        if not self.n_uniform:
            return normal, None
        return normal, (0.5 * (1 + torch.erf(rest / math.sqrt(2)))).clamp(0, 1 - 1 / _FLOATS)


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


def _cosines(side: int) -> Float[Tensor, "side side"]:
    """The orthonormal matrix of the discrete cosine transform of type IV, which is symmetric and mixes all with all."""
    place = torch.arange(side, dtype=torch.float64) + 0.5
    return (math.sqrt(2 / side) * torch.cos(math.pi / side * place[:, None] * place)).float()


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
