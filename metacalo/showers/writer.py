"""Writing shower files: atomically, in batches, with units and the detector as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import h5py
import numpy as np

from metacalo.checkpoint import atomic_file
from metacalo.errors import OutputError, ShowerFileError
from metacalo.showers.conventions import flatten_calochallenge
from metacalo.showers.detector import Detector
from metacalo.showers.grid import Grid
from metacalo.showers.hdf5 import Showers
from metacalo.typing import PathLike

__all__ = ["ShowerWriter", "write_showers"]

CHUNK = 64  # showers

WrittenConvention = Literal["par04", "calochallenge"]


class ShowerWriter:
    """Appends batches of showers to a new file that appears under its name only when complete.

    Args:
        path: the file to make.
        grid: the mesh of all showers to come.
        convention: `par04`, or `calochallenge` (flat rows; the angles are kept beside as incident_theta, incident_phi).
        detector: written as attributes.
        attributes: more of them, which win.
        force: whether an existing file may be replaced.

    The scale (raw deposits, or divided by the sampling fraction) is the caller's and passes through untouched.

    Raises:
        OutputError: the file exists and not `force`, cannot be written, or is left without a shower.
        ShowerFileError: a batch has another mesh, lengths that differ, or values that cannot be.
    """

    def __init__(
        self,
        path: PathLike,
        grid: Grid,
        *,
        convention: WrittenConvention = "par04",
        detector: Detector | None = None,
        attributes: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> None:
        if convention not in ("par04", "calochallenge"):
            raise OutputError(f"unknown convention '{convention}' to write; choose 'par04' or 'calochallenge'")
        self.path, self.grid, self.convention = Path(path), grid, convention
        self._attributes = {**_describe(grid, convention), **(detector.to_attributes() if detector else {})}
        self._attributes.update(attributes or {})
        self._force, self._stack, self._count = force, ExitStack(), 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_file(self.path, force=self._force))
            self._file = stack.enter_context(h5py.File(temporary, "w"))
            self._file.attrs.update(self._attributes)
            flat = self.convention == "calochallenge"
            self._create("showers", (self.grid.n_voxels,) if flat else self.grid.shape, "MeV")
            self._create(*(("incident_energies", (1,), "MeV") if flat else ("incident_energy", (), "MeV")))
            self._create("incident_theta", (), "rad")
            self._create("incident_phi", (), "rad")
            self._stack = stack.pop_all()
        return self

    def _create(self, name: str, shape: tuple[int, ...], units: str) -> None:
        options = {"maxshape": (None, *shape), "chunks": (CHUNK, *shape), "compression": "gzip", "shuffle": True}
        dataset = self._file.create_dataset(name, shape=(0, *shape), dtype="<f4", **options)
        dataset.attrs["units"] = units

    def append(self, batch: Showers) -> None:
        """Adds a batch of any size."""
        voxels = np.asarray(batch.showers, np.float32)
        if voxels.shape[1:] != self.grid.shape:
            raise ShowerFileError(f"{self.path}: showers have shape {voxels.shape[1:]}, the file's mesh is {self.grid}")
        if not (np.isfinite(voxels).all() and (voxels >= 0).all()):
            raise ShowerFileError(f"{self.path}: showers to write hold negative or non-finite voxels; mend them first")
        flat = self.convention == "calochallenge"
        energy = np.asarray(batch.energy, np.float32)
        self._extend("showers", flatten_calochallenge(voxels) if flat else voxels)
        self._extend("incident_energies" if flat else "incident_energy", energy[:, None] if flat else energy)
        self._extend("incident_theta", np.asarray(batch.theta, np.float32))
        self._extend("incident_phi", np.asarray(batch.phi, np.float32))
        self._count += len(batch)

    def _extend(self, name: str, values: np.ndarray) -> None:
        dataset = self._file[name]
        dataset.resize(self._count + len(values), axis=0)
        dataset[self._count :] = values

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._count == 0:
            error = OutputError(f"{self.path}: no shower was written, so no file was made")
            self._stack.__exit__(OutputError, error, None)
            raise error
        self._stack.__exit__(kind, error, trace)


def _describe(grid: Grid, convention: str) -> dict[str, Any]:
    flat = convention == "calochallenge"
    attributes: dict[str, Any] = {
        "axes": "showers[event, (z, phi, r)]" if flat else "showers[event, r, phi, z]",
        "units": "MeV, rad, mm",
        **{name: value for name, value in (("dr_mm", grid.dr_mm), ("dz_mm", grid.dz_mm)) if np.isfinite(value)},
    }
    return attributes | ({"n_r": grid.n_r, "n_phi": grid.n_phi, "n_z": grid.n_z} if flat else {})


def write_showers(
    path: PathLike,
    showers: Showers,
    *,
    convention: WrittenConvention = "par04",
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
