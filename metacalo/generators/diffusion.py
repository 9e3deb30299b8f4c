"""Diffusion generator: a DiT that denoises normalised showers."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from metacalo.config import Settings
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.generators.samplers import SamplerName, sample
from metacalo.generators.schedules import ScheduleName, draw_angles
from metacalo.models.dit import DiT, DiTSettings
from metacalo.showers.normalise import Latents
from metacalo.typing import Conditions

__all__ = ["CALODIT", "Diffusion", "DiffusionSettings"]


class DiffusionSettings(Settings):
    """Denoiser, schedule, what the network predicts, and the default sampler."""

    dit: DiTSettings = DiTSettings()
    schedule: ScheduleName = "linear"
    prediction: Literal["v", "data", "noise"] = "v"
    sampler: SamplerName = "heun"
    steps: int = Field(default=8, ge=1)
    energy_weight: float = Field(default=1.0, ge=0, description="loss weight of the layer energies and of the total")

    @model_validator(mode="after")
    def _noise_needs_ddpm(self) -> Self:
        if self.prediction == "noise" and self.sampler != "ddpm":
            message = "prediction = 'noise' says nothing of the data where sampling starts; use sampler = 'ddpm'"
            raise ValueError(message)
        return self


CALODIT = DiffusionSettings(
    dit=DiTSettings(patch=(3, 2, 3), width=144, blocks=4, heads=8, modulation="per-block"),
    schedule="cosine",
    prediction="noise",
    sampler="ddpm",
    steps=400,
)
"""The published CaloDiT: 400 steps, cosine schedule, width 144, 8 heads, patches 3 x 2 x 3, 2 + 2 blocks."""


class Diffusion(ShowerGenerator):
    """Denoiser with its schedule.

    A network that predicts v and returns zero samples independent normals, that is, the normaliser's own independent
    cells: training only has to find how cells depend on one another.
    """

    name = "diffusion"

    def __init__(self, settings: DiffusionSettings, grid: tuple[int, int, int], condition_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.dit = DiT(settings.dit, grid, condition_size)
        self.sampler: SamplerName = settings.sampler
        self.steps = settings.steps

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean squared error of the prediction: voxels, plus layer energies and total at their own weight."""
        n, device = len(batch), batch.conditions.device
        angle = draw_angles(self.settings.schedule, n, generator).to(device)
        noise = _like(batch.latents, generator)
        noisy = _combine(batch.latents, noise, angle.sin(), angle.cos())
        target = {
            "v": lambda: _combine(batch.latents, noise, angle.cos(), -angle.sin()),
            "data": lambda: batch.latents,
            "noise": lambda: noise,
        }[self.settings.prediction]()
        predicted = self.dit(noisy, angle / (math.pi / 2), batch.conditions)
        voxels: Tensor = ((predicted.voxels - target.voxels) ** 2).mean()
        energies: Tensor = ((predicted.layers - target.layers) ** 2).mean() + (
            (predicted.total - target.total) ** 2
        ).mean()
        return voxels + self.settings.energy_weight * energies

    def _velocity(self, x: Tensor, predicted: Tensor, angle: float) -> Tensor:
        """The v of the network's output; a clamp keeps the angle off the ends, where noise or data say nothing of v."""
        if self.settings.prediction == "v":
            return predicted
        sine, cosine = max(math.sin(angle), 1e-2), max(math.cos(angle), 1e-2)
        if self.settings.prediction == "data":
            return (predicted - sine * x) / cosine
        return (cosine * x - predicted) / sine

    @torch.no_grad()
    def sample(self, conditions: Conditions, generator: torch.Generator) -> Latents:
        """See `ShowerGenerator.sample`; `self.sampler` and `self.steps` set the sampler."""
        n, (n_r, n_phi, n_z) = len(conditions), self.dit.patching.grid

        def unpack(flat: Tensor) -> Latents:
            total, layers, voxels = torch.split(flat, [1, n_z, n_r * n_phi * n_z], dim=1)
            return Latents(total[:, 0], layers, voxels.reshape(n, n_r, n_phi, n_z))

        def velocity(flat: Tensor, angle: float) -> Tensor:
            time = torch.full((n,), angle / (math.pi / 2), device=flat.device)
            return self._velocity(flat, _flatten(self.dit(unpack(flat), time, conditions)), angle)

        noise = torch.randn(n, 1 + n_z + n_r * n_phi * n_z, generator=generator).to(conditions.device)
        return unpack(sample(velocity, noise, self.sampler, self.steps, generator))


def _flatten(latents: Latents) -> Float[Tensor, "n value"]:
    return torch.cat([latents.total[:, None], latents.layers, latents.voxels.flatten(1)], dim=1)


def _like(latents: Latents, generator: torch.Generator) -> Latents:
    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like.device)

    return Latents(normal(latents.total), normal(latents.layers), normal(latents.voxels))


def _combine(a: Latents, b: Latents, alpha: Tensor, beta: Tensor) -> Latents:
    """The sum alpha a + beta b, with one alpha and beta per shower."""

    def mix(x: Tensor, y: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 1)
        return alpha.reshape(shape) * x + beta.reshape(shape) * y

    return Latents(mix(a.total, b.total), mix(a.layers, b.layers), mix(a.voxels, b.voxels))
