"""`metacalo generate`: showers for wanted energies and angles, written to a file as they come."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from metacalo.config import Device, Seed, Settings
from metacalo.errors import ConfigError, ShowerFileError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.samplers import SamplerName
from metacalo.model import ShowerModel, load_model, seen_hashes
from metacalo.models.prior import Sampling
from metacalo.progress import track
from metacalo.showers.detector import Detector
from metacalo.showers.hdf5 import open_showers
from metacalo.showers.ranges import parse_range
from metacalo.showers.writer import ShowerWriter

_HIGHEST_GEV = 1e6  # far beyond any use of an electromagnetic shower

__all__ = ["EnergyRangeWarning", "GenerateSettings", "generate", "parse_range", "unseen_rows"]


class EnergyRangeWarning(UserWarning):
    """Showers were asked for at energies the base was not trained on, or no shot of a library is near."""


class GenerateSettings(Settings):
    """What to generate. Energies in GeV, angles in rad; `low:high` draws from a range."""

    generator: Literal["ar", "diffusion", "frozen"] = "diffusion"
    showers: int | None = Field(default=None, ge=1, description="how many; by default 1000, or all of `conditions`")
    energy: str = "1:100"
    theta: str = f"{math.pi / 2:.6f}"
    phi: str = "0"
    conditions: str | None = Field(default=None, description="shower file whose energies and angles are copied")
    unseen_by: str | None = Field(
        default=None, description="model whose shots and training rows of `conditions` are left out"
    )
    format: Literal["par04", "calochallenge"] = "par04"
    seed: Seed = 1
    batch_size: int = Field(default=100, ge=1)
    temperature: float = Field(default=1.0, ge=0, description="of the ar prior; 1 = the model itself")
    top_k: int | None = Field(default=None, ge=1, description="ar: draw among the likeliest indices only")
    top_p: float = Field(default=1.0, gt=0, le=1, description="ar: draw among the likeliest indices of this share only")
    steps: int | None = Field(default=None, ge=1, description="diffusion: sampler steps; by default the base's")
    sampler: SamplerName | None = Field(default=None, description="diffusion: by default the base's")
    device: Device = "cpu"
    autocast: bool = True

    @field_validator("energy", "theta", "phi")
    @classmethod
    def _is_range(cls, text: str) -> str:
        parse_range(text)
        return text


def unseen_rows(path: str | Path, model: str | Path, *, base: str | Path | None = None) -> np.ndarray:
    """Rows of a shower file that a model has not seen, neither as shots nor in its base's pretraining."""
    with open_showers(path) as file:
        return np.flatnonzero(~np.isin(file.hashes(), seen_hashes(model, base=base)))


def generate(
    model: str | Path,
    out: str | Path,
    settings: GenerateSettings | None = None,
    *,
    base: str | Path | None = None,
    detector: Detector | None = None,
    force: bool = False,
) -> Path:
    """Generates showers with the model of a folder and writes them to the HDF5 file `out`.

    Args:
        model: folder of an adapted model; or a base, with `detector`.
        out: file to write.
        settings: see `GenerateSettings`.
        base: where the model's base lies, if not in `pretrained/`.
        detector: of a base at zero shots.
        force: replace an existing `out`.

    Raises:
        ConfigError: an energy is not above zero, or the generator cannot be sampled as wanted.
        ShowerFileError: the conditions file cannot be read or has too few rows.
        MetacaloError: see `load_model` and `ShowerModel.generate`.

    Warns:
        EnergyRangeWarning: energies outside the range the base was trained on, or the shots of a library reach.
    """
    settings = settings or GenerateSettings()
    loaded = load_model(model, base=base, detector=detector)
    loaded.require(settings.generator)
    _set_sampling(loaded, settings)
    energy, theta, phi = _conditions(settings, base)
    _warn_outside(loaded, settings.generator, energy)
    with (
        ShowerWriter(
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
            },
            force=force,
        ) as writer,
        track(f"generate ({settings.generator})", len(energy)) as bar,
    ):
        for part in loaded.generate(
            settings.generator,
            energy,
            theta,
            phi,
            seed=settings.seed,
            batch_size=settings.batch_size,
            device=settings.device,
            autocast=settings.autocast,
        ):
            writer.append(part)
            bar.advance(len(part))
    return Path(out)


def _set_sampling(model: ShowerModel, settings: GenerateSettings) -> None:
    generator = model.generators.get(settings.generator)
    if isinstance(generator, Autoregressive):
        generator.sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    if isinstance(generator, Diffusion):
        generator.choose(settings.sampler, settings.steps)


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
    for name, text, least in (("theta", settings.theta, 0.0), ("phi", settings.phi, -2 * math.pi)):
        most = math.pi if name == "theta" else 2 * math.pi
        if not least <= parse_range(text)[0] <= parse_range(text)[1] <= most:
            raise ConfigError(f"--{name} {text}: must lie between {least:g} and {most:.4g} rad (degrees?)")
    energy = 1e3 * np.exp(rng.uniform(math.log(low), math.log(high), n))
    return energy, rng.uniform(*parse_range(settings.theta), n), rng.uniform(*parse_range(settings.phi), n)


def _copied(
    path: str, settings: GenerateSettings, base: str | Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with open_showers(path) as file:
        rows = np.arange(len(file)) if settings.unseen_by is None else unseen_rows(path, settings.unseen_by, base=base)
        n = settings.showers or len(rows)
        if n > len(rows):
            left = "unseen rows" if settings.unseen_by else "rows"
            raise ShowerFileError(
                f"{path}: has {len(rows)} {left}, --showers {n} wants more; ask for at most {len(rows)}"
            )
        rows = rows[:n]
        return file.energy[rows], file.theta[rows], file.phi[rows]


def _warn_outside(model: ShowerModel, name: str, energy: np.ndarray) -> None:
    low, high, told = *model.base.config.energy_range_MeV, "the base was trained on"
    if name in model.libraries:
        low, high, told = *model.libraries[name].energy_range, "the shots of the library reach"
    outside = int(((energy < 0.99 * low) | (energy > 1.01 * high)).sum())
    if outside:
        warnings.warn(
            f"{outside} of {len(energy)} showers have energies outside {low / 1e3:.4g} to {high / 1e3:.4g} GeV, the "
            f"range {told}; compare them with Geant4 before use",
            EnergyRangeWarning,
            stacklevel=3,
        )
