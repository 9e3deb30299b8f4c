"""`metacalo inspect`: what a shower file is, and what is wrong with it, without refusing to look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.errors import ConfigError, DetectorError, MetacaloError, ShowerFileError
from metacalo.runtime.progress import track
from metacalo.runtime.wording import counted
from metacalo.showers.census import Census
from metacalo.showers.chunks import LARGEST_BLOCK
from metacalo.showers.conventions import Convention
from metacalo.showers.layouts import DETECTOR_ATTRIBUTES, LAYOUT_ATTRIBUTES
from metacalo.showers.sample_checks import sample_warnings, scale_of
from metacalo.showers.shower_file import LARGEST_RESPONSE, ShowerFile, open_showers
from metacalo.showers.tasks import shower_location
from metacalo.typing import PathLike

__all__ = ["MOST_SHOWERS", "Inspection", "Response", "Storage", "inspect"]

MOST_SHOWERS: Final = 20_000
"""Showers that are looked at unless asked otherwise."""
FEW: Final = 100
FEWEST_SHOTS: Final = 2
"""That `adapt` takes."""
RUN: Final = 256
"""Showers that are read at a time, and that lie side by side where not all are."""
MOST_ENERGIES: Final = 24
BINS: Final = 3

Range = tuple[float, float]


@dataclass(frozen=True)
class Storage:
    """How the showers lie on the disk.

    Attributes:
        dtype: type of the voxels.
        compression: name of the filter; None where there is none.
        chunks: shape of a chunk; None where contiguous.
        showers_bytes: what the voxels take.
        file_bytes: what the whole file takes, other groups included; all files, where there are several.
    """

    dtype: str
    compression: str | None
    chunks: tuple[int, ...] | None
    showers_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Response:
    """Deposited over incident energy.

    Attributes:
        mean, width: mean and standard deviation.
        by_energy: mean in three parts of equal numbers of showers, from low to high incident energy: least energy,
            greatest energy (GeV), mean response.
        scale: what the mean says about the scale of deposits.
    """

    mean: float
    width: float
    by_energy: tuple[tuple[float, float, float], ...]
    scale: str


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a shower file is.

    Attributes:
        path, group: what was looked at.
        convention: `par04`, `calochallenge` or `hgcal`.
        showers, inspected: how many there are, and how many were looked at.
        grid: the mesh; cell sizes are NaN where neither the file nor its detector has them.
        detector: what the file describes; None where it does not, or where that cannot be.
        particle: that came in, as Geant4 calls it; None where neither attributes nor the name say.
        assumed: true where the detector follows from the convention or the name, not from the file.
        energy_GeV: least and greatest incident energy in GeV, of all that are right.
        energies_GeV: the energies, where they are a few discrete ones; else empty.
        theta, phi: least and greatest angle in rad.
        response: of the showers that were looked at and are right.
        voxel_MeV: least deposit above 0, which shows the threshold, and greatest one, in MeV.
        occupancy: mean fraction of the voxels with a deposit.
        storage: how it lies on the disk.
        attributes: what the file says besides mesh and detector.
        mean_shower: float64 (R, PHI, Z), MeV.
        problems: a sentence for each thing that is wrong or strange, with the rows and what to do.
        refused: whether one of them is why `adapt` would refuse the file.
    """

    path: Path
    group: str | None
    convention: Convention
    showers: int
    inspected: int
    grid: Grid
    detector: Detector | None
    particle: str | None
    assumed: bool
    energy_GeV: Range  # noqa: N815
    energies_GeV: tuple[float, ...]  # noqa: N815
    theta: Range
    phi: Range
    response: Response
    voxel_MeV: Range  # noqa: N815
    occupancy: float
    storage: Storage
    attributes: Mapping[str, Any]
    mean_shower: NDArray[np.float64]
    problems: tuple[str, ...]
    refused: bool

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it: None for NaN, the mean shower as its profiles in depth and distance (MeV)."""
        detector = self.detector
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "mean_shower"}
        described = None
        if detector is not None:
            sizes = {"period_mm": detector.period_mm, "mip_sampling_fraction": detector.mip_sampling_fraction}
            described = {**detector.to_attributes(), **sizes}
        profiles = {
            "longitudinal_MeV": self.mean_shower.sum(axis=(0, 1)),
            "lateral_MeV": self.mean_shower.sum(axis=(1, 2)),
        }
        values |= {
            "path": str(self.path),
            "grid": asdict(self.grid),
            "detector": described,
            "response": asdict(self.response),
            "storage": asdict(self.storage),
            "profiles": profiles,
        }
        plain: dict[str, Any] = _plain(values)
        return plain


def inspect(path: PathLike, *, group: str | None = None, showers: int | None = None, quiet: bool = True) -> Inspection:
    """Looks at a shower file, in bounded memory, and goes on where reading would stop at what cannot be right.

    Args:
        path: an HDF5 file of any known convention, or the name of a task.
        group: which group of a file that holds several detectors.
        showers: how many to look at, in runs drawn evenly from the file; by default all, up to `MOST_SHOWERS`.
        quiet: no progress bar.

    Raises:
        ShowerFileError: no such file or group, not HDF5, truncated, of no known convention, or without a shower.
        ConfigError: `showers` is not above 0.
    """
    path, group = shower_location(path, group)
    if showers is not None and showers < 1:
        raise ConfigError(f"--showers {showers}: at least 1 is needed")
    refused: list[MetacaloError] = []
    with open_showers(path, group=group, refuse=refused.append) as file:
        census = Census(file.grid)
        _count(file, census, showers or MOST_SHOWERS, refused, quiet=quiet)
        energy = file.energy[census.rows].astype(np.float64)
        refusals = [str(error).removeprefix(f"{path}: ") for error in refused]
        undescribed = file.detector is None and not any(isinstance(error, DetectorError) for error in refused)
        return Inspection(
            path=path,
            group=group,
            convention=file.convention,
            showers=len(file),
            inspected=census.showers,
            grid=file.grid,
            detector=file.detector,
            particle=file.particle,
            assumed=file.detector_is_assumed,
            energy_GeV=_range(file.energy[file.energy > 0] / 1000.0),
            energies_GeV=_discrete(file.energy / 1000.0),
            theta=_range(file.theta),
            phi=_range(file.phi),
            response=_response(census, energy, file.detector),
            voxel_MeV=_range(np.array([census.smallest, census.largest])),
            occupancy=census.occupancy,
            storage=_storage(file),
            attributes=_attributes(file.attributes),
            mean_shower=census.mean,
            problems=(*refusals, *sample_warnings(census, energy, file.detector), *_missing(undescribed, len(file))),
            refused=bool(refused) or undescribed or _is_unreadable(census, energy),
        )


def _is_unreadable(census: Census, energy: NDArray[np.float64]) -> bool:
    """Whether a voxel or a total cannot be right, so that reading the row is refused, or showers do not differ."""
    different = census.showers - census.empty.count - census.duplicates().count
    beyond = bool((census.totals > LARGEST_RESPONSE * energy).any())
    return bool(census.negative.count or census.not_finite.count) or beyond or different < FEWEST_SHOTS


def _count(file: ShowerFile, census: Census, most: int, refused: list[MetacaloError], *, quiet: bool) -> None:
    damaged: list[ShowerFileError] = []
    with track("inspect", min(most, len(file)), quiet=quiet) as bar:
        for rows in _runs(len(file), most, max(1, min(RUN, LARGEST_BLOCK // (4 * file.grid.n_voxels)))):
            try:
                census.add(rows, file.read_as_stored(rows), file.energy[rows])
            except ShowerFileError as error:
                damaged.append(error)
            bar.advance(len(rows))
    if damaged:
        more = f"; {len(damaged) - 1} other parts likewise" if len(damaged) > 1 else ""
        refused.append(ShowerFileError(f"{damaged[0]}{more}"))


def _runs(count: int, most: int, run: int = RUN) -> Iterator[NDArray[np.int64]]:
    """Rows of `most` of `count` showers, in runs spread evenly: a chunk that is decompressed should be used."""
    most = min(most, count)
    firsts = range(0, most, run)
    gaps = np.linspace(0, count - most, len(firsts)).round().astype(np.int64)
    for first, gap in zip(firsts, gaps, strict=True):
        yield gap + np.arange(first, min(first + run, most), dtype=np.int64)


def _range(values: np.ndarray) -> Range:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (np.nan, np.nan)


def _discrete(energy: np.ndarray) -> tuple[float, ...]:
    found = np.unique(energy[energy > 0])
    few = len(found) <= MOST_ENERGIES and len(found) <= len(energy) / 2
    return tuple(float(f"{value:.6g}") for value in found) if few else ()


def _response(census: Census, energy: NDArray[np.float64], detector: Detector | None) -> Response:
    usable = np.isfinite(census.totals) & (energy > 0) & np.isfinite(energy)
    energy, response = energy[usable], census.totals[usable] / energy[usable]
    if not len(response):
        return Response(np.nan, np.nan, (), scale_of(np.nan, detector))
    binned = tuple(
        (float(energy[part].min() / 1000), float(energy[part].max() / 1000), float(response[part].mean()))
        for part in _parts(energy)
    )
    mean = float(response.mean())
    return Response(mean, float(response.std()), binned, scale_of(mean, detector))


def _parts(energy: NDArray[np.float64]) -> Iterator[NDArray[np.bool_]]:
    """Up to `BINS` groups of about as many showers; those of one energy (in four digits) are in one group."""
    rounded = np.array([float(f"{value:.4g}") for value in energy])
    firsts = np.unique(rounded)
    if len(firsts) > BINS:
        firsts = np.unique([part[0] for part in np.array_split(np.sort(rounded), BINS) if len(part)])
    group = np.searchsorted(firsts, rounded, side="right")
    for number in range(1, len(firsts) + 1):
        yield group == number


def _storage(file: ShowerFile) -> Storage:
    first = file.datasets[0]
    return Storage(
        dtype=str(first.dtype),
        compression=first.compression,
        chunks=first.chunks,
        showers_bytes=sum(dataset.stored_bytes for dataset in file.datasets),
        file_bytes=sum(path.stat().st_size for path in {dataset.path for dataset in file.datasets}),
    )


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in attributes.items() if key not in {*LAYOUT_ATTRIBUTES, *DETECTOR_ATTRIBUTES}}
    return {key: _plain(value) for key, value in shown.items()}


def _missing(undescribed: bool, count: int) -> Iterator[str]:
    if undescribed:
        yield (
            "its detector is unknown: adapt needs --absorber and --active, or --description; metacalo convert "
            "writes it into the file"
        )
    if count < FEW:
        yield f"only {counted(count, 'shower')}: {FEW} and more are needed to adapt well"


def _plain(value: Any) -> Any:
    """The value in types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) and not isinstance(value, h5py.Empty) else str(value)
