"""Reading shower files: whatever their convention, rows come as float32 (n, R, PHI, Z) in MeV."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isnan
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from metacalo.detectors.condition_range import ConditionRange
from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.detectors.published_stacks import PARTICLES_OF_PDG, particle_in
from metacalo.errors import DetectorError, ShowerFileError
from metacalo.showers.chunks import LARGEST_BLOCK, runs
from metacalo.showers.conventions import Convention, Refuse, Source, recognise, refuse_at_once
from metacalo.showers.hdf5_limits import naming_read_errors
from metacalo.showers.shards import OpenFiles, ShowerDataset, join_shards, shard_paths
from metacalo.storage.hdf5_access import open_hdf5, read_failure
from metacalo.typing import PathLike, ShowerArray

__all__ = ["ShowerFile", "Showers", "described_on_mesh", "open_showers", "shower_hashes"]

_SAME_SIZE = 0.01  # part by which two statements of a cell size may differ
LARGEST_RESPONSE = 20.0  # deposited over incident energy; MeV against GeV gives 30 and more

Rows = slice | NDArray[np.integer] | list[int]


@dataclass(frozen=True, repr=False)
class Showers:
    """Showers in memory.

    Attributes:
        showers: deposits in MeV, float32 (N, R, PHI, Z).
        energy: incident energies in MeV, float32 (N,).
        theta, phi: incident angles in rad, float32 (N,).
        detector: where they were simulated; None where not known.
        particle: that came in, as Geant4 calls it (`e-`, `gamma`); None where the file does not say.

    Raises:
        ShowerFileError: the lengths differ, or `showers` does not have four axes.
    """

    showers: ShowerArray
    energy: np.ndarray
    theta: np.ndarray
    phi: np.ndarray
    detector: Detector | None = None
    particle: str | None = None

    def __post_init__(self) -> None:
        if self.showers.ndim != 4:
            raise ShowerFileError(f"showers have shape {self.showers.shape}; (N, R, PHI, Z) is needed")
        lengths = [len(self.showers), len(self.energy), len(self.theta), len(self.phi)]
        if len(set(lengths)) != 1:
            raise ShowerFileError("lengths of showers, energy, theta and phi differ: {}, {}, {}, {}".format(*lengths))

    def __len__(self) -> int:
        return len(self.showers)

    def __repr__(self) -> str:
        cells = " x ".join(map(str, self.showers.shape[1:]))
        known = f", {ConditionRange.of(self.energy, self.theta, None)}" if len(self) else ""
        return (
            f"Showers({len(self):,} showers, cells={cells}{known}, {self.detector.name if self.detector else None!r})"
        )

    def __getitem__(self, rows: Rows) -> Showers:
        return replace(
            self, showers=self.showers[rows], energy=self.energy[rows], theta=self.theta[rows], phi=self.phi[rows]
        )

    def select(self, rows: Rows) -> Showers:
        """The showers of those rows, in that order."""
        return self[rows]

    def hashes(self) -> NDArray[np.int64]:
        """A hash of the content of each shower, int64 (N,)."""
        return shower_hashes(self.showers, self.energy)


def shower_hashes(showers: ShowerArray, energy: np.ndarray) -> NDArray[np.int64]:
    """BLAKE2b (8 bytes) over each shower's little-endian float32 voxels and its energy: equal content, equal hash."""
    voxels = np.abs(showers).astype("<f4", copy=False)  # -0.0 and 0.0 are one value
    energy = np.asarray(energy).astype("<f4", copy=False)
    hashes = np.empty(len(voxels), np.int64)
    for row in range(len(voxels)):
        digest = hashlib.blake2b(voxels[row].tobytes(), digest_size=8)
        digest.update(energy[row].tobytes())
        hashes[row] = int.from_bytes(digest.digest(), "little", signed=True)
    return hashes


class ShowerFile:
    """An open shower file, or several as one; energies and angles are in memory, showers are read (checked) on demand.

    Attributes:
        path, group: where the showers lie.
        convention: `par04`, `calochallenge` or `hgcal`, as found in the file.
        grid: number of cells, and their sizes in mm where the file or the detector has them.
        detector: what the caller gave, else what the file describes, else None.
        energy: incident energies in MeV, float32 (N,).
        theta, phi: incident angles in rad, float32 (N,).
        attributes: all attributes of the file, or of the group, as stored.
        datasets: what holds the showers, in the order of the rows.
    """

    def __init__(self, files: OpenFiles, source: Source, path: Path, group: str | None, detector: Detector | None):
        self._files, self._source = files, source
        self.path, self.group = path, group
        self._described = detector is not None
        self.convention: Convention = source.convention
        self.energy, self.theta, self.phi = source.energy, source.theta, source.phi
        self.attributes: Mapping[str, Any] = source.attributes
        self.datasets: tuple[ShowerDataset, ...] = source.datasets
        self.detector = source.detector if detector is None else described_on_mesh(detector, source.grid, path)
        self.grid = self.detector.grid if self.detector else source.grid
        self._starts = np.cumsum([0, *(len(dataset) for dataset in source.datasets)])

    def __len__(self) -> int:
        return len(self.energy)

    def __repr__(self) -> str:
        return f"ShowerFile({str(self.path)!r}, {len(self):,} showers, cells={self.grid}, {self.convention})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes what is open; what was read stays."""
        self._files.close()

    @property
    def detector_is_assumed(self) -> bool:
        """Whether the detector is one of the convention, or of the file's name, and none that anybody described."""
        described = self._described or {"active_material", "layers"} & set(self.attributes)
        return self.detector is not None and not described

    @property
    def particle(self) -> str | None:
        """What came in, as Geant4 calls it: the attribute `particle`, else `pdg`, else a word of the file's name."""
        text = self._attribute("particle")
        if not text:
            text = PARTICLES_OF_PDG.get(self._attribute("pdg"), "")
        return text or particle_in(self.path.stem)

    def _attribute(self, name: str) -> str:
        found = np.asarray(self.attributes.get(name, "")).ravel()
        value = found[0] if len(found) == 1 else ""
        return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()

    def read(self, rows: Rows) -> ShowerArray:
        """Showers of those rows, in that order: float32 (n, R, PHI, Z) in MeV.

        Only the chunks that hold a row are decompressed, each once.

        Raises:
            ShowerFileError: a voxel is NaN, infinite or negative, or more energy was deposited than can be.
        """
        return self._read(rows, self._check)

    def read_as_stored(self, rows: Rows) -> ShowerArray:
        """What `read` gives, whatever the values of the voxels: for checks that look for wrong ones.

        Raises:
            ShowerFileError: a part of the file is damaged.
        """
        return self._read(rows, lambda *_: None)

    def _read(self, rows: Rows, check: Callable[[np.ndarray, np.ndarray, ShowerDataset], None]) -> ShowerArray:
        wanted = np.arange(len(self))[np.asarray(rows, dtype=np.int64) if isinstance(rows, list) else rows]
        showers = np.empty((len(wanted), *self.grid.shape), np.float32)
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        for dataset, start, stop in zip(self.datasets, self._starts[:-1], self._starts[1:], strict=True):
            first, last = np.searchsorted(ordered, (start, stop))
            inside, places = ordered[first:last], order[first:last]
            for run in runs(dataset, inside - start):
                block = self._block(dataset, inside[run] - start)
                check(block, inside[run], dataset)
                showers[places[run]] = block
        return showers

    def _block(self, dataset: ShowerDataset, rows: np.ndarray) -> np.ndarray:
        with naming_read_errors(f"{self._where(dataset)} rows {rows[0]} to {rows[-1]}"):
            stored = dataset[rows[0] : rows[-1] + 1]
        return self._source.in_order(stored[rows - rows[0]])

    def _where(self, dataset: ShowerDataset) -> str:
        return f"{dataset.path}: '{dataset.name.lstrip('/')}'"

    def _check(self, block: np.ndarray, rows: np.ndarray, dataset: ShowerDataset) -> None:
        lowest = block.min(axis=(1, 2, 3))  # NaN where any voxel is
        total = block.sum(axis=(1, 2, 3), dtype=np.float64)
        wrong = ~((lowest >= 0) & np.isfinite(total))
        first_row = self._starts[self.datasets.index(dataset)]
        if wrong.any():
            row = int(np.argmax(wrong))
            bad = block[row][~(np.isfinite(block[row]) & (block[row] >= 0))]
            mend = "set it to 0 or drop the row" if bad[0] < 0 else "drop the row"
            raise ShowerFileError(
                f"{self._where(dataset)} row {rows[row] - first_row} has a voxel of {bad[0]:g} MeV "
                f"({len(bad)} such); finite deposits of 0 and above are needed, {mend}"
            )
        response = total / self.energy[rows]
        if response.max() > LARGEST_RESPONSE:
            row = int(np.argmax(response > LARGEST_RESPONSE))
            raise ShowerFileError(
                f"{self._where(dataset)} row {rows[row] - first_row} deposits {response[row]:.0f} times its incident "
                f"energy of {self.energy[rows[row]]:g} MeV; both are needed in MeV (energies in GeV? metacalo convert "
                "FILE --energy-scale 1000)"
            )

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.int64], ShowerArray]]:
        """All showers in file order, `size` at a time: (rows (n,), showers (n, R, PHI, Z)); any file size."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self.read(rows)

    def load(self, rows: Rows | None = None) -> Showers:
        """Those rows (all by default) with their energies and angles."""
        chosen: Rows = slice(None) if rows is None else rows
        showers = self.read(chosen)
        return Showers(showers, self.energy[chosen], self.theta[chosen], self.phi[chosen], self.detector, self.particle)

    def hashes(self, rows: Rows | None = None) -> NDArray[np.int64]:
        """A hash of the content of each shower, int64 (n,); see `shower_hashes`."""
        wanted = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        step = max(1, min(512, LARGEST_BLOCK // (4 * self.grid.n_voxels)))
        parts = [wanted[start : start + step] for start in range(0, len(wanted), step)]
        found = [shower_hashes(self.read(part), self.energy[part]) for part in parts]
        return np.concatenate(found) if found else np.empty(0, np.int64)


def described_on_mesh(detector: Detector, mesh: Grid, path: Path) -> Detector:
    """The detector that the caller described, on the cells of a file.

    Warns where description and file state different cell sizes, and where neither states one.

    Raises:
        DetectorError: they have different numbers of cells.
    """
    if detector.stated.shape not in (mesh.shape, Grid().shape):
        raise DetectorError(
            f"{path}: holds showers on {mesh} cells, but '{detector.name}' is described with {detector.stated}; "
            "correct n_r, n_phi and n_z under [grid] of the description"
        )
    on_mesh = detector.on_mesh(mesh)
    unknown = []
    for axis in ("dr_mm", "dz_mm"):
        mine, of_file, used = (getattr(grid, axis) for grid in (detector.stated, mesh, on_mesh.grid))
        if isnan(mine) and isnan(of_file):
            unknown.append(f"{axis} = {used:.4g}")
        elif abs(of_file / used - 1) > _SAME_SIZE:
            warnings.warn(
                f"{path}: {axis} is {of_file:.4g} in the file and {used:.4g} in the description of '{detector.name}', "
                "which is used; correct the one that is wrong",
                stacklevel=1,
            )
    if unknown:
        warnings.warn(
            f"{path}: neither the file nor the description of '{detector.name}' states the cell sizes; "
            f"{' and '.join(unknown)} are taken, from its Moliere radius and X0; state the true ones under [grid] of a "
            "--description",
            stacklevel=1,
        )
    return on_mesh


def open_showers(
    path: PathLike,
    *,
    group: str | None = None,
    detector: Detector | None = None,
    refuse: Refuse = refuse_at_once,
) -> ShowerFile:
    """Opens a shower file of any known convention; use it as a context manager.

    Args:
        path: an HDF5 file; a folder or a pattern of files that are read one after another, see `shard_paths`.
        group: which group of a file that holds several detectors.
        detector: takes the place of what the file says about its detector. The numbers of cells stay the file's; cell
            sizes that are stated for the detector win over the file's, and those that a convention assumes are dropped.
        refuse: what is done about energies, angles and attributes that cannot be right; by default they are raised.

    Raises:
        ShowerFileError: no such file or group, no HDF5, truncated, of no known convention, or with datasets that are
            missing, of the wrong shape or type, links to other files, or impossible energies or angles; or files of
            one sample that differ in convention, mesh or detector.
        DetectorError: the file's attributes describe a detector that cannot be, or `detector` has another number of
            cells.
    """
    path, files = Path(path), OpenFiles(_open)

    def recognised(file: Path) -> Source:
        mesh = None if detector is None else detector.stated.shape
        return recognise(_group(files.file(file), file, group), file, refuse, mesh)

    try:
        with naming_read_errors(str(path)):
            paths = shard_paths(path)
            source = join_shards(paths, files, recognised)
            return ShowerFile(files, source, path if len(paths) > 1 else paths[0], group, detector)
    except BaseException:
        files.close()
        raise


def _open(path: Path) -> h5py.File:
    if path.is_dir():
        raise ShowerFileError(f"{path}: is a folder, a shower file (HDF5) was expected")
    if path.exists() and not path.is_file():
        raise ShowerFileError(f"{path}: is no regular file, a shower file (HDF5) was expected")
    if not path.is_file():
        siblings = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ShowerFileError(f"{path}: there is no such file{hint}")
    try:
        with path.open("rb") as handle:
            start = handle.read(4)
    except OSError as error:
        raise ShowerFileError(f"{path}: {read_failure(error)}") from None
    if not h5py.is_hdf5(path):
        if start == b"root":
            command = f"metacalo convert {path.name} --format par04 --out {path.stem}.h5"
            raise ShowerFileError(f"{path}: a ROOT file; make it HDF5 by '{command}'")
        raise ShowerFileError(f"{path}: not an HDF5 file ('showers', 'incident_energy', ... are expected)")
    return open_hdf5(path)


def _group(file: h5py.File, path: Path, group: str | None) -> h5py.Group:
    place: h5py.Group = file
    for part in (group or "").strip("/").split("/") if group else ():
        if part not in place:
            near = get_close_matches(part, list(place), n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ShowerFileError(f"{path}: there is no group '{group}' (found {', '.join(list(place)[:40])}){hint}")
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise ShowerFileError(f"{path}: '{part}' is a link, and links are not followed; copy the data in (h5copy)")
        place = place[part]
        if not isinstance(place, h5py.Group):
            raise ShowerFileError(f"{path}: '{group}' is a dataset, a group was expected; leave group= out")
    return place
