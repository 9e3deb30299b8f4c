"""Showers as intervals of latents: what a normaliser reads of them once, and draws from in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.showers import cells
from metacalo.showers.copula import Copula
from metacalo.showers.drift import Drift
from metacalo.showers.latents import Latents
from metacalo.showers.longitudinal import Longitudinal
from metacalo.showers.marginals import Interval, draw_within
from metacalo.typing import ShowerTensor

__all__ = ["EncodedShowers", "settled", "without_correlations"]


@dataclass(frozen=True)
class EncodedShowers:
    """Showers as intervals of latents, so that every epoch can dequantise them anew.

    Attributes:
        structure: of the structural latents without drift, two tensors (n, d).
        scores: of the hit cells' shares, see `cells.encode_shares`, shape (n, r, phi, z).
        around: energy around each cell, see `cells.surroundings`, half precision, shape (n, r, phi, z).
        log_energy: ln(E_inc / MeV), shape (n,).
    """

    structure: Interval
    scores: ShowerTensor
    around: ShowerTensor
    log_energy: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.log_energy)

    def __getitem__(self, rows: Tensor | slice) -> EncodedShowers:
        """Some of the showers: a slice, row numbers, or a mask."""
        lower, upper = self.structure
        return EncodedShowers(
            Interval(lower[rows], upper[rows]), self.scores[rows], self.around[rows], self.log_energy[rows]
        )

    def dequantise(self, generator: torch.Generator, copula: Copula | None = None) -> Latents:
        """Latents within the intervals, drawn anew with every call; as correlated as `copula` says."""
        placed = cells.place_cells(self.scores, self.around.float(), generator)
        _, n_r, n_phi, n_z = placed.shape
        grid = (n_r, n_phi, n_z)
        structure = draw_within(self.structure, generator)
        if copula is not None:
            structure = copula.settle(structure, self.structure, self.log_energy, grid, generator)
        return Latents.from_flat(torch.cat([structure, placed.flatten(1)], dim=1), grid)

    @classmethod
    def concatenate(cls, parts: list[EncodedShowers]) -> EncodedShowers:
        """Encoded showers one after another."""
        return cls(
            Interval(*(torch.cat(both) for both in zip(*(part.structure for part in parts), strict=True))),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.around for part in parts]),
            torch.cat([part.log_energy for part in parts]),
        )


def settled(
    structure: Interval,
    drift: Drift,
    log_energy: Float[Tensor, "n"],
    grid: tuple[int, int, int],
    copula: Copula | None,
    generator: torch.Generator,
) -> Float[Tensor, "n d"]:
    """Structural latents drawn within their intervals, under a drift and, if there is one, a copula."""
    steady = Interval(*(drift.remove(side, log_energy) for side in structure))
    drawn = draw_within(steady, generator)
    if copula is not None:
        drawn = copula.settle(drawn, steady, log_energy, grid, generator)
    return drift.add(drawn, log_energy)


def without_correlations(
    latents: Latents,
    log_energy: Float[Tensor, "n"],
    copula: Copula | None,
    longitudinal: Sequence[Longitudinal | None],
    sizes: Sequence[int],
) -> Latents:
    """White latents: without the correlations of the layers, which each detector has of its own, and of the copula.

    Args:
        latents: of one detector after another.
        log_energy: ln(E_inc / MeV).
        copula: shared by all of them; None leaves the latents as they are.
        longitudinal: of each detector; None leaves its layers to the copula.
        sizes: showers of each detector.
    """
    if copula is None:
        return latents
    rows = [torch.split(values, list(sizes)) for values in (latents.structure(), log_energy)]
    parts = zip(longitudinal, *rows, strict=True)
    lifted = [part if one is None else one.lift(part, energy, copula) for one, part, energy in parts]
    return copula.whiten(latents.with_structure(torch.cat(lifted)), log_energy)
