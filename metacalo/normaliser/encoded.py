"""Showers as intervals of latents: what a normaliser reads of them once, and draws from in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.cells import place_cells
from metacalo.normaliser.copula import Copula
from metacalo.normaliser.energy_dependence import EnergyDependence
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.longitudinal import Longitudinal
from metacalo.normaliser.marginals import Interval, draw_within
from metacalo.typing import ShowerTensor

__all__ = ["EncodedCells", "EncodedShowers", "draw_structure", "without_correlations"]


@dataclass(frozen=True)
class EncodedCells:
    """What latents of cells are drawn from.

    Attributes:
        scores: of the hit cells' shares, see `cells.encode_shares`, shape (n, r, phi, z).
        around: energy around each cell, see `cells.surroundings`, half precision, shape (n, r, phi, z).
    """

    scores: ShowerTensor
    around: ShowerTensor

    def __getitem__(self, rows: Tensor | slice) -> EncodedCells:
        return EncodedCells(self.scores[rows], self.around[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedCells]) -> EncodedCells:
        """Those of showers one after another."""
        return cls(torch.cat([part.scores for part in parts]), torch.cat([part.around for part in parts]))


@dataclass(frozen=True)
class EncodedShowers:
    """Showers as intervals of latents, so that every epoch can dequantise them anew.

    Attributes:
        structure: of the structural latents at unit mean and width, two tensors (n, d).
        cells: what their latents are drawn from; None where nobody looks at them, whose latents then are zero.
        log_energy: ln(E_inc / MeV), shape (n,).
        grid: cells of the mesh, (r, phi, z).
    """

    structure: Interval
    cells: EncodedCells | None
    log_energy: Float[Tensor, "n"]
    grid: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.log_energy)

    def __getitem__(self, rows: Tensor | slice) -> EncodedShowers:
        """Some of the showers: a slice, row numbers, or a mask."""
        lower, upper = self.structure
        kept = None if self.cells is None else self.cells[rows]
        return EncodedShowers(Interval(lower[rows], upper[rows]), kept, self.log_energy[rows], self.grid)

    @property
    def with_cells(self) -> bool:
        """Whether the latents of cells are drawn."""
        return self.cells is not None

    def place_cells(self, generator: torch.Generator) -> ShowerTensor:
        """Latents of the cells alone, drawn anew with every call; without correlations of their own."""
        if self.cells is None:
            return self.log_energy.new_zeros(len(self), *self.grid)
        return place_cells(self.cells.scores, self.cells.around.float(), generator)

    def dequantise(self, generator: torch.Generator, copula: Copula | None = None) -> Latents:
        """Latents within the intervals, drawn anew with every call; as correlated as `copula` says."""
        placed = self.place_cells(generator)
        structure = draw_within(self.structure, generator)
        if copula is not None:
            structure = copula.gibbs_resample(structure, self.structure, self.log_energy, self.grid, generator)
        return Latents.from_flat(torch.cat([structure, placed.flatten(1)], dim=1), self.grid)

    @classmethod
    def concatenate(cls, parts: list[EncodedShowers]) -> EncodedShowers:
        """Encoded showers one after another; all of them with cells, or none."""
        known = [part.cells for part in parts if part.cells is not None]
        return cls(
            Interval(*(torch.cat(both) for both in zip(*(part.structure for part in parts), strict=True))),
            EncodedCells.concatenate(known) if len(known) == len(parts) else None,
            torch.cat([part.log_energy for part in parts]),
            parts[0].grid,
        )


def draw_structure(
    structure: Interval,
    energy_dependence: EnergyDependence,
    log_energy: Float[Tensor, "n"],
    grid: tuple[int, int, int],
    copula: Copula | None,
    generator: torch.Generator,
) -> Float[Tensor, "n d"]:
    """Structural latents drawn within their intervals, under an energy dependence and, if there is one, a copula."""
    steady = Interval(*(energy_dependence.forward(side, log_energy) for side in structure))
    drawn = draw_within(steady, generator)
    if copula is not None:
        drawn = copula.gibbs_resample(drawn, steady, log_energy, grid, generator)
    return energy_dependence.inverse(drawn, log_energy)


def without_correlations(
    latents: Latents,
    log_energy: Float[Tensor, "n"],
    copula: Copula | None,
    longitudinal: Sequence[Longitudinal | None],
    sizes: Sequence[int],
    *,
    cells: bool = True,
) -> Latents:
    """White latents: without the correlations of the layers, which each detector has of its own, and of the copula.

    Args:
        latents: of one detector after another.
        log_energy: ln(E_inc / MeV).
        copula: shared by all of them; None leaves the latents as they are.
        longitudinal: of each detector; None leaves its layers to the copula.
        sizes: showers of each detector.
        cells: whether there are latents of cells; else they are left alone.
    """
    if copula is None:
        return latents
    rows = [torch.split(values, list(sizes)) for values in (latents.structure(), log_energy)]
    parts = zip(longitudinal, *rows, strict=True)
    lifted = [part if one is None else one.forward(part, energy, copula) for one, part, energy in parts]
    if not cells:
        return latents.with_structure(copula.structure.forward(torch.cat(lifted), log_energy))
    return copula.forward(latents.with_structure(torch.cat(lifted)), log_energy)
