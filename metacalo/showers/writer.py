"""Writing shower files: atomically, in batches, with units and the detector as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.errors import OutputError, ShowerFileError
from metacalo.showers.conventions import Convention
from metacalo.showers.hdf5_sink import new_hdf5
from metacalo.showers.layouts import LAYOUTS, layout_attributes
from metacalo.showers.shower_file import Showers
from metacalo.storage.checkpoint import atomic_file
from metacalo.typing import PathLike

__all__ = ["ShowerWriter", "write_showers"]


class ShowerWriter:
    """Appends batches of showers to a new file that appears under its name only when complete.

    Args:
        path: the file to make.
        grid: the mesh of all showers to come.
        convention: `par04`, `calochallenge` (flat rows; the angles are kept beside as incident_theta, incident_phi), or
            `hgcal` (a dataset per energy; the angle is the one in the name of `path`, as in `SiW_angle_70.h5`).
        detector: written as attributes.
        attributes: more of them, which win.
        force: whether an existing file may be replaced.

    The scale (raw deposits, or divided by the sampling fraction) is the caller's and passes through untouched.

    Raises:
        OutputError: the file exists and not `force`, cannot be written, is left without a shower, or is to be `hgcal`
            with energies or angles that it cannot keep.
        ShowerFileError: a batch has another mesh, lengths that differ, or values that cannot be.
    """

    def __init__(
        self,
        path: PathLike,
        grid: Grid,
        *,
        convention: Convention = "par04",
        detector: Detector | None = None,
        attributes: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> None:
        if convention not in LAYOUTS:
            raise OutputError(f"unknown convention '{convention}' to write; choose {', '.join(map(repr, LAYOUTS))}")
        self.path, self.grid, self.convention = Path(path), grid, convention
        self._attributes = {**layout_attributes(grid, convention), **(detector.to_attributes() if detector else {})}
        self._attributes.update(attributes or {})
        self._force, self._stack, self._count = force, ExitStack(), 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_file(self.path, force=self._force))
            self._file, self._check = stack.enter_context(new_hdf5(temporary))
            self._file.attrs.update(self._attributes)
            self._stack = stack.pop_all()
        return self

    def append(self, batch: Showers) -> None:
        """Adds a batch of any size."""
        voxels = np.asarray(batch.showers, np.float32)
        if voxels.shape[1:] != self.grid.shape:
            raise ShowerFileError(f"{self.path}: showers have shape {voxels.shape[1:]}, the file's mesh is {self.grid}")
        if not (np.isfinite(voxels).all() and (voxels >= 0).all()):
            raise ShowerFileError(f"{self.path}: showers to write hold negative or non-finite voxels; mend them first")
        LAYOUTS[self.convention](self._file, Showers(voxels, batch.energy, batch.theta, batch.phi), self.path)
        self._check()
        self._count += len(batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._count == 0:
            error = OutputError(f"{self.path}: no shower was written, so no file was made")
            self._stack.__exit__(OutputError, error, None)
            raise error
        self._stack.__exit__(kind, error, trace)


def write_showers(
    path: PathLike,
    showers: Showers,
    *,
    convention: Convention = "par04",
    attributes: Mapping[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Writes showers that are in memory; see `ShowerWriter` for what comes in batches.

    Raises:
        OutputError: the file exists and not `force`, cannot be written, or there is no shower.
        ShowerFileError: a voxel is negative or not finite.
    """
    detector = showers.detector
    n_r, n_phi, n_z = (int(cells) for cells in showers.showers.shape[1:])
    grid = Grid(n_r, n_phi, n_z, detector.grid.dr_mm, detector.grid.dz_mm) if detector else Grid(n_r, n_phi, n_z)
    with ShowerWriter(
        path, grid, convention=convention, detector=detector, attributes=attributes, force=force
    ) as writer:
        for start in range(0, len(showers), 1024):
            writer.append(showers[start : start + 1024])
