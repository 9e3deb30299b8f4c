"""ROOT ntuples of several files as one sample: a Par04 job with threads writes one file for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from metacalo.detectors.detector import Detector
from metacalo.errors import ShowerFileError
from metacalo.ntuples.ntuple import NtupleFile, is_root, open_ntuple
from metacalo.showers.shards import shard_paths
from metacalo.showers.shower_file import Showers
from metacalo.typing import PathLike

__all__ = ["NtupleFiles", "holds_ntuples"]


def holds_ntuples(path: PathLike) -> bool:
    """Whether a path, or every file that a pattern matches, is a ROOT file.

    Raises:
        ShowerFileError: nothing matches the pattern, or it matches ROOT files and others.
    """
    paths = shard_paths(Path(path))
    found = [is_root(one) for one in paths]
    if any(found) and not all(found):
        other = paths[found.index(False)]
        raise ShowerFileError(
            f"{path}: matches ROOT files and {other.name}, which is no ROOT file; name files of one kind"
        )
    return all(found)


class NtupleFiles:
    """Open ntuples, read one after another as one; energies and angles are in memory.

    Attributes:
        path: as given.
        grid, detector, particle, attributes: see `NtupleFile`; the mesh is one that holds the cells of all files.
        energy: incident energies in MeV, float32 (N,).
        theta, phi: incident angles in rad, float32 (N,).
    """

    def __init__(self, path: Path, mesh: tuple[int, int, int] | None) -> None:
        """Opens all files.

        Raises:
            MissingExtraError, ShowerFileError: see `open_ntuple`.
        """
        self.path = path
        self._stack = ExitStack()
        try:
            files = [self._stack.enter_context(open_ntuple(one, mesh=mesh)) for one in shard_paths(path)]
            common = tuple(max(cells) for cells in zip(*(file.grid.shape for file in files), strict=True))
            if any(file.grid.shape != common for file in files):
                raise ShowerFileError(
                    f"{path}: cells of the files fit different meshes; give the mesh by --mesh, such as "
                    f"{'x'.join(map(str, common))}"
                )
        except BaseException:
            self._stack.close()
            raise
        self._files: list[NtupleFile] = files
        self._starts = np.cumsum([0, *map(len, files)])
        self.grid = files[0].grid
        self.detector: Detector | None = None
        self.particle: str | None = None
        self.attributes: Mapping[str, Any] = {}
        self.energy, self.theta, self.phi = (
            np.concatenate([getattr(file, name) for file in files]) for name in ("energy", "theta", "phi")
        )

    def __len__(self) -> int:
        return len(self.energy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def load(self, rows: slice) -> Showers:
        """Showers of consecutive rows, with energies and angles.

        Raises:
            ShowerFileError: see `NtupleFile.load`.
        """
        start, stop, _ = rows.indices(len(self))
        parts = [
            file.load(slice(max(start - first, 0), stop - first)).showers
            for file, first, last in zip(self._files, self._starts[:-1], self._starts[1:], strict=True)
            if start < last and stop > first
        ]
        showers = np.concatenate(parts) if parts else np.empty((0, *self.grid.shape), np.float32)
        return Showers(showers, self.energy[rows], self.theta[rows], self.phi[rows], self.detector)
