"""Showers as sequences: 3-D patches of the mesh, each carrying the energies of its rings and layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, reduce, repeat

from metacalo.errors import ConfigError
from metacalo.showers.latents import Latents
from metacalo.typing import RingTensor, ShowerTensor, Tokens

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
    def n_rings(self) -> int:
        """(r, z) rings in a patch."""
        return self.patch[0] * self.patch[2]

    @property
    def content_size(self) -> int:
        """Values in a token of `join_content`: cells, ring energies, hits of rings."""
        return self.n_cells + 2 * self.n_rings

    @property
    def token_size(self) -> int:
        """Values in a token of `join`: its content, the energies of its layers, the total."""
        return self.content_size + self.patch[2] + 1

    def split_cells(self, cells: ShowerTensor) -> Tokens:
        """(n, r, phi, z) cells to (n, token, n_cells)."""
        p_r, p_phi, p_z = self.patch
        return rearrange(cells, "n (r pr) (phi pp) (z pz) -> n (z r phi) (pr pp pz)", pr=p_r, pp=p_phi, pz=p_z)

    def merge_cells(self, tokens: Tokens) -> ShowerTensor:
        """Inverse of `split_cells`."""
        n_r, n_phi, _ = self.counts
        p_r, p_phi, p_z = self.patch
        return rearrange(
            tokens,
            "n (z r phi) (pr pp pz) -> n (r pr) (phi pp) (z pz)",
            r=n_r, phi=n_phi, pr=p_r, pp=p_phi, pz=p_z,
        )  # fmt: skip

    def _split_rings(self, rings: RingTensor) -> Tokens:
        """(n, r, z) rings to (n, token, n_rings), repeated over the patches in phi."""
        return repeat(
            rings,
            "n (r pr) (z pz) -> n (z r phi) (pr pz)",
            pr=self.patch[0], pz=self.patch[2], phi=self.counts[1],
        )  # fmt: skip

    def _merge_rings(self, tokens: Tokens) -> RingTensor:
        """Inverse of `_split_rings`, the mean over phi."""
        n_r, n_phi, _ = self.counts
        return reduce(
            tokens,
            "n (z r phi) (pr pz) -> n (r pr) (z pz)", "mean",
            r=n_r, phi=n_phi, pr=self.patch[0], pz=self.patch[2],
        )  # fmt: skip

    def join_content(self, latents: Latents) -> Tokens:
        """Tokens (n, token, content_size): cells, then ring energies, then hits."""
        parts = [self.split_cells(latents.cells), self._split_rings(latents.rings), self._split_rings(latents.hits)]
        return torch.cat(parts, dim=-1)

    def part_content(self, tokens: Tokens) -> tuple[RingTensor, RingTensor, ShowerTensor]:
        """Inverse of `join_content`: rings, hits and cells; values that several tokens carry are averaged."""
        cells, rings, hits = torch.split(tokens, [self.n_cells, self.n_rings, self.n_rings], dim=-1)
        return self._merge_rings(rings), self._merge_rings(hits), self.merge_cells(cells)

    def join(self, latents: Latents) -> Tokens:
        """Tokens (n, token, token_size): content, then the layers' energies, then the total, repeated where shared."""
        n_r, n_phi, n_z = self.counts
        layers = repeat(latents.layers, "n (z pz) -> n (z r phi) pz", z=n_z, r=n_r, phi=n_phi)
        total = repeat(latents.total, "n -> n token 1", token=self.n_tokens)
        return torch.cat([self.join_content(latents), layers, total], dim=-1)

    def part(self, tokens: Tokens) -> Latents:
        """Inverse of `join`; values that several tokens carry are averaged."""
        n_r, n_phi, _ = self.counts
        content, layers, total = torch.split(tokens, [self.content_size, self.patch[2], 1], dim=-1)
        layers = reduce(layers, "n (z r phi) pz -> n (z pz)", "mean", r=n_r, phi=n_phi)
        return Latents(total.mean((1, 2)), layers, *self.part_content(content))
