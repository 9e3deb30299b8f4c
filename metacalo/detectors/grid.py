"""The cylindrical mesh that showers are scored on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metacalo.errors import DetectorError

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid:
    """`n_r` x `n_phi` x `n_z` cells around the particle's entrance point, along its direction (Par04).

    Attributes:
        n_r, n_phi, n_z: number of cells; a shower array is `(N, n_r, n_phi, n_z)`.
        dr_mm, dz_mm: cell sizes in mm; NaN where a file does not say.

    phi cell i covers [-pi + 2 pi i / n_phi, -pi + 2 pi (i + 1) / n_phi).
    """

    n_r: int = 9
    n_phi: int = 16
    n_z: int = 45
    dr_mm: float = float("nan")
    dz_mm: float = float("nan")

    def __post_init__(self) -> None:
        if min(self.n_r, self.n_phi, self.n_z) < 1:
            raise DetectorError(f"a grid needs at least one cell per axis, got {self.n_r} x {self.n_phi} x {self.n_z}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_r, n_phi, n_z)."""
        return self.n_r, self.n_phi, self.n_z

    @property
    def n_voxels(self) -> int:
        """Cells in all, for example 6,480."""
        return self.n_r * self.n_phi * self.n_z

    @property
    def phi_centres(self) -> np.ndarray:
        """Centres of the phi cells in rad, shape (n_phi,)."""
        return -np.pi + 2 * np.pi * (np.arange(self.n_phi) + 0.5) / self.n_phi

    @property
    def r_centres(self) -> np.ndarray:
        """Centres of the r cells in units of a cell, shape (n_r,)."""
        return np.arange(self.n_r) + 0.5

    def __str__(self) -> str:
        return f"{self.n_r} x {self.n_phi} x {self.n_z}"
