"""Reading the ROOT ntuples of Par04, Geant4's fast-simulation example, with uproot.

The tree `virtualReadout` has, per event, lists of hit cells: `rhoCell`, `phiCell`, `zCell` (indices) and `EnergyCell`
(MeV); `global` has `EnergyMC` (MeV) and, in later versions, `ThetaMC` and `PhiMC` (rad). Earlier versions keep all of
them in one tree `events`. Source: geant4/examples/extended/parameterisations/Par04 (Par04RunAction).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.errors import MetacaloError, MissingExtraError, ShowerFileError
from metacalo.showers.conventions import check_angles, check_energies
from metacalo.showers.hdf5_limits import MOST_VOXELS
from metacalo.showers.shower_file import Showers
from metacalo.typing import PathLike, ShowerArray

__all__ = ["NtupleFile", "NtupleWarning", "is_root", "open_ntuple"]

INDICES: Final = ("rhoCell", "phiCell", "zCell")
CELLS: Final = (*INDICES, "EnergyCell")
PREFERRED: Final = ("virtualReadout", "global", "events")
# cells of the detector itself, not of the mesh around the particle
IGNORED: Final = ("physicalReadout",)
MESHES: Final = ((9, 16, 45), (18, 50, 45), (24, 24, 24))
"""Meshes of published Par04 samples: LEMURS and CaloChallenge 2, CaloChallenge 3 and Par04's default, early Par04."""
MOST_CELLS: Final = 1024  # per axis; more is an index that was never set
EVENTS: Final = 1000  # read at a time


class NtupleWarning(UserWarning):
    """An ntuple does not say something, and what was assumed in its place."""


def is_root(path: PathLike) -> bool:
    """True where the file starts as ROOT files do."""
    try:
        if not Path(path).is_file():  # reading a pipe would wait for its writer
            return False
        with Path(path).open("rb") as handle:
            return handle.read(4) == b"root"
    except OSError:
        return False


class NtupleFile:
    """An open ntuple; energies and angles are in memory, showers are read (and checked) on demand.

    Attributes:
        path: the file.
        grid: the mesh; cell sizes are NaN, as an ntuple does not hold them.
        detector: None, likewise.
        energy: incident energies in MeV, float32 (N,).
        theta, phi: incident angles in rad, float32 (N,).
        attributes: none; an ntuple describes nothing.
    """

    def __init__(self, file: Any, path: Path, mesh: tuple[int, int, int] | None) -> None:
        self._file, self.path = file, path
        self._first = 0  # index of the first cell
        trees = _trees(file)
        self._cells = _find(trees, CELLS, path)
        energies = _find(trees, ("EnergyMC",), path)
        count = self._cells.tree.num_entries
        if energies.tree.num_entries != count or count == 0:
            raise ShowerFileError(
                f"{path}: tree '{self._cells.name}' has {count} events, '{energies.name}' has "
                f"{energies.tree.num_entries}; as many are needed, and at least one"
            )
        where = f"{path}: '{energies.name}/"
        self.energy = self._column(energies, "EnergyMC")
        check_energies(self.energy, f"{where}EnergyMC'")
        self.theta, self.phi = self._angles(energies, where)
        self.grid = Grid(*(mesh or self._mesh()))
        self.detector: Detector | None = None
        self.attributes: Mapping[str, Any] = {}
        if mesh is not None:
            self._warn_outside(mesh)

    def __len__(self) -> int:
        return len(self.energy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def load(self, rows: slice) -> Showers:
        """Showers of consecutive rows, with energies and angles.

        Raises:
            ShowerFileError: the lists of an event differ in length, or a deposit is negative or not finite.
        """
        start, stop, _ = rows.indices(len(self))
        return Showers(self._read(start, stop), self.energy[rows], self.theta[rows], self.phi[rows], self.detector)

    def _read(self, start: int, stop: int) -> ShowerArray:
        events, (*indices, deposits) = self._arrays(CELLS, start, stop)
        indices = [index - self._first for index in indices]
        self._check_deposits(events, deposits, start)
        inside = _inside(indices, self.grid.shape)
        flat = np.ravel_multi_index([index[inside] for index in indices], self.grid.shape)
        flat += events[inside] * self.grid.n_voxels
        totals = np.bincount(flat, deposits[inside], minlength=(stop - start) * self.grid.n_voxels)
        return totals.astype(np.float32).reshape(stop - start, *self.grid.shape)

    def _check_deposits(self, events: np.ndarray, deposits: np.ndarray, start: int) -> None:
        right = np.isfinite(deposits) & (deposits >= 0)
        if not right.all():
            first = int(np.argmin(right))
            raise ShowerFileError(
                f"{self.path}: '{self._cells.name}/EnergyCell' event {start + events[first]} has a deposit of "
                f"{deposits[first]:g} MeV; finite deposits of 0 and above are needed, drop that event (--rows)"
            )

    def _arrays(self, names: tuple[str, ...], start: int, stop: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Event of each cell, counted from `start`, and the flat values of those branches."""
        import awkward

        with _naming_read_errors(self.path, self._cells.name):
            branches = [self._cells.branch(name).array(entry_start=start, entry_stop=stop) for name in names]
        for name, values in zip(names, branches, strict=True):
            if values.ndim != 2:
                raise ShowerFileError(f"{self.path}: '{self._cells.name}/{name}' is not a list of hit cells per event")
        counts = [awkward.to_numpy(awkward.num(values)) for values in branches]
        for name, found in zip(names, counts, strict=True):
            if (found != counts[0]).any():
                event = int(np.argmax(found != counts[0]))
                raise ShowerFileError(
                    f"{self.path}: event {start + event} has {counts[0][event]} values of {names[0]} but "
                    f"{found[event]} of {name}; drop that event (--rows)"
                )
        kinds = [np.float64 if name == "EnergyCell" else np.int64 for name in names]
        flat = [awkward.to_numpy(awkward.flatten(values)) for values in branches]
        events = np.repeat(np.arange(stop - start), counts[0])
        return events, [values.astype(kind) for values, kind in zip(flat, kinds, strict=True)]

    def _column(self, tree: _Tree, name: str) -> np.ndarray:
        with _naming_read_errors(self.path, tree.name), np.errstate(over="ignore"):
            return np.asarray(tree.branch(name).array(library="np")).astype(np.float32)

    def _angles(self, tree: _Tree, where: str) -> tuple[np.ndarray, np.ndarray]:
        if tree.has("ThetaMC") and tree.has("PhiMC"):
            theta, phi = self._column(tree, "ThetaMC"), self._column(tree, "PhiMC")
            check_angles(theta, "theta", f"{where}ThetaMC'")
            check_angles(phi, "phi", f"{where}PhiMC'")
            return theta, phi
        warnings.warn(
            f"{self.path}: tree '{tree.name}' has no ThetaMC and PhiMC; theta = pi/2 and phi = 0 are assumed",
            NtupleWarning,
            stacklevel=4,
        )
        return np.full(len(self.energy), math.pi / 2, np.float32), np.zeros(len(self.energy), np.float32)

    def _blocks(self) -> Iterator[list[np.ndarray]]:
        """Indices (r, phi, z) of all cells, some events at a time."""
        for start in range(0, len(self), EVENTS):
            yield self._arrays(INDICES, start, min(start + EVENTS, len(self)))[1]

    def _mesh(self) -> tuple[int, int, int]:
        """The smallest published mesh that holds all indices, else just as many cells as they count."""
        first, last = self._extent()
        if min(first) == 1 and tuple(last) in MESHES:
            self._first = 1
            warnings.warn(
                f"{self.path}: cell indices run from 1 to {', '.join(map(str, last))} in r, phi and z and are taken to "
                "be counted from 1",
                NtupleWarning,
                stacklevel=5,
            )
            return last
        needed = (last[0] + 1, last[1] + 1, last[2] + 1)
        if min(first) == 1:
            warnings.warn(
                f"{self.path}: no cell has an index of 0 in r, phi or z; if they are counted from 1, take 1 off",
                NtupleWarning,
                stacklevel=5,
            )
        if max(needed) > MOST_CELLS or math.prod(needed) > MOST_VOXELS:
            raise ShowerFileError(
                f"{self.path}: cell indices reach {max(needed) - 1}, which no mesh has; give the mesh by --mesh, such "
                "as 18x50x45, and cells beyond it are left out"
            )
        mesh = next((mesh for mesh in MESHES if np.less_equal(needed, mesh).all()), needed)
        if mesh != needed:
            warnings.warn(
                f"{self.path}: cell indices count {' x '.join(map(str, needed))} cells; the mesh is taken to be "
                f"{' x '.join(map(str, mesh))} (--mesh sets another)",
                NtupleWarning,
                stacklevel=5,
            )
        return mesh

    def _extent(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Least and greatest index in r, phi and z of all cells."""
        blocks = [
            [(int(index.min()), int(index.max())) for index in block] for block in self._blocks() if len(block[0])
        ]
        if not blocks:
            return (0, 0, 0), (0, 0, 0)
        low, high = (
            tuple(chosen(block[axis][side] for block in blocks) for axis in range(3))
            for side, chosen in ((0, min), (1, max))
        )
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def _warn_outside(self, mesh: tuple[int, int, int]) -> None:
        outside = total = 0
        for indices in self._blocks():
            inside = _inside(indices, mesh)
            outside, total = outside + int((~inside).sum()), total + len(inside)
        if outside:
            warnings.warn(
                f"{self.path}: {outside:,} of {total:,} hit cells lie beyond the mesh {' x '.join(map(str, mesh))} "
                "and are left out",
                NtupleWarning,
                stacklevel=4,
            )


class _Tree:
    """A tree whose branches are found whatever the case of their names."""

    def __init__(self, name: str, tree: Any) -> None:
        self.name, self.tree = name, tree
        self._names = {branch.lower(): branch for branch in tree.keys(recursive=False)}

    def has(self, name: str) -> bool:
        return name.lower() in self._names

    def branch(self, name: str) -> Any:
        return self.tree[self._names[name.lower()]]

    def __str__(self) -> str:
        return f"'{self.name}' ({', '.join(list(self._names.values())[:8])})"


def _inside(indices: list[np.ndarray], mesh: tuple[int, int, int]) -> np.ndarray:
    inside = np.ones(len(indices[0]), bool)
    for index, cells in zip(indices, mesh, strict=True):
        inside &= (index >= 0) & (index < cells)
    return inside


def _trees(file: Any) -> list[_Tree]:
    """Trees (or RNTuples, their successors) of the file, those with Par04's names first."""
    names = file.keys(cycle=False, filter_classname=["TTree", "ROOT::RNTuple"])
    rank = {name: place for place, name in enumerate(PREFERRED)}
    ordered = sorted(dict.fromkeys(names), key=lambda name: rank.get(name.rpartition("/")[2], len(PREFERRED)))
    return [_Tree(name, file[name]) for name in ordered if name.rpartition("/")[2] not in IGNORED]


def _find(trees: list[_Tree], wanted: tuple[str, ...], path: Path) -> _Tree:
    for tree in trees:
        if all(tree.has(name) for name in wanted):
            return tree
    found = ", ".join(map(str, trees)) or "none"
    raise ShowerFileError(
        f"{path}: no tree has {', '.join(wanted)}, as 'virtualReadout' and 'global' of Par04 do; found trees: {found}"
    )


@contextmanager
def _naming_read_errors(path: Path, tree: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, MetacaloError, Warning):
        raise
    except Exception as error:  # uproot raises what the damaged bytes happen to cause
        reason = " ".join(str(error).split())[:200]
        raise ShowerFileError(f"{path}: tree '{tree}' cannot be read ({reason}); copy the file again") from None


def open_ntuple(path: PathLike, *, mesh: tuple[int, int, int] | None = None) -> NtupleFile:
    """Opens a Par04 ntuple; use it as a context manager.

    Args:
        path: a ROOT file.
        mesh: cells in r, phi and z; by default the published mesh that the cell indices fit. Cells beyond are left out.

    Raises:
        MissingExtraError: uproot is not installed.
        ShowerFileError: damaged, no tree has the branches, or energies or angles cannot be right.

    Warns:
        NtupleWarning: the file has no angles, the mesh was guessed, or cells lie beyond the given mesh.
    """
    try:
        import awkward  # noqa: F401
        import uproot
    except ImportError:
        raise MissingExtraError(
            f"{path}: uproot reads ROOT files and is not installed; pip install 'metacalo[root]'"
        ) from None
    path = Path(path)
    with _naming_read_errors(path, "/"):
        file = uproot.open(path)
    try:
        with _naming_read_errors(path, "/"):
            return NtupleFile(file, path, mesh)
    except BaseException:
        file.close()
        raise
