"""`metacalo generate`: showers for wanted energies and angles, written batch by batch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

import metacalo
from metacalo.config import Device, Seed
from metacalo.detectors.condition_range import RANGE, warn_outside
from metacalo.detectors.detector import Detector
from metacalo.detectors.json_record import record_of
from metacalo.detectors.ranges import parse_angles, parse_range
from metacalo.errors import ConfigError, ShowerFileError
from metacalo.generators.sampling_options import SamplingOptions
from metacalo.model_folders.adapted import ShowerModel, load_model, seen_hashes
from metacalo.normaliser.condition_vector import require_conditions
from metacalo.runtime.callable_module import make_callable
from metacalo.runtime.progress import Track, track
from metacalo.runtime.signals import note_on_interrupt
from metacalo.showers.part_files import joined, open_parts, part_file, part_seed, write_part
from metacalo.showers.sample_checks import warn_of_conditions
from metacalo.showers.shower_file import Showers, open_showers
from metacalo.showers.tasks import shower_path
from metacalo.showers.writer import ShowerWriter
from metacalo.storage.atomic import clear_leftovers, discard
from metacalo.storage.checkpoint import load_json, require_free, tensor_hash
from metacalo.storage.locking import sole_writer
from metacalo.storage.provenance import FILE, file_record, provenance, shown_path

_HIGHEST_GEV = 1e6  # far beyond any use of an electromagnetic shower

__all__ = ["GenerateSettings", "generate", "parse_range", "unseen_rows"]


class GenerateSettings(SamplingOptions):
    """What to generate. Energies in GeV, angles in rad; `low:high` draws from a range."""

    generator: Literal["ar", "diffusion", "frozen"] = Field(
        default="diffusion", description="which generator of the model draws the showers"
    )
    showers: int | None = Field(
        default=None, ge=1, le=50_000_000, description="how many; by default 1000, or as many as --conditions has"
    )
    energy: str = Field(default="1:100", description="GeV: a value, or low:high (log-uniform)")
    theta: str = Field(default=f"{math.pi / 2:.6f}", description="rad: a value, or low:high (uniform)")
    phi: str = Field(default="0", description="rad: a value, or low:high (uniform)")
    conditions: str | None = Field(
        default=None, description="shower file, or name of a task, whose energies and angles are copied"
    )
    unseen_by: str | None = Field(
        default=None, description="model whose shots and training showers are left out of --conditions"
    )
    format: Literal["par04", "calochallenge"] = Field(default="par04", description="convention of the file")
    seed: Seed = 1
    batch_size: int = Field(default=100, ge=1, le=100_000, description="showers drawn at a time")
    part_size: int = Field(
        default=10_000,
        ge=1,
        description="showers that a longer run keeps at a time; one that was killed can go on there",
    )
    device: Device = "cpu"
    autocast: bool = Field(default=True, description="bfloat16 matrix products")

    @field_validator("energy", "theta", "phi")
    @classmethod
    def _is_range(cls, text: str) -> str:
        parse_range(text)
        return text


def unseen_rows(path: str | Path, model: str | Path, *, base: str | Path | None = None) -> np.ndarray:
    """Rows of a shower file that a model has not seen, neither as shots nor in its base's pretraining."""
    with open_showers(shower_path(path)) as file:
        return np.flatnonzero(~np.isin(file.hashes(), seen_hashes(model, base=base)))


def generate(
    model: str | Path,
    out: str | Path,
    settings: GenerateSettings | None = None,
    *,
    base: str | Path | None = None,
    detector: Detector | None = None,
    force: bool = False,
    resume: bool = False,
    command: str = "",
) -> Path:
    """Generates showers with the model of a folder and writes them to the HDF5 file `out`.

    Args:
        model: folder of an adapted model; or a base, with `detector`.
        out: file to write.
        settings: see `GenerateSettings`.
        base: where the model's base lies, if not in `pretrained/`.
        detector: of a base at zero shots.
        force: replace an existing `out`.
        resume: go on with a run that was interrupted; more showers than `part_size` are kept in `<out>.work`, part by
            part, until all are there (`metacalo.showers.part_files`).
        command: recorded with the showers.

    Raises:
        OutputError: `out` exists and not `force`, cannot be written, another process is writing it, or an unfinished
            run is there and not `resume`.
        ConfigError: an energy is not above zero, the generator cannot be sampled as wanted, or the run to be resumed
            was another one.
        ShowerFileError: the conditions file cannot be read or has too few rows.
        MetacaloError: see `load_model` and `ShowerModel.generate`.

    Warns:
        OutsideRangeWarning: energies or angles outside the range of the shots, or, at zero shots, of the base.
    """
    settings = settings or GenerateSettings()
    if settings.conditions is not None:
        settings = settings.model_copy(update={"conditions": str(shower_path(settings.conditions))})
    loaded = load_model(model, base=base, detector=detector)
    loaded.require(settings.generator)
    settings.choose(loaded.generators.get(settings.generator))
    run = _Run(loaded, settings, *_conditions(settings, base))
    require_conditions(run.energy, run.theta, run.phi)
    warn_outside(loaded.outside_range(run.energy, run.theta))
    writer = ShowerWriter(
        out,
        loaded.detector.grid,
        convention=settings.format,
        detector=loaded.detector,
        attributes={
            "generator": settings.generator,
            "model": Path(model).name,
            "base": loaded.base.config.name,
            "base_hash": loaded.base.hash,
            "seed": settings.seed,
            RANGE: loaded.known_range.model_dump_json(),
            Path(FILE).stem: json.dumps(_provenance(model, base, detector, loaded, settings, command)),
        },
        force=force,
    )
    with sole_writer(out, force=force or resume):
        if len(run.energy) > settings.part_size:
            _write_in_parts(run, writer, force=force, resume=resume)
            return Path(out)
        require_free(Path(out), force)
        kept = f"{out} was not written; give the same command again"
        with note_on_interrupt(kept), writer, track(f"generate ({settings.generator})", len(run.energy)) as bar:
            for batch in run.batches(0, bar):
                writer.append(batch)
    return Path(out)


@dataclass(frozen=True)
class _Run:
    """What is generated: energies in MeV, angles in rad."""

    model: ShowerModel
    settings: GenerateSettings
    energy: np.ndarray
    theta: np.ndarray
    phi: np.ndarray

    @property
    def parts(self) -> int:
        return math.ceil(len(self.energy) / self.settings.part_size)

    def batches(self, part: int, bar: Track) -> Iterator[Showers]:
        """The showers of a part."""
        settings = self.settings
        rows = slice(part * settings.part_size, (part + 1) * settings.part_size)
        for batch in self.model.batches(
            settings.generator,
            self.energy[rows],
            self.theta[rows],
            self.phi[rows],
            seed=part_seed(settings.seed, part),
            batch_size=settings.batch_size,
            device=settings.device,
            autocast=settings.autocast,
        ):
            yield batch
            bar.advance(len(batch))

    def made_from(self) -> dict[str, Any]:
        """All that decides the showers."""
        name = self.settings.generator
        conditions = hashlib.sha256(np.stack([self.energy, self.theta, self.phi]).astype("<f8").tobytes())
        if name in self.model.libraries:
            tensors = dict(self.model.libraries[name].tensors())
        else:
            tensors = {f"generator/{key}": value for key, value in self.model.generator(name).state_dict().items()}
            tensors |= {f"normaliser/{key}": value for key, value in self.model.normaliser.tensors().items()}
        return {
            "settings": self.settings.model_dump(mode="json"),
            "sampling": self.model.sampling.model_dump(mode="json"),
            "model": tensor_hash(tensors),
            "conditions": conditions.hexdigest(),
            "version": metacalo.__version__,
        }


def _write_in_parts(run: _Run, writer: ShowerWriter, *, force: bool, resume: bool) -> None:
    out = writer.path
    work, made_from = out.with_name(out.name + ".work"), run.made_from()
    clear_leftovers(work)
    record = work / "settings.json"
    if resume and not force and out.exists() and record.exists() and load_json(record) == made_from:
        discard(work)  # it was killed when only this was left to do
        return
    require_free(out, force)
    with note_on_interrupt(f"complete parts are kept in {work}; go on with the same command and --resume"):
        open_parts(work, made_from, resume=resume)
        with track(f"generate ({run.settings.generator})", len(run.energy)) as bar:
            for part in range(run.parts):
                if part_file(work, part).exists():
                    bar.advance(run.settings.part_size)
                else:
                    write_part(work, part, run.batches(part, bar), run.model.detector)
        with writer, track("join the parts", len(run.energy)) as bar:
            for batch in joined(work, run.parts):
                writer.append(batch)
                bar.advance(len(batch))
        discard(work)


def _provenance(
    path: str | Path,
    base: str | Path | None,
    detector: Detector | None,
    model: ShowerModel,
    settings: GenerateSettings,
    command: str,
) -> dict[str, Any]:
    record = settings.model_dump(mode="json")
    inputs: dict[str, dict[str, Any]] = {"base": {"name": model.base.config.name, "hash": model.base.hash}}
    config = Path(path, "config.json")
    if config.is_file():
        inputs["model"] = file_record(config)
    for key in ("conditions", "unseen_by"):
        if record[key] is not None:
            record[key] = shown_path(record[key])
    if settings.conditions is not None:
        inputs["conditions"] = file_record(settings.conditions)
    given = {
        "model": shown_path(path),
        "base": None if base is None else shown_path(base),
        "detector": record_of(detector),
    }
    return provenance("generate", command, settings=record, arguments=given, inputs=inputs, device=settings.device)


def _conditions(settings: GenerateSettings, base: str | Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies in MeV and angles in rad."""
    if settings.conditions is not None:
        return _copied(settings.conditions, settings, base)
    if settings.unseen_by is not None:
        message = "--unseen-by leaves rows of --conditions out; give --conditions too"
        raise ConfigError(message)
    n = settings.showers or 1000
    rng = np.random.default_rng(settings.seed)
    low, high = parse_range(settings.energy)
    if not 0 < low <= high <= _HIGHEST_GEV:
        raise ConfigError(f"--energy {settings.energy}: energies must lie above 0 and up to {_HIGHEST_GEV:g} GeV")
    theta, phi = _angles("theta", settings.theta), _angles("phi", settings.phi)
    energy = 1e3 * np.exp(rng.uniform(math.log(low), math.log(high), n))
    return energy, rng.uniform(*theta, n), rng.uniform(*phi, n)


def _angles(axis: Literal["theta", "phi"], text: str) -> tuple[float, float]:
    try:
        return parse_angles(axis, text)
    except ValueError as error:
        raise ConfigError(f"--{axis} {text}: {error}") from None


def _copied(
    path: str, settings: GenerateSettings, base: str | Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with open_showers(path) as file:
        warn_of_conditions(file.energy, path)
        rows = np.arange(len(file)) if settings.unseen_by is None else unseen_rows(path, settings.unseen_by, base=base)
        n = settings.showers or len(rows)
        if n > len(rows):
            left = "unseen rows" if settings.unseen_by else "rows"
            raise ShowerFileError(
                f"{path}: has {len(rows)} {left}, --showers {n} wants more; ask for at most {len(rows)}"
            )
        rows = rows[:n]
        return file.energy[rows], file.theta[rows], file.phi[rows]


make_callable(__name__, generate)
