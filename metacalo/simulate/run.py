"""`metacalo simulate`: showers of a described detector in a file, however many processes make them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from metacalo.config import Seed, Settings
from metacalo.errors import ConfigError, OutputError, SimulationError
from metacalo.runtime.progress import track
from metacalo.runtime.signals import note_on_interrupt
from metacalo.runtime.wording import counted
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import description_path
from metacalo.showers.writer import ShowerWriter
from metacalo.simulate.data_sets import environment, require_elements
from metacalo.simulate.energies import shot, spectrum_text
from metacalo.simulate.prepare import Prepared, prepare
from metacalo.simulate.records import Deposits, Journal
from metacalo.simulate.worker_pool import Pool, cores
from metacalo.storage.checkpoint import load_json, require_free, save_json
from metacalo.storage.locking import sole_writer

__all__ = ["SimulateSettings", "Simulated", "require_geant4", "simulate", "simulate_prepared"]

BATCH = 256


class SimulateSettings(Settings):
    """How many showers, and what wins over the detector's file."""

    showers: int = Field(default=400, ge=1, description="how many")
    seed: Seed = 1
    workers: int | None = Field(default=None, ge=1, description="processes of Geant4; by default one for each core")
    particle: str | None = Field(default=None, description="e-, e+, gamma, ...; by default that of the detector's file")
    energy: str | None = Field(default=None, description="GeV: a value, or low:high")
    theta: str | None = Field(default=None, description="rad: a value or low:high")
    phi: str | None = Field(default=None, description="rad: a value or low:high")
    physics: str | None = Field(
        default=None, description="physics constructor or reference list of Geant4, such as FTFP_BERT"
    )
    direct_reads: bool = Field(
        default=True, description="read deposits from memory once the bindings have confirmed where they lie"
    )

    @property
    def beam(self) -> dict[str, Any]:
        """What wins over `[beam]`."""
        return {"particle": self.particle, "energy_GeV": self.energy, "theta": self.theta, "phi": self.phi}


@dataclass(frozen=True)
class Simulated:
    """A finished file.

    Attributes:
        path: where it is.
        prepared: the detector with its calibrated sampling fraction, and what was simulated.
        showers: how many.
        sampling_fraction, error: deposits in active sheets over those in the whole stack, and its standard error.
        balance: deposits in stack and plates over the incident energy.
        ms_per_GeV: CPU time of a core, without setting up.
    """

    path: Path
    prepared: Prepared
    showers: int
    sampling_fraction: float
    error: float
    balance: float
    ms_per_GeV: float  # noqa: N815

    def sentence(self) -> str:
        """What was done."""
        return (
            f"{counted(self.showers, 'shower')} of {self.prepared.detector.name} written to {self.path}   "
            f"sampling fraction {self.sampling_fraction:.4g} +- {self.error:.1g}   {self.ms_per_GeV:.1f} ms/GeV"
        )


def simulate(
    detector: str | Path,
    out: str | Path,
    settings: SimulateSettings | None = None,
    *,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> Simulated:
    """Simulates showers of the detector that a detector.toml describes, and writes them to the HDF5 file `out`.

    Deposits are divided by the sampling fraction of these very showers. Shower i follows from the seed and i alone, so
    that the file is the same for any number of processes. Finished showers are kept in `<out>.work` until it is
    written, and an unfinished run, whatever ended it, goes on from there; it may ask for more showers than before.

    Args:
        detector: a detector.toml, or the name of a task.
        out: file to write.
        settings: see `SimulateSettings`.
        force: replace an existing `out`, and an unfinished run.
        resume: go on with an unfinished run.
        quiet: draw no bar.
        verbose: leave what Geant4 prints on standard error.

    Raises:
        DetectorError: the detector is not described, or cannot be built.
        MissingExtraError: geant4_pybind is not installed.
        DataSetError: Geant4's data sets are not found, or lack an element.
        ConfigError: a setting is not allowed, or another run than this one is to be resumed.
        OutputError: `out` or an unfinished run exists and neither `force` nor `resume`, another process is writing it,
            or nothing can be written.
        SimulationError: Geant4 stopped; what was finished is kept.

    Warns:
        WorkerReplacedWarning: a process was killed, and another took over.
    """
    settings = settings or SimulateSettings()
    made = prepare(description_path(detector), beam=settings.beam, physics=settings.physics)
    return simulate_prepared(made, out, settings, force=force, resume=resume, quiet=quiet, verbose=verbose)


def simulate_prepared(
    prepared: Prepared,
    out: str | Path,
    settings: SimulateSettings,
    *,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> Simulated:
    """`simulate`, of a detector that is described already; of `settings`, number, seed and workers count."""
    out = Path(out)
    require_free(out, force)
    variables = require_geant4(prepared)
    work = out.with_name(out.name + ".work")
    kept = f"finished showers are kept in {work}; go on with the same command and --resume"
    with sole_writer(out, force=force), note_on_interrupt(kept):
        record = _open_work(work, prepared, settings, force=force, resume=resume)
        result = _simulated(prepared, out, work, record, settings, variables, quiet=quiet, verbose=verbose)
        shutil.rmtree(work, ignore_errors=True)
    return result


def _simulated(
    prepared: Prepared,
    out: Path,
    work: Path,
    record: dict[str, Any],
    settings: SimulateSettings,
    variables: dict[str, str],
    *,
    quiet: bool,
    verbose: bool,
) -> Simulated:
    """What is not in the folder of the run yet, and the file of all."""
    journal = Journal(work / "showers.journal")
    try:
        shots = [
            shot(prepared.beam, prepared.geometry.shape, settings.seed, index) for index in range(settings.showers)
        ]
        missing = [shot for shot in shots if shot.index not in journal]

        def ready(version: str) -> None:
            if "geant4_version" not in record:
                record["geant4_version"] = version
                save_json(work / "settings.json", record)

        total = math.ceil(sum(shot.energy for shot in shots) / 1e3)
        done = sum(shot.energy for shot in shots if shot.index in journal) / 1e3
        with (
            track(f"simulate {prepared.detector.name} [GeV]", total, completed=int(done), quiet=quiet) as bar,
            Pool(
                replace(prepared.job, direct_reads=settings.direct_reads), variables, None if verbose else work, ready
            ) as pool,
        ):
            spent, energy = 0.0, 0.0
            for deposits in pool.showers(missing, settings.workers or cores()):
                _keep(journal, deposits)
                spent, energy = spent + deposits.seconds, energy + deposits.energy / 1e3
                steps = int(done + energy) - int(done + energy - deposits.energy / 1e3)
                bar.advance(steps, showers=len(journal), ms_per_GeV=1e3 * spent / energy)
        return _write(out, prepared, settings, journal, str(record["geant4_version"]))
    finally:
        journal.close()
        if not len(journal):  # nothing to resume
            shutil.rmtree(work, ignore_errors=True)


def _keep(journal: Journal, deposits: Deposits) -> None:
    try:
        journal.append(deposits)
    except OSError as error:
        raise OutputError(
            f"{journal.path}: cannot be written ({error.strerror}); free some space and go on with --resume"
        ) from None


def require_geant4(prepared: Prepared) -> dict[str, str]:
    """Variables for Geant4's processes; raises as `simulate` does where Geant4 or its data are missing."""
    variables = environment(prepared.job.physics)
    require_elements(
        {name: substance.composition for name, substance in prepared.job.substances.items()}, variables["G4LEDATA"]
    )
    return variables


def _open_work(
    work: Path, prepared: Prepared, settings: SimulateSettings, *, force: bool, resume: bool
) -> dict[str, Any]:
    """The record of the run in its folder, made where there is none."""
    wanted: dict[str, Any] = {
        "job": prepared.job.to_json(),
        "beam": prepared.beam.model_dump(mode="json"),
        "seed": settings.seed,
    }
    path = work / "settings.json"
    if path.is_file() and not force:
        if not resume:
            raise OutputError(f"{work}: an unfinished run is here; give --resume to go on, or --force to begin again")
        record = load_json(path)
        for key, value in wanted.items():
            if record.get(key) != value:
                raise ConfigError(f"{path}: the unfinished run had another {key}; resume with the same settings")
        return record
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{work}: cannot be written ({error.strerror}); choose another --out") from None
    save_json(path, wanted)
    return wanted


def _write(out: Path, prepared: Prepared, settings: SimulateSettings, journal: Journal, version: str) -> Simulated:
    """The file from the journal; a pass for the sums, one for the showers."""
    n, rows = settings.showers, np.array([_sums(journal.read(index)) for index in range(settings.showers)])
    energy, active, passive, front, seconds = rows.T
    if not active.sum() > 0:
        raise SimulationError(
            f"{out}: nothing was deposited in active layers; simulate more showers, or higher energies"
        )
    stack = active + passive
    fraction = float(active.sum() / stack.sum())
    error = float(np.sqrt(((active - fraction * stack) ** 2).sum() * n / max(1, n - 1)) / stack.sum())
    detector = replace(prepared.detector, sampling_fraction=fraction)
    balance = float(((stack + front) / energy).mean())
    attributes = _attributes(prepared, settings, version) | {
        "sampling_fraction_error": error,
        "deposited_over_incident": balance,
    }
    with ShowerWriter(out, detector.grid, detector=detector, attributes=attributes, force=True) as writer:
        for batch in _batches(prepared, journal, n, fraction):
            writer.append(batch)
    cost = float(1e6 * seconds.sum() / energy.sum())
    return Simulated(out, replace(prepared, detector=detector), n, fraction, error, balance, cost)


def _sums(found: Deposits) -> tuple[float, float, float, float, float]:
    return found.energy, found.active, found.passive, found.front, found.seconds


def _batches(prepared: Prepared, journal: Journal, n: int, fraction: float) -> Iterator[Showers]:
    grid, threshold = prepared.detector.grid, prepared.physics.threshold_MeV
    for start in range(0, n, BATCH):
        found = [journal.read(index) for index in range(start, min(n, start + BATCH))]
        voxels = np.zeros((len(found), grid.n_voxels), np.float32)
        for row, deposits in zip(voxels, found, strict=True):
            row[deposits.cells] = deposits.values / np.float32(fraction)
        voxels[voxels < threshold] = 0
        energy, theta, phi = np.array([(one.energy, one.theta, one.phi) for one in found], np.float32).T
        yield Showers(voxels.reshape(-1, *grid.shape), energy, theta, phi)


def _attributes(prepared: Prepared, settings: SimulateSettings, version: str) -> dict[str, Any]:
    geometry, physics = prepared.geometry, prepared.physics
    attributes: dict[str, Any] = {
        "shape": geometry.shape,
        "inner_radius_mm": geometry.inner_radius_mm,
        "length_mm": prepared.job.length_mm,
        "particle": prepared.beam.particle,
        "energy_spectrum": spectrum_text(prepared.beam, geometry.shape),
        "geant4_version": version,
        "physics": physics.constructor,
        "production_cut_mm": physics.production_cut_mm,
        "threshold_MeV": physics.threshold_MeV,
        "scoring": "active material only, at the ends of steps, divided by sampling_fraction",
        "seed": settings.seed,
    }
    plates = [f"{plate.thickness_mm:g} mm {plate.material}" for plate in geometry.front]
    return attributes | ({"front": " + ".join(plates)} if plates else {})
