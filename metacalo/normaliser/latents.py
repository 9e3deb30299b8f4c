"""Normalised showers: what every generator learns and samples, standard normal whatever the detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.typing import ShowerTensor

__all__ = ["Latents", "structure_layers", "structure_size"]

_Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Latents:
    """Normalised showers, from the coarse to the fine (see `normalise`); all components are float32 and without unit.

    Attributes:
        total: of the response, shape (n,).
        layers: of the layer energies, shape (n, z).
        rings: of the energies in the (r, z) rings, shape (n, r, z); the outermost ring takes what is left, so that
            its latent says nothing.
        hits: of the number of hit cells in each ring, shape (n, r, z).
        cells: of which cells of a ring are hit and how they share its energy, shape (n, r, phi, z).
    """

    total: Float[Tensor, "n"]
    layers: Float[Tensor, "n z"]
    rings: Float[Tensor, "n r z"]
    hits: Float[Tensor, "n r z"]
    cells: ShowerTensor

    def __len__(self) -> int:
        return len(self.total)

    @property
    def grid(self) -> _Grid:
        """Cells of the mesh, (r, phi, z)."""
        _, n_r, n_phi, n_z = self.cells.shape
        return n_r, n_phi, n_z

    def components(self) -> tuple[Tensor, ...]:
        """The five tensors, in the order of the attributes."""
        return self.total, self.layers, self.rings, self.hits, self.cells

    def map(self, function: Callable[[Tensor], Tensor]) -> Latents:
        """`function` of each tensor."""
        return Latents(*(function(component) for component in self.components()))

    def combine(self, other: Latents, function: Callable[[Tensor, Tensor], Tensor]) -> Latents:
        """`function` of each pair of tensors; the results need not have the shapes of latents."""
        return Latents(*(function(a, b) for a, b in zip(self.components(), other.components(), strict=True)))

    def to(self, device: torch.device | str) -> Latents:
        """The same latents on another device."""
        return self.map(lambda component: component.to(device))

    def __getitem__(self, rows: Tensor | slice) -> Latents:
        """The latents of some showers: a slice, row numbers, or a mask."""
        return self.map(lambda component: component[rows])

    def structure(self) -> Float[Tensor, "n d"]:
        """All but the cells in one row per shower, d = `structure_size(grid)`."""
        return torch.cat(
            [component.flatten(1) for component in (self.total[:, None], self.layers, self.rings, self.hits)], dim=1
        )

    def with_structure(self, structure: Float[Tensor, "n d"]) -> Latents:
        """The same cells with another `structure()`."""
        return self.from_flat(torch.cat([structure, self.cells.flatten(1)], dim=1), self.grid)

    def flat(self) -> Float[Tensor, "n value"]:
        """Everything in one row per shower: the structure, then the cells."""
        return torch.cat([self.structure(), self.cells.flatten(1)], dim=1)

    @classmethod
    def from_flat(cls, flat: Float[Tensor, "n value"], grid: _Grid) -> Latents:
        """Inverse of `flat`; views of it."""
        n_r, n_phi, n_z = grid
        sizes = [1, n_z, n_r * n_z, n_r * n_z, n_r * n_phi * n_z]
        total, layers, rings, hits, cells = torch.split(flat, sizes, dim=1)
        n = flat.shape[0]
        return cls(
            total[:, 0],
            layers,
            rings.reshape(n, n_r, n_z),
            hits.reshape(n, n_r, n_z),
            cells.reshape(n, n_r, n_phi, n_z),
        )

    @classmethod
    def noise(cls, n: int, grid: _Grid, generator: torch.Generator) -> Latents:
        """Independent standard normal latents of `n` showers, on the CPU."""
        n_r, n_phi, n_z = grid
        n_values = structure_size(grid) + n_r * n_phi * n_z
        return cls.from_flat(torch.randn(n, n_values, generator=generator), grid)


def structure_layers(grid: _Grid) -> Int[Tensor, "d"]:
    """Layer that each structural latent belongs to; -1 for the total."""
    n_r, _, n_z = grid
    return torch.cat([torch.tensor([-1]), torch.arange(n_z).repeat(1 + 2 * n_r)])


def structure_size(grid: _Grid) -> int:
    """Number of values of a shower's latents besides its cells: the total, the layers, the rings and their hits."""
    n_r, _, n_z = grid
    return 1 + n_z + 2 * n_r * n_z
