"""Random families of detectors for meta-training: stacks drawn from ranges, one group of showers for each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from pydantic import Field, model_validator

from metacalo.config import Settings
from metacalo.detectors.detector import Detector
from metacalo.detectors.materials import find_material
from metacalo.detectors.simulation_settings import BeamSettings, GeometrySettings, PhysicsSettings
from metacalo.detectors.stack import GridSettings
from metacalo.errors import ConfigError, OutputError
from metacalo.runtime.signals import note_on_interrupt
from metacalo.showers.shower_file import open_showers
from metacalo.simulate.prepare import prepared
from metacalo.simulate.run import SimulateSettings, simulate_prepared
from metacalo.storage.checkpoint import atomic_file, load_json, save_json
from metacalo.storage.hdf5_access import open_hdf5
from metacalo.storage.locking import sole_writer

__all__ = ["Family", "FamilySettings", "detectors_of", "simulate_family"]

Range = tuple[float, float]


class FamilySettings(Settings):
    """A family.toml.

    Attributes:
        detectors: how many are drawn.
        seed: of the stacks; that of the showers is the command's.
        pairs: absorber and active material, taken in turn.
        absorber_X0: range of the absorber's thickness, in its radiation lengths.
        active_mm: range of the active thickness of each active material.
        grid, geometry, beam, physics: as in a detector.toml, the same for all.
    """

    detectors: int = Field(ge=1)
    seed: int = Field(default=1, ge=0)
    pairs: tuple[tuple[str, str], ...] = Field(min_length=1)
    absorber_X0: Range = (0.25, 0.75)  # noqa: N815
    active_mm: dict[str, Range]
    grid: GridSettings = GridSettings()
    geometry: GeometrySettings = GeometrySettings()
    beam: BeamSettings = BeamSettings()
    physics: PhysicsSettings = PhysicsSettings()

    @model_validator(mode="after")
    def _ranges(self) -> FamilySettings:
        for name, (low, high) in {"absorber_X0": self.absorber_X0, **self.active_mm}.items():
            if not 0 < low <= high:
                message = f"the range [{low:g}, {high:g}] of '{name}' must be of thicknesses above 0, the smaller first"
                raise ValueError(message)
        for _, active in self.pairs:
            if active not in self.active_mm:
                message = f"a pair has the active material '{active}', which has no range in active_mm"
                raise ValueError(message)
        return self


@dataclass(frozen=True)
class Family:
    """A finished file: its path, the detectors in it, and how many showers each of them has."""

    path: Path
    detectors: tuple[Detector, ...]
    showers: int

    def sentence(self) -> str:
        """What was done."""
        return f"{len(self.detectors)} detectors with {self.showers:,} showers each written to {self.path}"


def detectors_of(family: FamilySettings) -> list[Detector]:
    """The detectors of a family, `W-Si-00` and so on; the first ones stay the same when more are asked for.

    Thicknesses are drawn uniformly and rounded to 0.01 mm; there are as many layers as the mesh is deep.

    Raises:
        DetectorError: a material is unknown.
    """
    found = []
    for number in range(family.detectors):
        absorber, active = family.pairs[number % len(family.pairs)]
        rng = np.random.default_rng(np.random.SeedSequence(family.seed, spawn_key=(number,)))
        thickness = rng.uniform(*family.absorber_X0) * find_material(absorber).X0_mm
        depth = rng.uniform(*family.active_mm[active])
        found.append(
            Detector.from_layers(
                f"{absorber}:{max(thickness, 0.01):.2f}",
                f"{active}:{max(depth, 0.01):.2f}",
                grid=family.grid.grid(),
                name=f"{absorber}-{active}-{number:02d}",
            )
        )
    return found


def simulate_family(
    family: str | Path,
    out: str | Path,
    settings: SimulateSettings | None = None,
    *,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> Family:
    """Simulates all detectors of a family.toml, `settings.showers` each, into one file with a group for each.

    `tasks/NAME/showers.h5` as `out` makes it a family of tasks for `metacalo pretrain --tasks tasks`. Finished
    detectors and showers are kept in `<out>.work`; see `simulate`.

    Args:
        family: a family.toml; see `FamilySettings`.
        out: file to write.
        settings: see `SimulateSettings`.
        force: replace an existing `out`, and an unfinished run.
        resume: go on with an unfinished run.
        quiet: draw no bars.
        verbose: leave what Geant4 prints on standard error.

    Raises:
        ConfigError: the file cannot be read, or a setting is not allowed.
        MetacaloError: see `simulate`.
    """
    settings, out = settings or SimulateSettings(), Path(out)
    description = FamilySettings.from_toml(family)
    beam = BeamSettings.build(
        {**description.beam.model_dump(), **{key: value for key, value in settings.beam.items() if value is not None}},
        "beam",
    )
    physics = PhysicsSettings.build(
        description.physics.model_dump() | ({"constructor": settings.physics} if settings.physics else {}), "physics"
    )
    members = [prepared(detector, description.geometry, beam, physics) for detector in detectors_of(description)]
    work = out.with_name(out.name + ".work")
    kept = f"finished detectors and showers are kept in {work}; go on with the same command and --resume"
    with sole_writer(out, force=force), note_on_interrupt(kept):
        _open_work(work, description, settings, force=force, resume=resume)
        parts = []
        for number, member in enumerate(members):
            part = work / f"{member.detector.name}.h5"
            if not part.exists():
                seed = int(np.random.SeedSequence(settings.seed, spawn_key=(number,)).generate_state(1)[0])
                own = settings.model_copy(update={"seed": seed})
                simulate_prepared(member, part, own, resume=True, quiet=quiet, verbose=verbose)
            parts.append(part)
        detectors = _join(parts, out)
        shutil.rmtree(work, ignore_errors=True)
    return Family(out, tuple(detectors), settings.showers)


def _open_work(work: Path, family: FamilySettings, settings: SimulateSettings, *, force: bool, resume: bool) -> None:
    record = work / "family.json"
    wanted = {
        "family": family.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json", exclude={"workers", "direct_reads"}),
    }
    if record.is_file() and not force:
        if not resume:
            raise OutputError(f"{work}: an unfinished run is here; give --resume to go on, or --force to begin again")
        if load_json(record) != wanted:
            raise ConfigError(f"{record}: the unfinished run had other settings; resume with the same ones")
        return
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{work}: cannot be written ({error.strerror}); choose another --out") from None
    save_json(record, wanted)


def _join(parts: list[Path], out: Path) -> list[Detector]:
    """Each file as a group of `out`."""
    detectors = []
    with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
        for part in parts:
            with open_hdf5(part) as source:
                source.copy(source["/"], file, part.stem)
            with open_showers(part) as read:
                if read.detector is not None:
                    detectors.append(read.detector)
    return detectors
