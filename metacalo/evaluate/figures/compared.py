"""The samples of one comparison, with observables that are computed once for all figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from metacalo.detectors.grid import Grid
from metacalo.evaluate.figures.style import Heading, drawable
from metacalo.evaluate.fluctuations import energy_edges
from metacalo.evaluate.observables import Observables, observables
from metacalo.showers.shower_file import Showers

__all__ = ["Compared"]

Array = NDArray[np.float64]

_AROUND = 0.05  # of a single energy


@dataclass(frozen=True, eq=False)
class Compared:
    """Samples side by side; the first is the reference.

    Attributes:
        labels: names of the samples, as figures can show them.
        samples: their showers, all on one mesh.
        seen: their observables.
        means: mean deposit of each cell per shower, (R, PHI, Z), MeV.
    """

    labels: list[str]
    samples: list[Showers]
    seen: list[Observables]
    means: list[Array] = field(repr=False)

    @classmethod
    def of(cls, samples: Mapping[str, Showers]) -> Compared:
        """Computes the observables of labelled samples, each once."""
        showers = list(samples.values())
        seen = [observables(sample.showers, sample.energy) for sample in showers]
        means = [sample.showers.mean(axis=0, dtype=np.float64) for sample in showers]
        return cls([drawable(label) for label in samples], showers, seen, means)

    @property
    def heading(self) -> Heading:
        """The detector, and the beam of the reference."""
        names = [sample.detector.name for sample in self.samples if sample.detector]
        first = self.samples[0]
        return Heading.of(names[0] if names else "", first.energy, first.theta, first.particle)

    @property
    def grid(self) -> Grid:
        """The mesh, with cell sizes where the detector has them."""
        n_r, n_phi, n_z = (int(cells) for cells in self.samples[0].showers.shape[1:])
        for sample in self.samples:
            known = sample.detector.grid if sample.detector else None
            if known and known.shape == (n_r, n_phi, n_z) and isfinite(known.dr_mm) and isfinite(known.dz_mm):
                return known
        return Grid(n_r, n_phi, n_z)

    @property
    def radial_cell(self) -> tuple[float, str]:
        """Size of a cell along r with its unit: mm where the detector has it, else 1 cell."""
        dr = self.grid.dr_mm
        return (dr, "mm") if isfinite(dr) else (1.0, "cells")

    @property
    def layer_edges(self) -> Array:
        """0 to Z, (Z + 1,)."""
        return np.arange(self.samples[0].showers.shape[3] + 1.0)

    @property
    def ring_edges(self) -> Array:
        """From the axis to the edge of the mesh in the unit of `radial_cell`, (R + 1,)."""
        return self.radial_cell[0] * np.arange(self.samples[0].showers.shape[1] + 1.0)

    def energy_edges(self, bins: int) -> Array:
        """Edges of bins of equal width in ln E over the reference's energies, (bins + 1,), MeV; around a single one."""
        edges = energy_edges(self.seen[0].energy, bins)
        return edges if edges[0] < edges[-1] else edges * np.array([1 - _AROUND, 1 + _AROUND])

    @property
    def one_energy(self) -> bool:
        """Whether the reference has but one incident energy."""
        return len(energy_edges(self.seen[0].energy)) == 2

    def in_energy(self, low: float, high: float) -> list[NDArray[np.bool_]]:
        """Which showers of each sample have energies from `low` to `high` MeV, both included."""
        return [(found.energy >= low) & (found.energy <= high) for found in self.seen]

    def angles(self) -> list[Array]:
        """Angle of each shower to the normal of the front face, degrees: 0 where theta is pi / 2."""
        return [np.abs(90 - np.degrees(np.asarray(sample.theta, np.float64))) for sample in self.samples]
