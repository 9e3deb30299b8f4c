"""`metacalo convert`: shower files from one convention to another, batch by batch."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import Field

from metacalo.config import Settings
from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.detectors.json_record import record_of
from metacalo.detectors.simulation_settings import Particle
from metacalo.errors import ConfigError, OutputError, ShowerFileError
from metacalo.ntuples.ntuple_files import NtupleFiles, holds_ntuples
from metacalo.runtime.progress import track
from metacalo.runtime.signals import note_on_interrupt
from metacalo.showers.conventions import Convention
from metacalo.showers.layouts import DETECTOR_ATTRIBUTES, LAYOUT_ATTRIBUTES
from metacalo.showers.rebin import coarser_grid, parse_mesh, rebin
from metacalo.showers.sample_checks import spread_rows, warn_of_showers
from metacalo.showers.shower_file import ShowerFile, Showers, described_on_mesh, open_showers
from metacalo.showers.tasks import shower_location
from metacalo.showers.writer import ShowerWriter
from metacalo.storage.locking import sole_writer
from metacalo.storage.provenance import FILE, file_record, provenance, shown_path
from metacalo.typing import PathLike

__all__ = ["ConversionWarning", "ConvertSettings", "Converted", "convert"]

BATCH_BYTES: Final = 64 * 2**20  # of voxels that are in memory at a time
LARGEST_ATTRIBUTE: Final = 60_000  # bytes; HDF5 refuses 64 KiB


class ConversionWarning(UserWarning):
    """The converted file cannot say something that its readers must know."""


class ConvertSettings(Settings):
    """What the new file is to hold.

    Par04 and HGCal files hold deposits either raw or divided by the sampling fraction, CaloChallenge files hold them
    divided by it (0.033); they are kept as they are but for `scale`.
    """

    to: Convention = Field(description="convention of the new file")
    grid: str | None = Field(
        default=None, description="coarser mesh in r, phi and z, such as 9x16x45; deposits are added up"
    )
    mesh: str | None = Field(
        default=None,
        description="mesh of a ROOT ntuple, such as 18x50x45; by default the published one that its cells fit",
    )
    scale: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="factor on deposits; CaloChallenge files hold them divided by the sampling fraction 0.033",
    )
    energy_scale: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="factor on incident energies: 1000 for a file in GeV"
    )
    theta: float | None = Field(
        default=None, ge=0, le=math.pi, description="rad: of all showers, for files that do not say"
    )
    phi: float | None = Field(
        default=None, ge=-2 * math.pi, le=2 * math.pi, description="rad: of all showers, for files that do not say"
    )
    particle: Particle | None = Field(default=None, description="that came in, for files that do not say")
    threshold: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="deposits below it, in MeV of the new file, become 0"
    )
    showers: int | None = Field(default=None, ge=1, description="only as many, from the beginning")
    rows: str | None = Field(default=None, description="only rows first:stop, such as 100:200")

    def chosen(self, count: int, path: Path) -> range:
        """The rows to convert of a file of `count` showers.

        Raises:
            ConfigError: both or none of two numbers were given, or the file has not as many showers.
        """
        if self.rows is None:
            if self.showers is not None and self.showers > count:
                raise ConfigError(f"{path}: has {count} showers, --showers {self.showers} wants more")
            return range(self.showers or count)
        if self.showers is not None:
            message = "--rows and --showers both say which showers; give one of them"
            raise ConfigError(message)
        low, colon, high = self.rows.partition(":")
        if not colon or not (low + high).isdecimal():
            raise ConfigError(f"--rows {self.rows}: give the first row and the one after the last, such as 100:200")
        first, stop = int(low or 0), int(high or count)
        if not first < stop <= count:
            raise ConfigError(f"--rows {self.rows}: {path} has rows 0:{count}, and at least one is needed")
        return range(first, stop)


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        path: the new file.
        showers: how many it holds.
        grid: their mesh.
        convention: how they lie in it.
    """

    path: Path
    showers: int
    grid: Grid
    convention: Convention


def convert(
    source: PathLike,
    out: PathLike,
    settings: ConvertSettings,
    *,
    group: str | None = None,
    described: Detector | None = None,
    force: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Converted:
    """Writes the showers of `source`, of any convention or a Par04 ROOT ntuple, as the HDF5 file `out`.

    Args:
        source: file to read (or the name of a task), larger than memory if need be.
        out: file to write; it appears when complete.
        settings: see `ConvertSettings`.
        group: which group of a file that holds several detectors.
        described: the detector, in the place of what `source` says about it; see `open_showers`.
        force: replace an existing `out`.
        quiet: no progress bar.
        command: the command line, kept in the file.

    Attributes of `source` are kept. `converted_from`, `converted_by` and, with a scale, `converted_scale` say what was
    done.

    Raises:
        ShowerFileError: `source` cannot be read, holds values that cannot be right, or its cells do not divide evenly.
        OutputError: `out` exists and not `force`, cannot be written, is `source` itself, or its convention cannot hold
            the energies or angles.
        ConfigError: the rows are not there, or an option does not fit the kind of file.
        MissingExtraError: `source` is a ROOT file and uproot is not installed.

    Warns:
        NtupleWarning: see `open_ntuple`.
        ConversionWarning: the new file will be taken for another detector's.
    """
    (source, group), out = shower_location(source, group), Path(out)
    if source.exists() and out.exists() and source.samefile(out):
        raise OutputError(f"{out}: is the file to convert; choose another --out")
    mesh = parse_mesh(settings.grid) if settings.grid else None
    with (
        sole_writer(out, force=force),
        note_on_interrupt(f"{out} was not written; give the same command again"),
        _opened(source, settings, group, described) as file,
    ):
        rows = settings.chosen(len(file), source)
        file.energy = file.energy * np.float32(settings.energy_scale)
        for axis in ("theta", "phi"):
            if (angle := getattr(settings, axis)) is not None:
                setattr(file, axis, np.full(len(file), angle, np.float32))
        detector = file.detector if described is None else described_on_mesh(described, file.grid, source)
        grid = detector.grid if detector else file.grid
        if mesh is not None:
            grid = _coarser(grid, mesh, source)
            detector = replace(detector, grid=grid) if detector else None
        if detector is None and settings.to == "calochallenge" and grid.n_voxels in (6480, 40500):
            warnings.warn(
                f"{source}: does not describe its detector, and CaloChallenge files that do not are taken for SiW; "
                "give --detector, --description, or --absorber and --active",
                ConversionWarning,
                stacklevel=2,
            )
        attributes = _kept(file.attributes, settings, bool(detector)) | _history(file, settings, group, command)
        if particle := settings.particle or file.particle:
            attributes["particle"] = particle
        attributes[Path(FILE).stem] = json.dumps(_provenance(source, settings, group, described, command))
        step = max(1, BATCH_BYTES // (4 * file.grid.n_voxels))
        with (
            ShowerWriter(
                out, grid, convention=settings.to, detector=detector, attributes=attributes, force=force
            ) as writer,
            track("convert", len(rows), quiet=quiet) as bar,
        ):
            runs = spread_rows(rows)
            sample = [_converted(file, slice(run[0], run[-1] + 1), settings, grid, detector) for run in runs]
            warn_of_showers(_joined(sample), out, np.concatenate(runs) - rows.start)
            for start in range(rows.start, rows.stop, step):
                made = _converted(file, slice(start, min(start + step, rows.stop)), settings, grid, detector)
                writer.append(made)
                bar.advance(len(made))
    return Converted(out, len(rows), grid, settings.to)


def _converted(
    file: ShowerFile | NtupleFiles, rows: slice, settings: ConvertSettings, grid: Grid, detector: Detector | None
) -> Showers:
    batch = file.load(rows)
    showers = rebin(batch.showers, grid)
    if settings.scale != 1:
        showers = showers * np.float32(settings.scale)
    showers = np.where(showers < np.float32(settings.threshold), np.float32(0), showers)
    return Showers(showers, batch.energy, batch.theta, batch.phi, detector)


def _joined(parts: list[Showers]) -> Showers:
    showers, energy, theta, phi = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("showers", "energy", "theta", "phi")
    )
    return Showers(showers, energy, theta, phi, parts[0].detector)


def _provenance(
    source: Path, settings: ConvertSettings, group: str | None, described: Detector | None, command: str | None
) -> dict[str, Any]:
    return provenance(
        "convert",
        command,
        settings=settings.model_dump(mode="json"),
        arguments={"source": shown_path(source), "group": group, "described": record_of(described)},
        inputs={"source": file_record(source)},
    )


def _opened(
    source: Path, settings: ConvertSettings, group: str | None, described: Detector | None
) -> AbstractContextManager[ShowerFile | NtupleFiles]:
    if not holds_ntuples(source):
        if settings.mesh is not None:
            raise ConfigError(f"--mesh {settings.mesh}: {source} has its mesh; for a coarser one give --grid")
        return open_showers(source, group=group, detector=described)
    if group is not None:
        raise ConfigError(f"--group {group}: {source} is a ROOT file, which has trees and no groups; leave it out")
    mesh = parse_mesh(settings.mesh) if settings.mesh else None
    return NtupleFiles(source, mesh)


def _coarser(grid: Grid, mesh: tuple[int, int, int], source: Path) -> Grid:
    try:
        return coarser_grid(grid, mesh)
    except ShowerFileError as error:
        raise ShowerFileError(f"{source}: --grid {'x'.join(map(str, mesh))}: {error}") from None


def _kept(attributes: Mapping[str, Any], settings: ConvertSettings, described: bool) -> dict[str, Any]:
    """What the source says about where its showers come from; layout, mesh and detector are written anew."""
    rewritten = {*LAYOUT_ATTRIBUTES, *(DETECTOR_ATTRIBUTES if described else ())}
    kept = {key: value for key, value in attributes.items() if key not in rewritten and _can_be_written(value)}
    if settings.scale != 1 and np.isscalar(kept.get("threshold_MeV")):
        kept["threshold_MeV"] = kept["threshold_MeV"] * settings.scale
    if settings.scale != 1 and "scoring" in kept:
        kept["scoring"] = f"{kept['scoring']}; times {settings.scale:g}"
    return kept


def _can_be_written(value: Any) -> bool:
    """Numbers and texts; HDF5 has references and others, which mean nothing in another file."""
    if isinstance(value, str):
        return len(value.encode()) < LARGEST_ATTRIBUTE
    array = np.asarray(value)
    texts = array.dtype.kind == "O" and array.ndim > 0 and all(isinstance(part, str) for part in array.flat)
    return (array.dtype.kind in "biufS" or texts) and array.nbytes < LARGEST_ATTRIBUTE


def _history(
    file: ShowerFile | NtupleFiles, settings: ConvertSettings, group: str | None, command: str | None
) -> dict[str, Any]:
    name = f"{file.path.name}, group {group}" if group else file.path.name
    before = file.attributes
    history: dict[str, Any] = {
        "converted_from": f"{name} < {before['converted_from']}" if "converted_from" in before else name
    }
    if command is not None:
        history["converted_by"] = command
    if settings.scale != 1:
        history["converted_scale"] = settings.scale * float(before.get("converted_scale", 1.0))
    return history
