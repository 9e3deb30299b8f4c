"""Counts what the voxels of a file hold, batch by batch, whether it can be right or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metacalo.detectors.grid import Grid
from metacalo.showers.shower_file import shower_hashes
from metacalo.typing import ShowerArray

__all__ = ["Census", "Wrong"]

SHOWN: Final = 5
"""Rows that are named of those with a fault."""


@dataclass
class Wrong:
    """Voxels, or showers, that cannot be right.

    Attributes:
        count: how many.
        rows: the first rows that have them.
        showers: number of rows that have them.
    """

    count: int = 0
    rows: list[int] = field(default_factory=list)
    showers: int = 0

    def add(self, rows: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Notes the rows with a count above zero."""
        found = counts > 0
        self.count += int(counts.sum())
        self.showers += int(found.sum())
        self.rows += rows[found][: SHOWN - len(self.rows)].tolist()


class Census:
    """What has been seen of the showers of a file.

    Attributes:
        negative, not_finite, empty: voxels below 0, voxels that are NaN or infinite, showers without a deposit.
        smallest, largest: least deposit above 0 and greatest deposit, in MeV; NaN where there is none.
        hit: number of voxels with a deposit, of `showers` showers.
        sum: sum of the showers whose voxels are all right, float64 (R, PHI, Z), MeV; `sound` is how many they are.
    """

    def __init__(self, grid: Grid) -> None:
        self.negative, self.not_finite, self.empty = Wrong(), Wrong(), Wrong()
        self.smallest, self.largest = np.inf, -np.inf
        self.showers = self.sound = self.hit = 0
        self.sum = np.zeros(grid.shape)
        self._rows: list[NDArray[np.int64]] = []
        self._totals: list[NDArray[np.float64]] = []
        self._hashes: list[NDArray[np.int64]] = []

    def add(self, rows: NDArray[np.int64], showers: ShowerArray, energy: np.ndarray) -> None:
        """Counts showers (n, R, PHI, Z) as stored, with their row numbers (n,) and incident energies (n,) in MeV."""
        axes = (1, 2, 3)
        finite = np.isfinite(showers)
        negative = showers < 0
        self.not_finite.add(rows, (~finite).sum(axes))
        self.negative.add(rows, negative.sum(axes))
        deposits = np.where(finite & ~negative, showers, np.float32(0))
        hits = np.count_nonzero(deposits, axis=axes)
        self.empty.add(rows, np.asarray(hits == 0, np.int64))
        self.hit += int(hits.sum())
        self.showers += len(rows)
        if hits.any():
            self.smallest = min(self.smallest, float(deposits[deposits > 0].min()))
            self.largest = max(self.largest, float(deposits.max()))
        right = finite.all(axes) & ~negative.any(axes)
        self.sum += deposits[right].sum(axis=0, dtype=np.float64)
        self.sound += int(right.sum())
        self._rows.append(rows)
        self._totals.append(np.where(right, deposits.sum(axis=axes, dtype=np.float64), np.nan))
        # empty showers are all alike, and counted on their own
        self._hashes.append(np.where(hits > 0, shower_hashes(showers, energy), rows))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers of what was seen, (n,)."""
        return np.concatenate(self._rows) if self._rows else np.empty(0, np.int64)

    @property
    def totals(self) -> NDArray[np.float64]:
        """Deposited energy of each, (n,), MeV; NaN where a voxel cannot be right."""
        return np.concatenate(self._totals) if self._totals else np.empty(0)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean shower, (R, PHI, Z), MeV; of those whose voxels are all right."""
        return self.sum / max(self.sound, 1)

    @property
    def occupancy(self) -> float:
        """Mean fraction of the voxels with a deposit."""
        return self.hit / max(self.showers * self.sum.size, 1)

    def duplicates(self) -> Wrong:
        """Showers whose voxels and energy another one before them has; the rows are of the repetitions."""
        rows, hashes = self.rows, np.concatenate(self._hashes) if self._hashes else np.empty(0, np.int64)
        _, first = np.unique(hashes, return_index=True)
        repeated = np.ones(len(rows), bool)
        repeated[first] = False
        found = Wrong()
        found.add(rows, repeated.astype(np.int64))
        return found
