"""Coarser meshes: cells that lie side by side are added up, so that every deposit is kept."""

from __future__ import annotations

import re

import numpy as np

from metacalo.detectors.grid import Grid
from metacalo.errors import ConfigError, ShowerFileError
from metacalo.typing import ShowerArray

__all__ = ["coarser_grid", "parse_mesh", "rebin"]

AXES = ("r", "phi", "z")


def parse_mesh(text: str) -> tuple[int, int, int]:
    """`'9x16x45'` to (9, 16, 45): cells in r, phi and z.

    Raises:
        ConfigError: not three numbers of cells.
    """
    match = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*x\s*(\d+)\s*", text)
    if match is None or min(map(int, match.groups())) < 1:
        raise ConfigError(f"'{text}' is no mesh; give cells in r, phi and z, such as 9x16x45")
    return int(match[1]), int(match[2]), int(match[3])


def coarser_grid(grid: Grid, shape: tuple[int, int, int]) -> Grid:
    """The mesh of `shape` cells that covers the volume of `grid`: cell sizes grow with the cells that are added up.

    phi cells start at -pi in both, so that edges stay edges.

    Raises:
        ShowerFileError: the cells of an axis do not divide evenly; the sentence names it and the numbers that would.

    Example:
        >>> coarser_grid(Grid(18, 48, 45, dr_mm=2.0, dz_mm=3.0), (9, 16, 15))
        Grid(n_r=9, n_phi=16, n_z=15, dr_mm=4.0, dz_mm=9.0)
    """
    for axis, old, new in zip(AXES, grid.shape, shape, strict=True):
        if old % new:
            fitting = ", ".join(str(cells) for cells in range(1, old + 1) if old % cells == 0)
            raise ShowerFileError(f"{old} cells in {axis} cannot be added up to {new}; {fitting} would do")
    n_r, n_phi, n_z = shape
    return Grid(n_r, n_phi, n_z, grid.dr_mm * (grid.n_r // n_r), grid.dz_mm * (grid.n_z // n_z))


def rebin(showers: ShowerArray, grid: Grid) -> ShowerArray:
    """Showers (N, R, PHI, Z) on the coarser mesh `grid`, float32 (N, n_r, n_phi, n_z); see `coarser_grid`.

    Example:
        >>> rebin(np.ones((1, 4, 2, 3), np.float32), Grid(2, 1, 3))[0, 0, 0].tolist()
        [4.0, 4.0, 4.0]
    """
    if showers.shape[1:] == grid.shape:
        return showers
    n, r, phi, z = showers.shape
    parts = (n, grid.n_r, r // grid.n_r, grid.n_phi, phi // grid.n_phi, grid.n_z, z // grid.n_z)
    return np.asarray(showers.reshape(parts).sum(axis=(2, 4, 6), dtype=np.float64), np.float32)
