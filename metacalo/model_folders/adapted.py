"""A generator for one detector: a base, a normaliser, and what adaptation moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from metacalo.config import Settings
from metacalo.detectors.condition_range import ConditionRange, left_range, warn_outside
from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.errors import (
    MALFORMED,
    BaseMismatchError,
    ConfigError,
    DetectorError,
    MetacaloError,
    ModelFolderError,
    ShowerFileError,
    UnknownNameError,
)
from metacalo.generators.base import ShowerGenerator, bf16
from metacalo.generators.frozen import FrozenLibrary
from metacalo.generators.sampling_options import SamplingOptions
from metacalo.model_folders.base import GENERATORS, Base, Cells, GeneratorName, PlainName, checked_kind, resolve_base
from metacalo.model_folders.consistency import load_hashes, predicted_normaliser, require_alike
from metacalo.models.subspaces import SubspaceName
from metacalo.normaliser.condition_vector import encode_conditions, require_conditions
from metacalo.normaliser.preprocessing import AnyNormaliser
from metacalo.showers.shower_file import Showers
from metacalo.storage.checkpoint import load_tensors, save_json, save_tensors
from metacalo.typing import PathLike, ShowerArray

__all__ = ["AdaptedConfig", "Sampler", "ShowerModel", "load_model", "save_model", "seen_hashes", "zero_shot"]

Sampler = Callable[[np.ndarray, np.ndarray, np.ndarray, torch.Generator], ShowerArray]
"""Showers in MeV, float32 (n, R, PHI, Z), for energies in MeV, theta and phi in rad, each (n,)."""


class AdaptedConfig(Settings):
    """What an adapted model is and where it came from; `config.json` in its folder."""

    format: Literal[4] = 4
    kind: Literal["adapted"] = "adapted"
    version: str
    base: PlainName = Field(description="name of the base")
    base_hash: str = Field(description="SHA-256 over the base's weights")
    detector: dict[str, Any] = Field(description="attributes from which the detector is made again")
    grid: tuple[Cells, Cells, Cells]
    generators: tuple[GeneratorName, ...] = Field(max_length=2)
    libraries: tuple[Annotated[str, Field(pattern="^frozen$")], ...] = Field(default=(), max_length=1)
    method: SubspaceName = Field(default="adapters", description="what moved; older folders lack it")
    sampling: SamplingOptions = Field(
        default=SamplingOptions(), description="how its generators are sampled where nothing else is asked for"
    )
    shots_range: ConditionRange | None = Field(
        default=None, description="energies and angles of the shots; older folders do not have them"
    )
    adapt: dict[str, Any] = Field(description="resolved settings of the run")
    command: str


@dataclass(frozen=True, repr=False)
class ShowerModel:
    """Generates showers of `detector` in MeV.

    Attributes:
        base: what it was made from.
        detector: whose showers it makes.
        normaliser: between MeV and latents.
        generators: name to generator.
        shots: content hashes of the showers it was adapted on, int64; empty at zero shots.
        libraries: name to library of shots, which needs neither base nor normaliser.
        method: subspace outside of which the generators are the base's.
        sampling: options of sampling, kept with the model.
        shots_range: energies and angles of the shots; None at zero shots, and in older folders.
    """

    base: Base
    detector: Detector
    normaliser: AnyNormaliser
    generators: Mapping[str, ShowerGenerator]
    shots: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    libraries: Mapping[str, FrozenLibrary] = field(default_factory=dict)
    method: SubspaceName = "adapters"
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    shots_range: ConditionRange | None = None

    def __repr__(self) -> str:
        shots = f"{len(self.shots):,} shots" if len(self.shots) else "zero shots"
        return (
            f"ShowerModel({self.detector.name!r}, generators={', '.join((*self.generators, *self.libraries))}, "
            f"cells={self.detector.grid}, {shots}, {self.known_range}, base={self.base.config.name!r})"
        )

    @property
    def known_range(self) -> ConditionRange:
        """Energies and angles of the shots, or of the base's training where there are none or none are known."""
        return self.shots_range or self.base.trained_range

    def outside_range(
        self, energy: Float[np.ndarray, "n"], theta: Float[np.ndarray, "n"], *, showers: str = "showers"
    ) -> list[str]:
        """Sentences on showers (energy in MeV, theta in rad) unlike those that the model was made from; mostly none.

        `showers` is what they are called there.
        """
        known, mend = self.known_range, "adapt with shots there, or compare with Geant4 before use"
        whose = f"the {known.showers} shots" if self.shots_range else f"training of base '{self.base.config.name}'"
        return left_range(known, whose, energy, theta, showers, mend)

    def require(self, name: str) -> None:
        """Raises `UnknownNameError` where nothing of that name makes showers: asked before long work."""
        known = (*self.generators, *self.libraries)
        if name not in known:
            raise UnknownNameError("generator", name, known)

    def generator(self, name: str) -> ShowerGenerator:
        """The generator of that name.

        Raises:
            UnknownNameError: the model has none.
        """
        if name not in self.generators:
            raise UnknownNameError("generator", name, self.generators)
        return self.generators[name]

    def sampler(self, name: str, *, device: str = "cpu", autocast: bool = True) -> Sampler:
        """What makes the showers of that name: a generator behind its normaliser, or a library.

        Raises:
            UnknownNameError: the model has none.
        """
        self.require(name)
        if name in self.libraries:
            sample = self.libraries[name].sample
            return lambda energy, theta, _phi, noise: sample(energy, theta, noise)
        generator, normaliser = self.generator(name).to(device).eval(), self.normaliser.to(device)
        descriptors = self.detector.descriptors()

        def decoded(energy: np.ndarray, theta: np.ndarray, phi: np.ndarray, noise: torch.Generator) -> ShowerArray:
            conditions = encode_conditions(energy, theta, phi, descriptors).to(device)
            with bf16(device, autocast):
                latents = generator.sample(conditions, noise)
            if not all(bool(part.isfinite().all()) for part in latents.components()):
                raise MetacaloError(
                    f"generator '{name}' gave a latent that is not finite; adapt again or change its base"
                )
            incident, angle = (torch.from_numpy(np.asarray(x, dtype=np.float32)).to(device) for x in (energy, theta))
            return normaliser.inverse(latents, incident, angle).cpu().numpy()

        return decoded

    def generate(
        self,
        name: str,
        energy: Float[np.ndarray, "n"],
        theta: Float[np.ndarray, "n"],
        phi: Float[np.ndarray, "n"],
        *,
        seed: int = 1,
        batch_size: int = 100,
        device: str = "cpu",
        autocast: bool = True,
    ) -> Iterator[Showers]:
        """Showers for each (energy in MeV, theta and phi in rad), `batch_size` at a time.

        The same seed and batch size give the same showers on the same machine.

        Raises:
            UnknownNameError: nothing of that name makes showers.
            ShowerFileError: an energy is not above zero, or a value is not finite.

        Warns:
            OutsideRangeWarning: energies or angles that the model has not seen.
        """
        self.require(name)
        require_conditions(energy, theta, phi)
        warn_outside(self.outside_range(energy, theta))
        return self.batches(
            name, energy, theta, phi, seed=seed, batch_size=batch_size, device=device, autocast=autocast
        )

    @torch.no_grad()
    def batches(
        self,
        name: str,
        energy: Float[np.ndarray, "n"],
        theta: Float[np.ndarray, "n"],
        phi: Float[np.ndarray, "n"],
        *,
        seed: int = 1,
        batch_size: int = 100,
        device: str = "cpu",
        autocast: bool = True,
    ) -> Iterator[Showers]:
        """What `generate` does, without a warning of energies and angles that the model has not seen."""
        sample = self.sampler(name, device=device, autocast=autocast)
        noise = torch.Generator().manual_seed(seed)
        for start in range(0, len(energy), batch_size):
            rows = slice(start, start + batch_size)
            showers = sample(energy[rows], theta[rows], phi[rows], noise)
            conditions = [np.asarray(values[rows], np.float32) for values in (energy, theta, phi)]
            yield Showers(showers, conditions[0], conditions[1], conditions[2], self.detector)


def zero_shot(base: Base, detector: Detector, *, scale: float = 1.0) -> ShowerModel:
    """The base's own guess at a detector of which no shower was seen.

    Args:
        base: see `resolve_base`.
        detector: described by its materials and its mesh.
        scale: mean E_total / E_inc of the wanted convention, 1 = deposits divided by the sampling fraction.

    Raises:
        DetectorError: the detector's mesh has another number of cells than the base's.
    """
    if detector.grid.shape != base.config.grid:
        trained_on = Grid(*base.config.grid)
        raise DetectorError(
            f"detector '{detector.name}' has a mesh of {detector.grid} cells, base '{base.config.name}' was trained on "
            f"{trained_on}; simulate on that mesh or pretrain a base on yours"
        )
    normaliser = predicted_normaliser(base.hyperprior, detector, base.config.grid, base.path, scale=scale)
    return ShowerModel(base, detector, normaliser, {name: base.generator(name) for name in base.config.generators})


def save_model(folder: Path, model: ShowerModel, adapt: Mapping[str, Any], version: str, command: str) -> None:
    """Writes an adapted model into an existing folder: only what differs from the base."""
    config = AdaptedConfig(
        version=version,
        base=model.base.config.name,
        base_hash=model.base.hash,
        detector=model.detector.to_attributes(),
        grid=model.detector.grid.shape,
        generators=tuple(name for name in GENERATORS if name in model.generators),
        libraries=tuple(model.libraries),
        method=model.method,
        sampling=model.sampling,
        shots_range=model.shots_range,
        adapt=dict(adapt),
        command=command,
    )
    save_json(folder / "config.json", config.model_dump(mode="json"))
    save_tensors(folder / "normaliser.safetensors", model.normaliser.tensors())
    save_tensors(folder / "shots.safetensors", {"hashes": torch.from_numpy(np.sort(model.shots))})
    for name, generator in model.generators.items():
        # whole precision: rounding flips codes, and the model read back would not make the same showers
        save_tensors(folder / f"adapters-{name}.safetensors", generator.subspace(model.method))
    for name, library in model.libraries.items():
        save_tensors(folder / f"{name}.safetensors", library.tensors())


def load_model(path: PathLike, *, base: PathLike | None = None, detector: Detector | None = None) -> ShowerModel:
    """An adapted model, or (with `detector`) a base at zero shots.

    Args:
        path: folder of an adapted model or of a base, or the name of a base.
        base: where the adapted model's base lies, if not under its name in `pretrained/`.
        detector: needed for a base; not allowed to differ for an adapted model.

    Raises:
        BaseMismatchError: the base found has another hash than the one the model was adapted from.
        ModelFolderError: a file is missing, damaged or does not fit.
        DetectorError: a base was given without a detector.
        UnknownNameError: `path` is no folder and no known base.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file() or checked_kind(folder, "base", "adapted")["kind"] == "base":
        found = resolve_base(path)
        if detector is None:
            raise DetectorError(f"{path} is a base; say for which detector with --detector (a task, file or toml)")
        return zero_shot(found, detector)
    config = AdaptedConfig.build(checked_kind(folder, "adapted"), source=str(folder / "config.json"))
    of = _base_of(folder, config, base)
    described = Detector.from_attributes(config.detector, Grid(*config.grid), "detector")
    if described is None:
        raise ModelFolderError(f"{folder}/config.json: describes no detector; adapt again")
    generators: dict[str, ShowerGenerator] = {}
    for name in config.generators:
        generators[name] = of.generator(name)
        _adopt(generators[name], config.method, folder / f"adapters-{name}.safetensors")
        try:
            config.sampling.choose(generators[name])
        except ConfigError as error:
            raise ModelFolderError(f"{folder}/config.json: {error}; adapt again") from None
    tensors, _ = load_tensors(folder / "normaliser.safetensors")
    try:
        expected = predicted_normaliser(of.hyperprior, described, of.config.grid, of.path)
        require_alike(tensors, expected.tensors())
        normaliser = of.preprocessing.load(tensors, of.hyperprior)
    except MALFORMED as error:
        raise ModelFolderError(f"{folder}/normaliser.safetensors: not complete ({error}); adapt again") from None
    libraries = {name: _library(folder / f"{name}.safetensors", config.grid) for name in config.libraries}
    seen = config.shots_range
    for library in libraries.values():
        seen = seen or ConditionRange.of(library.energy, library.theta, None)
    return ShowerModel(
        of, described, normaliser, generators, _shots(folder), libraries, config.method, config.sampling, seen
    )


def _base_of(folder: Path, config: AdaptedConfig, base: PathLike | None) -> Base:
    try:
        of = resolve_base(base if base is not None else config.base)
    except UnknownNameError as error:
        raise ModelFolderError(f"{folder}: its base is not found: {error}; say where it lies with --base") from None
    if of.hash != config.base_hash:
        raise BaseMismatchError(
            f"{folder}: was adapted from base '{config.base}' with hash {config.base_hash[:12]}, but {of.path} has "
            f"{of.hash[:12]}; give the right one with --base or adapt again"
        )
    return of


def _adopt(generator: ShowerGenerator, method: SubspaceName, source: Path) -> None:
    """Puts what moved, all of it and nothing else, in the place of the base's."""
    moved, tensors = generator.subspace(method), load_tensors(source)[0]
    for name in sorted({*moved, *tensors}):
        if name not in tensors:
            raise ModelFolderError(f"{source}: no tensor '{name}', which method '{method}' moves; adapt again")
        if name not in moved:
            raise ModelFolderError(f"{source}: method '{method}' does not move tensor '{name}'; adapt again")
        found, wanted = (tuple(each[name].shape) for each in (tensors, moved))
        if found != wanted:
            raise ModelFolderError(f"{source}: tensor '{name}' has shape {found}, the base's {wanted}; adapt again")
    with torch.no_grad():
        for name, parameter in moved.items():
            parameter.copy_(tensors[name])


def _library(path: Path, grid: tuple[int, int, int]) -> FrozenLibrary:
    try:
        library = FrozenLibrary.from_tensors(load_tensors(path)[0])
    except (ShowerFileError, *MALFORMED) as error:
        raise ModelFolderError(f"{path}: not a complete library ({error}); adapt again") from None
    if library.showers.shape[1:] != grid:
        raise ModelFolderError(f"{path}: holds showers on another mesh than config.json says; adapt again")
    return library


def _shots(folder: Path) -> np.ndarray:
    return load_hashes(load_tensors(folder / "shots.safetensors")[0], folder / "shots.safetensors")


def seen_hashes(path: PathLike, *, base: PathLike | None = None) -> np.ndarray:
    """Content hashes of every shower that a model has seen: an adapted model's shots and its base's training showers.

    Raises:
        ModelFolderError, UnknownNameError: no such model or base.
    """
    folder = Path(path)
    if (folder / "config.json").is_file() and checked_kind(folder, "base", "adapted")["kind"] == "adapted":
        config = AdaptedConfig.build(checked_kind(folder, "adapted"), source=str(folder / "config.json"))
        return np.concatenate([_shots(folder), _base_of(folder, config, base).seen])
    return resolve_base(path).seen
