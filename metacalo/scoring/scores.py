"""Scores of showers: how likely each of them is under a model, in nats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from metacalo.config import Device, Seed, Settings
from metacalo.detectors.grid import Grid
from metacalo.errors import MetacaloError, ModelFolderError, ShowerFileError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import Batch, ShowerGenerator, bf16
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.likelihood import PathDraws, autoregressive_density, diffusion_bound
from metacalo.model_folders.adapted import ShowerModel
from metacalo.model_folders.base import GENERATORS
from metacalo.normaliser.response import convention_scale
from metacalo.runtime.progress import track
from metacalo.showers.shower_file import ShowerFile, Showers
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["ScoreSettings", "Scores", "fitted_to", "require_mesh", "score", "scored_generators"]

Array = NDArray[np.float64]

_SCALE_SHOWERS = 200  # needed to distinguish raw deposits from calibrated ones


class ScoreSettings(Settings):
    """What is scored, and how finely."""

    generator: Literal["ar", "diffusion", "both"] = Field(
        default="both", description="whose likelihood; both = those the model has"
    )
    times: int = Field(
        default=32,
        ge=2,
        le=4096,
        multiple_of=2,
        description="diffusion: points of the path where each shower is evaluated",
    )
    cells: bool = Field(
        default=False, description="count the latents of cells that a generator does not see, as normal"
    )
    at_most: int | None = Field(default=None, ge=1, description="showers of a file, drawn at random; all by default")
    unseen: bool = Field(default=False, description="leave out shots and the base's training showers")
    outliers: int = Field(default=10, ge=0, description="how many of the least likely showers are listed")
    batch_size: int = Field(default=100, ge=1, le=100_000, description="showers scored at a time")
    seed: Seed = 1
    device: Device = "cpu"
    autocast: bool = Field(default=True, description="bfloat16 matrix products")

    @field_validator("generator", mode="before")
    @classmethod
    def _has_density(cls, name: object) -> object:
        if name == "frozen":
            message = "a library of frozen showers has no density; choose 'ar', 'diffusion' or 'both'"
            raise ValueError(message)
        return name


@dataclass(frozen=True)
class Scores:
    """Showers with their scores.

    Attributes:
        rows: row of each shower in its file, (n,).
        energy: incident energies in MeV, (n,).
        theta, phi: incident angles in rad, (n,).
        response: E_total / E_inc, (n,).
        values: score to its values in nats, (n,); higher is likelier. `log_likelihood_ar` is ln P of the codes,
            `bound_ar` and `bound_diffusion` are lower bounds of ln p of the latents (`generators.likelihood`).
        errors: score to the standard errors of its estimate in nats, (n,), for those that are estimated.
    """

    rows: NDArray[np.int64]
    energy: Array
    theta: Array
    phi: Array
    response: Array
    values: Mapping[str, Array]
    errors: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def scored_generators(model: ShowerModel, settings: ScoreSettings) -> tuple[str, ...]:
    """Names of the model's generators that are asked for.

    Raises:
        ModelFolderError: it has a library of frozen showers alone, which has no density.
        UnknownNameError: it has no such generator.
    """
    if not model.generators:
        raise ModelFolderError(
            "the model is a library of frozen showers, which has no density; adapt with --generator ar, diffusion or "
            "both"
        )
    if settings.generator == "both":
        return tuple(name for name in GENERATORS if name in model.generators)
    model.generator(settings.generator)
    return (settings.generator,)


def fitted_to(model: ShowerModel, showers: Showers | ShowerFile) -> ShowerModel:
    """The model for the convention of those showers: at zero shots only they show whether deposits are raw."""
    if len(model.shots):
        return model
    few = _loaded(showers, np.arange(min(len(showers), _SCALE_SHOWERS)))
    scale = convention_scale(few.showers, few.energy)
    described = torch.from_numpy(model.detector.descriptors())
    return replace(model, normaliser=model.base.hyperprior.predict(described, scale=scale))


def require_mesh(model: ShowerModel, showers: Showers | ShowerFile) -> None:
    """Raises `ShowerFileError` where the showers have another mesh than the model's: asked before long work."""
    if isinstance(showers, Showers):
        n_r, n_phi, n_z = (int(cells) for cells in showers.showers.shape[1:])
        found, where = Grid(n_r, n_phi, n_z), "the showers"
    else:
        found, where = showers.grid, f"{showers.path}: the showers"
    if found.shape != model.detector.grid.shape:
        raise ShowerFileError(
            f"{where} have a mesh of {found} cells, the model's detector has {model.detector.grid}; score showers of "
            "that mesh, or take a model of this one"
        )


@torch.no_grad()
def score(
    model: ShowerModel,
    showers: Showers | ShowerFile,
    settings: ScoreSettings | None = None,
    *,
    rows: NDArray[np.int64] | None = None,
    quiet: bool = False,
) -> Scores:
    """Log-likelihoods of showers under the generators of a model.

    The latents within an interval are drawn once. The same seed and batch size give the same scores on the same
    machine. A model at zero shots expects calibrated deposits; `fitted_to` makes it fit others.

    Args:
        model: see `load_model`.
        showers: in memory, or an open file, which is read batch by batch.
        settings: see `ScoreSettings`; `at_most`, `unseen` and `outliers` are for whole files (`score_files`).
        rows: which of them, by default all.
        quiet: draw no bar.

    Raises:
        ShowerFileError: the showers have another mesh than the model's, or a voxel that cannot be.
        ModelFolderError, UnknownNameError: see `scored_generators`.
        MetacaloError: a score is not finite.
    """
    settings = settings or ScoreSettings()
    names = scored_generators(model, settings)
    require_mesh(model, showers)
    rows = np.arange(len(showers)) if rows is None else rows
    generators = [model.generator(name).to(settings.device).eval() for name in names]
    noise = torch.Generator().manual_seed(settings.seed)
    draws = PathDraws.stratified(settings.times, model.detector.grid.shape, noise).to(settings.device)
    found: list[dict[str, Array]] = []
    with track("score", len(rows), quiet=quiet) as bar:
        for start in range(0, len(rows), settings.batch_size):
            part = _loaded(showers, rows[start : start + settings.batch_size])
            batch = _batch(model, generators, part, settings, noise)
            _require_finite({"latents": batch.latents.flat().sum(1).cpu().numpy()}, rows[start:])
            total = part.showers.sum((1, 2, 3), dtype=np.float64)
            values = {"response": total / part.energy}
            with bf16(settings.device, settings.autocast):
                for generator in generators:
                    values |= _scores_of(generator, batch, draws, settings)
            found.append(values)
            bar.advance(len(part))
    columns = {name: np.concatenate([values[name] for values in found]) for name in found[0]}
    _require_finite(columns, rows)
    response = columns.pop("response")
    energy, theta, phi = (np.asarray(x[rows], np.float64) for x in (showers.energy, showers.theta, showers.phi))
    errors = {name.removesuffix("_error"): columns.pop(name) for name in list(columns) if name.endswith("_error")}
    return Scores(np.asarray(rows, np.int64), energy, theta, phi, response, columns, errors)


def _loaded(showers: Showers | ShowerFile, rows: NDArray[np.int64]) -> Showers:
    return showers.select(rows) if isinstance(showers, Showers) else showers.load(rows)


def _batch(
    model: ShowerModel,
    generators: list[ShowerGenerator],
    showers: Showers,
    settings: ScoreSettings,
    noise: torch.Generator,
) -> Batch:
    cells = settings.cells or any(generator.sees_cells for generator in generators)
    pool = ShowerPool(showers, model.normaliser, model.detector, cells=cells)
    return pool.batch(torch.arange(len(pool)), noise, reflect=False).to(settings.device)


def _scores_of(generator: ShowerGenerator, batch: Batch, draws: PathDraws, settings: ScoreSettings) -> dict[str, Array]:
    made: dict[str, Any] = {}
    if isinstance(generator, Autoregressive):
        density = autoregressive_density(generator, batch, cells=settings.cells)
        made = {"log_likelihood_ar": density.log_likelihood, "bound_ar": density.bound}
    if isinstance(generator, Diffusion):
        bound = diffusion_bound(generator, batch, draws, cells=settings.cells)
        made = {"bound_diffusion": bound.value, "bound_diffusion_error": bound.error}
    return {name: values.double().cpu().numpy() for name, values in made.items()}


def _require_finite(columns: Mapping[str, Array], rows: NDArray[np.int64]) -> None:
    for name, values in columns.items():
        wrong = ~np.isfinite(values)
        if wrong.any():
            raise MetacaloError(
                f"'{name}' of row {rows[int(np.argmax(wrong))]} is not finite ({int(wrong.sum())} such); drop showers "
                "without any deposit, or adapt the model again"
            )
