"""The baseline without machine learning: a library of frozen showers, what experiments use today.

A wanted shower is one of the shots nearest to it in energy and angle, brought to its energy, turned and mirrored in phi
at random. Experiments keep such libraries of full-simulation showers: "Fast simulation of electromagnetic showers in
the ATLAS calorimeter: frozen showers", J. Phys. Conf. Ser. 160 (2009) 012082.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from metacalo.detectors.condition_range import ConditionRange
from metacalo.errors import ShowerFileError
from metacalo.showers.shower_file import Showers
from metacalo.typing import ShowerArray

__all__ = ["FrozenLibrary"]

_LOG_ENERGY_UNIT = 0.3
_ANGLE_UNIT = 0.3  # rad
_BLOCK = 64  # showers that are scaled and turned at a time


@dataclass(frozen=True, repr=False)
class FrozenLibrary:
    """Full-simulation showers of one detector, kept to be used again.

    The distance between a wanted shower and a shot is the Euclidean one of (ln E / 0.3, |theta - pi/2| / 0.3). Of the
    `neighbours` nearest shots one is taken at random; its cells are multiplied by the ratio of the energies, rolled by
    a random number of phi cells and, every second time, mirrored (phi -> -phi). Cells below the threshold become zero.

    Attributes:
        showers: deposits in MeV, float32 (N, R, PHI, Z).
        energy: incident energies in MeV, (N,).
        theta: polar angles in rad, (N,).
        threshold: smallest cell energy in MeV that is kept.
        neighbours: shots among which one is drawn; all of them where there are fewer.

    Raises:
        ShowerFileError: no shots, lengths that differ, or energies and angles that cannot be.
        ValueError: `neighbours` is not positive.
    """

    showers: ShowerArray
    energy: np.ndarray
    theta: np.ndarray
    threshold: float
    neighbours: int = 5

    def __post_init__(self) -> None:
        lengths = [len(self.showers), len(self.energy), len(self.theta)]
        if min(lengths) == 0 or len(set(lengths)) > 1:
            raise ShowerFileError(
                "a library needs as many showers as energies and thetas, not {}, {}, {}".format(*lengths)
            )
        if self.neighbours < 1:
            message = f"neighbours is {self.neighbours}; at least 1 is needed"
            raise ValueError(message)
        _coordinates(self.energy, self.theta)

    @classmethod
    def from_shots(cls, shots: Showers) -> Self:
        """The library of these showers; its threshold is their smallest non-zero cell.

        Raises:
            ShowerFileError: there are no shots, or no cell of them holds energy.
        """
        hit = shots.showers > 0
        if not hit.any():
            raise ShowerFileError("every shower given to the library is empty; choose showers with energy deposits")
        return cls(shots.showers, shots.energy, shots.theta, float(shots.showers[hit].min()))

    def __len__(self) -> int:
        return len(self.showers)

    def __repr__(self) -> str:
        known = ConditionRange.of(self.energy, self.theta, None)
        return f"FrozenLibrary({len(self):,} showers, {known}, threshold={self.threshold:.4g} MeV)"

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(_coordinates(self.energy, self.theta))

    def nearest(self, energy: Float[np.ndarray, "n"], theta: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n k"]:
        """Rows of the shots nearest to each (energy in MeV, theta in rad), the nearest first.

        Raises:
            ShowerFileError: an energy is not above zero, or a value is not finite.
        """
        ranks = range(1, min(self.neighbours, len(self)) + 1)
        _, rows = self._tree.query(_coordinates(energy, theta), k=ranks)
        return np.asarray(rows, dtype=np.int64)

    def sample(
        self, energy: Float[np.ndarray, "n"], theta: Float[np.ndarray, "n"], generator: torch.Generator
    ) -> ShowerArray:
        """One shower for each (energy in MeV, theta in rad): float32 (n, R, PHI, Z) in MeV.

        The same `generator` state gives the same showers. The azimuth of the particle does not matter: phi is counted
        around its direction, and all turns are equally likely.

        Raises:
            ShowerFileError: an energy is not above zero, or a value is not finite.
        """
        n, n_phi = len(energy), self.showers.shape[2]
        near = self.nearest(energy, theta)
        rows = near[np.arange(n), _draw(near.shape[1], n, generator)]
        turns = _draw(n_phi, n, generator)[:, None]
        mirrored = _draw(2, n, generator)[:, None] == 1
        sources = (np.arange(n_phi) - turns) % n_phi
        sources = np.where(mirrored, n_phi - 1 - sources, sources)
        ratios = (np.asarray(energy, np.float64) / self.energy[rows].astype(np.float64)).astype(np.float32)
        made = np.empty((n, *self.showers.shape[1:]), np.float32)
        for start in range(0, n, _BLOCK):
            block = slice(start, start + _BLOCK)
            turned = np.take_along_axis(self.showers[rows[block]], sources[block, None, :, None], axis=2)
            scaled = turned * ratios[block, None, None, None]
            made[block] = np.where(scaled < np.float32(self.threshold), np.float32(0), scaled)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """All of the library by name, for a safetensors file.

        Of the showers only the hit cells are kept, in half precision where that is exact, with one bit a cell that says
        which they are.
        """
        hit = self.showers != 0
        cells = torch.from_numpy(self.showers[hit])
        half = cells.half()
        return {
            "cells": half if torch.equal(half.float(), cells) else cells,
            "hits": torch.from_numpy(np.packbits(hit)),
            "shape": torch.tensor(self.showers.shape),
            "energy": torch.from_numpy(np.asarray(self.energy)),
            "theta": torch.from_numpy(np.asarray(self.theta)),
            "threshold": torch.tensor(self.threshold, dtype=torch.float64),
            "neighbours": torch.tensor(self.neighbours),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of `tensors`.

        Raises:
            KeyError: a tensor is missing.
            ValueError: their sizes do not fit together.
            ShowerFileError: they make no library.
        """
        shape = tuple(int(size) for size in tensors["shape"].tolist())
        if len(shape) != 4 or min(shape) < 1 or not 0 <= 8 * len(tensors["hits"]) - math.prod(shape) < 8:
            message = f"shape {shape} and {8 * len(tensors['hits'])} bits of hit cells do not fit together"
            raise ValueError(message)
        hit = np.unpackbits(tensors["hits"].numpy(), count=math.prod(shape)).astype(bool).reshape(shape)
        showers = np.zeros(shape, np.float32)
        showers[hit] = tensors["cells"].float().numpy()
        return cls(
            showers,
            tensors["energy"].numpy(),
            tensors["theta"].numpy(),
            float(tensors["threshold"]),
            int(tensors["neighbours"]),
        )


def _coordinates(energy: np.ndarray, theta: np.ndarray) -> NDArray[np.float64]:
    """Where showers lie in the space of the distance, (n, 2)."""
    energy, theta = np.asarray(energy, np.float64), np.asarray(theta, np.float64)
    if not (np.isfinite(energy).all() and (energy > 0).all() and np.isfinite(theta).all()):
        raise ShowerFileError("energies must be finite and above 0 MeV, thetas finite; correct them")
    return np.stack([np.log(energy) / _LOG_ENERGY_UNIT, np.abs(theta - np.pi / 2) / _ANGLE_UNIT], axis=1)


def _draw(below: int, n: int, generator: torch.Generator) -> NDArray[np.int64]:
    return torch.randint(below, (n,), generator=generator).numpy()
