"""Showers as sequences: 3-D patches of the mesh, each carrying the energies of its layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, reduce, repeat

from metacalo.errors import ConfigError
from metacalo.showers.normalise import Latents
from metacalo.typing import ShowerTensor, Tokens

__all__ = ["Patching"]


@dataclass(frozen=True)
class Patching:
    """Cuts a `grid` of cells into patches of `patch` cells, both (r, phi, z).

    Token order is z slowest, then r, then phi, so that a causal model goes through the shower as the particle does.

    Raises:
        ConfigError: the patch does not divide the grid.
    """

    grid: tuple[int, int, int]
    patch: tuple[int, int, int]

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
        n_r, n_phi, n_z = self.counts
        return n_r * n_phi * n_z

    @property
    def n_cells(self) -> int:
        """Cells in a patch."""
        p_r, p_phi, p_z = self.patch
        return p_r * p_phi * p_z

    @property
    def token_size(self) -> int:
        """Values in a token of `join`: its cells, the energies of its layers, the total."""
        return self.n_cells + self.patch[2] + 1

    def split_cells(self, voxels: ShowerTensor) -> Tokens:
        """(n, r, phi, z) cells to (n, token, n_cells)."""
        p_r, p_phi, p_z = self.patch
        return rearrange(voxels, "n (r pr) (phi pp) (z pz) -> n (z r phi) (pr pp pz)", pr=p_r, pp=p_phi, pz=p_z)

    def merge_cells(self, tokens: Tokens) -> ShowerTensor:
        """Inverse of `split_cells`."""
        n_r, n_phi, _ = self.counts
        p_r, p_phi, p_z = self.patch
        return rearrange(
            tokens,
            "n (z r phi) (pr pp pz) -> n (r pr) (phi pp) (z pz)",
            r=n_r, phi=n_phi, pr=p_r, pp=p_phi, pz=p_z,
        )  # fmt: skip

    def join(self, latents: Latents) -> Tokens:
        """Tokens (n, token, token_size): cells, then the layers' energies, then the total, repeated where shared."""
        n_r, n_phi, n_z = self.counts
        layers = repeat(latents.layers, "n (z pz) -> n (z r phi) pz", z=n_z, r=n_r, phi=n_phi)
        total = repeat(latents.total, "n -> n token 1", token=self.n_tokens)
        return torch.cat([self.split_cells(latents.voxels), layers, total], dim=-1)

    def part(self, tokens: Tokens) -> Latents:
        """Inverse of `join`; values that several tokens carry are averaged."""
        n_r, n_phi, _ = self.counts
        cells, layers, total = torch.split(tokens, [self.n_cells, self.patch[2], 1], dim=-1)
        return Latents(
            total.mean((1, 2)),
            reduce(layers, "n (z r phi) pz -> n (z pz)", "mean", r=n_r, phi=n_phi),
            self.merge_cells(cells),
        )
