"""A base: the folder `pretrain` writes, with everything that adaptation starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from metacalo.config import Settings
from metacalo.detectors.condition_range import TRAINED_THETA, ConditionRange
from metacalo.detectors.grid import Grid
from metacalo.errors import MALFORMED, ModelFolderError, UnknownNameError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import ShowerGenerator
from metacalo.generators.diffusion import Diffusion, DiffusionSettings
from metacalo.model_folders.consistency import load_hashes, require_sizes
from metacalo.models.prior import PriorSettings
from metacalo.models.vqvae import VQVAE, VQVAESettings
from metacalo.normaliser.preprocessing import PREPROCESSING, DetectorPrior, Preprocessing, PreprocessingName
from metacalo.showers.tasks import data_folder
from metacalo.storage.checkpoint import load_json, load_tensors, save_json, save_tensors, tensor_hash

__all__ = [
    "FORMAT",
    "GENERATORS",
    "Base",
    "BaseConfig",
    "Cells",
    "GeneratorName",
    "PlainName",
    "build_generator",
    "checked_kind",
    "load_half",
    "load_into",
    "resolve_base",
    "save_base",
    "save_half",
    "sees_cells",
]

FORMAT = 4
GeneratorName = Literal["ar", "diffusion"]
GENERATORS: tuple[GeneratorName, ...] = ("ar", "diffusion")


PlainName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f\x7f]+$", max_length=200)]
"""Name of a folder in `pretrained/`, and no path that would lead out of it."""

Cells = Annotated[int, Field(ge=1, le=1024)]


class BaseConfig(Settings):
    """What a base is and where it came from; `config.json` in its folder."""

    format: Literal[4] = 4
    kind: Literal["base"] = "base"
    name: PlainName
    version: str = Field(description="metacalo that made it")
    grid: tuple[Cells, Cells, Cells]
    condition_size: int = Field(ge=1, le=4096)
    descriptors: tuple[str, ...]
    energy_range_MeV: tuple[float, float]  # noqa: N815
    theta_range: tuple[float, float] = Field(default=TRAINED_THETA, description="polar angles in rad")
    preprocessing: PreprocessingName = "tables"
    tokenizer: VQVAESettings
    prior: PriorSettings
    diffusion: DiffusionSettings
    generators: tuple[GeneratorName, ...] = Field(max_length=2)
    learned_rates: tuple[GeneratorName, ...] = Field(
        default=(), description="generators that come with step sizes for their adaptation"
    )
    trained_on: dict[str, int] = Field(description="task to the number of its showers that were trained on")
    holdout: tuple[str, ...]
    pretrain: dict[str, Any] = Field(description="resolved settings of the run")
    command: str

    @property
    def trained_range(self) -> ConditionRange:
        """Energies and angles of the showers it was trained on."""
        n = max(sum(self.trained_on.values()), 1)
        return ConditionRange(showers=n, energy_MeV=self.energy_range_MeV, theta_rad=self.theta_range)


@dataclass(frozen=True, repr=False)
class Base:
    """A base in memory.

    Attributes:
        path: its folder.
        config: its `config.json`.
        hash: SHA-256 over all its weights; adapted models name it.
        hyperprior: predicts the normaliser of a detector.
        seen: content hashes of the showers it was trained on, int64.
        weights: file stem to tensors; `<generator>-rates` are learned step sizes.
    """

    path: Path
    config: BaseConfig
    hash: str
    hyperprior: DetectorPrior
    seen: np.ndarray
    weights: Mapping[str, dict[str, Tensor]]

    @classmethod
    def load(cls, path: str | Path) -> Base:
        """Reads a base folder.

        Raises:
            ModelFolderError: the folder or a file in it is missing, damaged, or of another format.
        """
        path = Path(path)
        if not path.is_dir():
            raise ModelFolderError(f"{path}: there is no such base folder")
        config = BaseConfig.build(checked_kind(path, "base"), source=str(path / "config.json"))
        stems = ["hyperprior", "seen", *config.generators, *(f"{name}-rates" for name in config.learned_rates)]
        if "ar" in config.generators:
            stems.append("tokenizer")
        weights = {stem: load_half(path / f"{stem}.safetensors") for stem in stems}
        digest = tensor_hash({f"{s}/{n}": t for s in stems if s != "seen" for n, t in weights[s].items()})
        seen = load_hashes(weights.pop("seen"), path / "seen.safetensors")
        try:
            hyperprior = PREPROCESSING[config.preprocessing].load_prior(weights.pop("hyperprior"))
        except MALFORMED as error:
            raise ModelFolderError(f"{path}/hyperprior.safetensors: no tensor {error}; make the base again") from None
        return cls(path, config, digest, hyperprior, seen, weights)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"Base({config.name!r}, generators={', '.join(config.generators)}, cells={Grid(*config.grid)}, "
            f"{self.trained_range}, {sum(config.trained_on.values()):,} showers of {len(config.trained_on)} tasks)"
        )

    @property
    def trained_range(self) -> ConditionRange:
        """Energies and angles of the showers it was trained on."""
        return self.config.trained_range

    @property
    def preprocessing(self) -> Preprocessing:
        """The way from showers to latents that its generators were trained on."""
        return PREPROCESSING[self.config.preprocessing]

    def generator(self, name: str) -> ShowerGenerator:
        """The pre-trained generator of that name, in evaluation mode.

        Raises:
            UnknownNameError: the base has no such generator.
            ModelFolderError: its weights do not fit its config.
        """
        if name not in self.config.generators:
            raise UnknownNameError("generator", name, self.config.generators)
        tensors = dict(self.weights[name])
        if name == "ar":
            tensors |= {f"tokenizer.{key}": value for key, value in self.weights["tokenizer"].items()}
        source = self.path / f"{name}.safetensors"
        require_sizes(partial(build_generator, name, self.config), tensors, source)
        model = build_generator(name, self.config)
        load_into(model, tensors, source)
        return model.eval()

    def fresh(self, name: str) -> ShowerGenerator:
        """A generator of the same sizes that has learned nothing; the tokenizer, which is frozen, is the base's."""
        model = build_generator(name, self.config)
        if name == "ar":
            known = {f"tokenizer.{key}": value for key, value in self.weights["tokenizer"].items()}
            load_into(model, {**model.state_dict(), **known}, self.path / "tokenizer.safetensors")
        return model

    def rates(self, name: str) -> dict[str, Tensor]:
        """Step sizes for the adaptation of that generator that Meta-SGD learned, by parameter; empty without it."""
        return dict(self.weights.get(f"{name}-rates", {}))


def build_generator(name: str, config: BaseConfig) -> ShowerGenerator:
    """A generator of the base's sizes with fresh weights."""
    if name == "ar":
        return Autoregressive(VQVAE(config.tokenizer, config.grid), config.prior, config.condition_size)
    return Diffusion(config.diffusion, config.grid, config.condition_size)


def sees_cells(tokenizer: VQVAESettings, diffusion: DiffusionSettings) -> bool:
    """Whether a generator of these sizes looks at the latents of cells."""
    return "cells" in tokenizer.weights or "cells" in diffusion.weights.components


def load_into(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Fills all of `model`'s state.

    Raises:
        ModelFolderError: a tensor is missing, left over or of the wrong shape.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFolderError(f"{source}: does not fit its config.json ({reason}); make the model again") from None


def checked_kind(path: Path, *kinds: str) -> dict[str, Any]:
    """The `config.json` of a model folder, if it is of one of `kinds` and of this format.

    Raises:
        ModelFolderError: it is not.
    """
    values = load_json(path / "config.json")
    if values.get("kind") not in kinds:
        raise ModelFolderError(f"{path}: is a folder of kind '{values.get('kind')}', '{kinds[0]}' was expected")
    written = values.get("format")
    if isinstance(written, int) and written < FORMAT:
        raise ModelFolderError(f"{path}: was written by an older metacalo (format {written}); pretrain or adapt again")
    if written != FORMAT:
        raise ModelFolderError(
            f"{path}: has format {written}, this metacalo reads {FORMAT}; use the version that made it"
        )
    return values


def save_half(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes floating-point tensors in half precision and others as they are."""
    save_tensors(path, {n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()})


def load_half(path: Path) -> dict[str, Tensor]:
    """Reads what `save_half` wrote, in single precision."""
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in load_tensors(path)[0].items()}


def save_base(
    folder: Path,
    config: BaseConfig,
    hyperprior: DetectorPrior,
    seen: np.ndarray,
    weights: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Writes a base into an existing empty folder."""
    save_json(folder / "config.json", config.model_dump(mode="json"))
    save_half(folder / "hyperprior.safetensors", hyperprior.tensors())
    save_tensors(folder / "seen.safetensors", {"hashes": torch.from_numpy(np.sort(seen))})
    for stem, tensors in weights.items():
        save_half(folder / f"{stem}.safetensors", tensors)


def resolve_base(name_or_path: str | Path) -> Base:
    """A base by its name in `pretrained/`, or by the path of its folder.

    Raises:
        UnknownNameError: neither; the sentence has the near match.
        ModelFolderError: the folder is not a readable base.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return Base.load(path)
    if len(path.parts) > 1:
        raise ModelFolderError(f"{path}: there is no such model folder")
    folder = data_folder("pretrained")
    known = [place.name for place in folder.iterdir() if (place / "config.json").is_file()] if folder.is_dir() else []
    if str(name_or_path) not in known:
        raise UnknownNameError("base", str(name_or_path), known)
    return Base.load(folder / str(name_or_path))
