"""Showers as sequences: 3-D patches of the mesh, each carrying the energies of its rings and layers."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from einops import reduce, repeat
from torch import Tensor

from metacalo.errors import ConfigError
from metacalo.normaliser.latents import Latents
from metacalo.typing import Tokens

__all__ = ["COMPONENTS", "Patching"]

_AXES = MappingProxyType(
    {
        "cells": ("(r pr) (phi pp) (z pz)", "pr pp pz"),
        "rings": ("(r pr) (z pz)", "pr pz"),
        "hits": ("(r pr) (z pz)", "pr pz"),
        "layers": ("(z pz)", "pz"),
        "total": ("", ""),
    }
)
"""Component of `Latents` to its axes in a shower, and to those that a token has of it: r, phi and z count patches."""

COMPONENTS = tuple(_AXES)
"""All components of `Latents`, in their order in a token."""


@dataclass(frozen=True)
class Patching:
    """Cuts a `grid` of cells into patches of `patch` cells, both (r, phi, z).

    The token of a patch carries `components` of `Latents`: its cells, rings, their hits, layers, the total. What
    several patches share, the token of each of them has. Token order is z slowest, then r, then phi, so that a causal
    model goes through the shower as the particle does.

    Raises:
        ConfigError: the patch does not divide the grid.
    """

    grid: tuple[int, int, int]
    patch: tuple[int, int, int]
    components: Collection[str] = COMPONENTS

    def __post_init__(self) -> None:
        for axis, cells, size in zip(("r", "phi", "z"), self.grid, self.patch, strict=True):
            if size < 1 or cells % size:
                raise ConfigError(f"patch size {size} along {axis} does not divide the {cells} cells of the grid")

    @property
    def counts(self) -> tuple[int, int, int]:
        """Patches along (r, phi, z)."""
        n_r, n_phi, n_z = (cells // size for cells, size in zip(self.grid, self.patch, strict=True))
        return n_r, n_phi, n_z

    @property
    def n_tokens(self) -> int:
        """Patches in all."""
        return math.prod(self.counts)

    @property
    def sizes(self) -> dict[str, int]:
        """Values that a token has of each component, in their order."""
        return {
            component: math.prod(self._lengths(component).values())
            for component in COMPONENTS
            if component in self.components
        }

    @property
    def token_size(self) -> int:
        """Values in a token."""
        return sum(self.sizes.values())

    def _lengths(self, component: str) -> dict[str, int]:
        """Lengths of a component's axes in a token."""
        return {
            axis: size for axis, size in zip(("pr", "pp", "pz"), self.patch, strict=True) if axis in _AXES[component][1]
        }

    def join(self, latents: Latents) -> Tokens:
        """Tokens (n, token, token_size)."""
        r, phi, z = self.counts

        def gather(component: str) -> Tensor:
            whole, own = _AXES[component]
            values: Tensor = getattr(latents, component)
            return repeat(values, f"n {whole} -> n (z r phi) ({own})", r=r, phi=phi, z=z)

        return torch.cat([gather(component) for component in self.sizes], dim=-1)

    def split(self, tokens: Tokens, others: Latents) -> Latents:
        """Inverse of `join`, with what tokens do not carry from `others`; values that several carry are averaged."""
        r, phi, z = self.counts

        def merge(component: str, values: Tensor) -> Tensor:
            whole, own = _AXES[component]
            lengths = self._lengths(component)
            return reduce(values, f"n (z r phi) ({own}) -> n {whole}", "mean", r=r, phi=phi, z=z, **lengths)

        values = torch.split(tokens, list(self.sizes.values()), dim=-1)
        return replace(
            others, **{component: merge(component, of) for component, of in zip(self.sizes, values, strict=True)}
        )
