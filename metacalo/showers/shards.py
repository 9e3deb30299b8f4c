"""Showers in several files (shards): found by folder or pattern, and joined to one sequence of rows."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from metacalo.errors import ShowerFileError
from metacalo.showers.conventions import Source
from metacalo.showers.hdf5_limits import check_chunks

__all__ = ["MOST_OPEN", "OpenFiles", "ShowerDataset", "join_shards", "shard_paths"]

MOST_OPEN: Final = 8
"""Files of a sequence that are open at the same time."""

SHOWER_FILE, SHARDS = "showers.h5", "showers"
ENDINGS = (".h5", ".hdf5")


def shard_paths(path: Path) -> list[Path]:
    """The files that `path` stands for, by name, numbers in names as numbers; `[path]` where it is no more than itself.

    A pattern (`SiW_*.h5`) stands for the files that match; a folder for its `showers.h5`, or else for its
    `showers-*.h5` or the files of its folder `showers`.

    Raises:
        ShowerFileError: nothing matches the pattern, or a folder has showers in more than one of these ways.
    """
    if path.is_dir():
        whole = [path / SHOWER_FILE] if (path / SHOWER_FILE).is_file() else []
        ways = [way for way in (whole, _files(path, f"{SHARDS}-*"), _files(path / SHARDS, "*")) if way]
        if len(ways) > 1:
            both = " and ".join(str(way[0].relative_to(path)) for way in ways)
            raise ShowerFileError(f"{path}: holds both {both}; leave the showers in one of the two ways")
        return ways[0] if ways else [path]
    if not path.exists() and any(sign in path.name for sign in "*?["):
        matching = _files(path.parent, path.name, endings=None)
        if not matching:
            raise ShowerFileError(f"{path}: no file matches this pattern; correct it, or put it in quotes")
        return matching
    return [path]


def _files(folder: Path, pattern: str, endings: Sequence[str] | None = ENDINGS) -> list[Path]:
    found = folder.glob(pattern) if folder.is_dir() else ()
    files = [path for path in found if path.is_file() and not path.name.startswith(".")]
    return sorted((path for path in files if endings is None or path.suffix in endings), key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """`showers-2` before `showers-10`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


class OpenFiles:
    """Files that are opened when they are asked for, at most `MOST_OPEN` at a time.

    The one that was asked for longest ago is closed. For one thread at a time.

    Args:
        opening: opens a file, or says in one sentence why it cannot be.
    """

    def __init__(self, opening: Callable[[Path], h5py.File]) -> None:
        self._opening = opening
        self._files: OrderedDict[Path, h5py.File] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def file(self, path: Path) -> h5py.File:
        """The file, open until `MOST_OPEN` others were asked for."""
        if path not in self._files:
            while len(self._files) >= MOST_OPEN:
                self._files.popitem(last=False)[1].close()
            self._files[path] = self._opening(path)
        self._files.move_to_end(path)
        return self._files[path]

    def close(self) -> None:
        """Closes all of them; those that are asked for later are opened anew."""
        while self._files:
            self._files.popitem()[1].close()


@dataclass(frozen=True, eq=False)
class ShowerDataset:
    """A dataset of showers as readers know those of h5py, but that its file is opened on demand.

    Attributes:
        files: opens it.
        path: its file.
        name, chunks, compression: as h5py gives them.
        shape, dtype: of the showers: with `field`, of that field of all rows.
        stored_bytes: what it takes on the disk.
        row_dtype: as stored.
        field: of compound rows, the one that holds the showers.
    """

    files: OpenFiles
    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    chunks: tuple[int, ...] | None
    compression: str | None
    stored_bytes: int
    row_dtype: np.dtype[Any]
    field: str | None = None

    @classmethod
    def of(cls, dataset: h5py.Dataset, path: Path, files: OpenFiles, field: str | None = None) -> ShowerDataset:
        """What stands for `dataset` when its file is closed."""
        stored = dataset.dtype
        voxels = stored if field is None else stored[field]
        layout = (dataset.name, (*dataset.shape, *voxels.shape), voxels.base, dataset.chunks, dataset.compression)
        return cls(files, path, *layout, dataset.id.get_storage_size(), stored, field)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self.files.file(self.path).get(self.name)
        if not isinstance(found, h5py.Dataset) or (len(found), found.dtype) != (len(self), self.row_dtype):
            raise ShowerFileError(f"{self.path}: '{self.name.lstrip('/')}' was changed while it was read; start again")
        check_chunks(found, rows.start, rows.stop, f"{self.path}: '{self.name.lstrip('/')}'")
        values: np.ndarray = (found if self.field is None else found.fields(self.field))[rows]
        return values


def join_shards(paths: Sequence[Path], files: OpenFiles, recognised: Callable[[Path], Source]) -> Source:
    """The rows of one file or several, one after another as if one held them; its attributes are those of the first.

    Args:
        paths: the shards.
        files: keeps those open that are read.
        recognised: opens one of them and checks all but the showers.

    Raises:
        ShowerFileError: two differ in convention, mesh or detector.
        MetacaloError: see `recognise`.
    """
    sources = [_on_demand(recognised(path), path, files) for path in paths]
    first = sources[0]
    for path, source in zip(paths[1:], sources[1:], strict=True):
        _require_alike(path, source, paths[0], first)
    detector = first.detector
    if len(paths) > 1 and detector is not None and detector.name == paths[0].stem:  # no attribute names it
        detector = replace(detector, name=re.sub(r"[-_]?\d+$", "", paths[0].stem) or detector.name)
    return replace(
        first,
        datasets=tuple(dataset for source in sources for dataset in source.datasets),
        energy=np.concatenate([source.energy for source in sources]),
        theta=np.concatenate([source.theta for source in sources]),
        phi=np.concatenate([source.phi for source in sources]),
        detector=detector,
    )


def _on_demand(source: Source, path: Path, files: OpenFiles) -> Source:
    return replace(
        source, datasets=tuple(ShowerDataset.of(dataset, path, files, source.field) for dataset in source.datasets)
    )


def _require_alike(path: Path, source: Source, first_path: Path, first: Source) -> None:
    ours, theirs = _common_properties(source), _common_properties(first)
    for name in {**theirs, **ours}:
        here, there = ours.get(name), theirs.get(name)
        if here != there:
            raise ShowerFileError(
                f"{path}: '{name}' is {_shown(here)}, but {first_path.name} has {_shown(there)}; files that are read "
                "as one sequence are of one detector, move this one away or mend it"
            )


def _common_properties(source: Source) -> dict[str, Any]:
    """What all shards must have in common; sizes that are not known are left out, and so is the detector's name."""
    mesh = {name: value for name, value in asdict(source.grid).items() if not isnan(value)}
    described = source.detector.to_attributes() if source.detector else {}
    described.pop("detector", None)
    return {"convention": source.convention, **mesh, **described}


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
