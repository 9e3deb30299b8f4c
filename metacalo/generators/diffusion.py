"""Diffusion generator: a DiT that denoises normalised showers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from metacalo.config import Settings
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.generators.samplers import SHORTCUT_STEPS, SamplerName, sample
from metacalo.generators.schedules import ScheduleName, draw_angles
from metacalo.models.dit import DiT, DiTSettings
from metacalo.normaliser.latents import Latents
from metacalo.typing import Conditions

__all__ = ["CALODIT", "Diffusion", "DiffusionSettings", "LossWeights", "mix"]


class LossWeights(Settings):
    """Weight of the mean squared error over each component of `Latents`, by its name there.

    A component without weight is unknown to the network, and sampled as independent normals. Cells have none: beyond
    what the normaliser knows they are nearly white, and thousands of them hide the rest from a network.
    """

    total: float = Field(default=0.1, ge=0)
    layers: float = Field(default=1.0, ge=0)
    rings: float = Field(default=1.0, ge=0)
    hits: float = Field(default=1.0, ge=0)
    cells: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not self.components:
            message = "no component has a weight, so that nothing would be learnt; give one of them a weight above 0"
            raise ValueError(message)
        return self

    @property
    def components(self) -> tuple[str, ...]:
        """The components with a weight."""
        return tuple(component for component, weight in self if weight)


class DiffusionSettings(Settings):
    """Denoiser, schedule, what the network predicts, and the default sampler."""

    dit: DiTSettings = DiTSettings()
    schedule: ScheduleName = "linear"
    prediction: Literal["v", "data", "noise"] = "v"
    sampler: SamplerName = "heun"
    steps: int = Field(
        default=2, ge=1, le=100_000, description="more buy nothing: paths of whitened latents are nearly straight"
    )
    weights: LossWeights = LossWeights()
    clip: float | None = Field(
        default=None,
        gt=0,
        description="largest size of sampling's estimate of the data, where noise or data is predicted",
    )

    @model_validator(mode="after")
    def _sampler_fits(self) -> Self:
        message = None
        if self.prediction == "noise" and self.sampler != "ddpm":
            message = "prediction = 'noise' says nothing of the data where sampling starts; use sampler = 'ddpm'"
        elif self.sampler == "shortcut" and not (self.dit.shortcuts and self.prediction == "v"):
            message = "sampler = 'shortcut' needs a distilled network that predicts v; use another sampler, or distil"
        elif self.sampler == "shortcut" and self.steps not in SHORTCUT_STEPS:
            message = f"sampler = 'shortcut' takes 1, 2, 4 or 8 steps, not {self.steps}; or use sampler = 'heun'"
        if message is not None:
            raise ValueError(message)
        return self


CALODIT = DiffusionSettings(
    dit=DiTSettings(patch=(3, 2, 3), width=144, blocks=4, heads=8, modulation="per-block"),
    schedule="cosine",
    prediction="noise",
    sampler="ddpm",
    steps=400,
    weights=LossWeights(total=0, layers=0, rings=0, hits=0, cells=1),
    clip=6.0,
)
"""The published CaloDiT: 400 steps, cosine schedule, width 144, 8 heads, patches 3 x 2 x 3, 2 + 2 blocks.

It sees cells only, whose latents (`showers.plain`) reach 5.7. The clipping is that of DDPM's code (arXiv:2006.11239):
without it, a network that is not trained to the end deposits hundreds of times the incident energy.
"""


class Diffusion(ShowerGenerator):
    """Denoiser with its schedule.

    A network that predicts v and returns zero samples independent normals, that is, what the normaliser knows without
    it: training only has to find how latents still depend on one another and on the conditions.
    """

    name = "diffusion"

    def __init__(self, settings: DiffusionSettings, grid: tuple[int, int, int], condition_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.dit = DiT(settings.dit, grid, condition_size, settings.weights.components)
        self.sampler: SamplerName = settings.sampler
        self.steps = settings.steps

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean squared error of the prediction: the weighted sum over the components of the latents."""
        n, rows, device = batch.whole, batch.rows, batch.conditions.device
        angle = draw_angles(self.settings.schedule, n, generator)[rows].to(device)
        noise = Latents.noise(n, batch.latents.grid, generator)[rows].to(device)
        noisy = mix(batch.latents, noise, angle.sin(), angle.cos())
        target = {
            "v": lambda: mix(batch.latents, noise, angle.cos(), -angle.sin()),
            "data": lambda: batch.latents,
            "noise": lambda: noise,
        }[self.settings.prediction]()
        return self.error(self.denoise(noisy, angle / (math.pi / 2), batch.conditions), target)

    @property
    def sees_cells(self) -> bool:
        """See `ShowerGenerator.sees_cells`."""
        return "cells" in self.settings.weights.components

    def denoise(
        self, noisy: Latents, time: Float[Tensor, "n"], conditions: Conditions, step: Float[Tensor, "n"] | None = None
    ) -> Latents:
        """The network's prediction at `time` = 2 angle / pi, for a sampler's step of length `step` (`DiT.forward`)."""
        return self.dit(noisy, time, conditions, step)  # type: ignore[no-any-return]

    def error(self, predicted: Latents, target: Latents) -> Float[Tensor, ""]:
        """Weighted sum of the mean squared errors of the components."""
        errors = [
            weight * ((getattr(predicted, component) - getattr(target, component)) ** 2).mean()
            for component, weight in self.settings.weights
            if weight
        ]
        return torch.stack(errors).sum()

    def velocity(
        self, x: Latents, angle: float, conditions: Conditions, step: Float[Tensor, "n"] | None = None
    ) -> Latents:
        """The network's estimate of v = cos(a) data - sin(a) noise, at an angle that all showers share.

        It says something of the components with a weight only. `step` is as in `denoise`.
        """
        time = torch.full((conditions.shape[0],), angle / (math.pi / 2), device=conditions.device)
        predicted = self.denoise(x, time, conditions, step)
        return x.combine(predicted, lambda a, b: self._velocity(a, b, angle))

    def _velocity(self, x: Tensor, predicted: Tensor, angle: float) -> Tensor:
        """The v of the network's output; a clamp keeps the angle off the ends, where noise or data say nothing of v."""
        if self.settings.prediction == "v":
            return predicted
        sine, cosine = max(math.sin(angle), 1e-2), max(math.cos(angle), 1e-2)
        data = predicted if self.settings.prediction == "data" else (x - cosine * predicted) / sine
        if self.settings.clip is not None:
            data = data.clamp(-self.settings.clip, self.settings.clip)
        return (data - sine * x) / cosine

    def choose(self, sampler: SamplerName | None = None, steps: int | None = None) -> None:
        """Sets the sampler and its steps; None leaves them as they are.

        Raises:
            ConfigError: the network cannot be sampled so.
        """
        wanted = {"sampler": sampler or self.sampler, "steps": steps or self.steps}
        chosen = DiffusionSettings.build({**self.settings.model_dump(), **wanted}, source="sampling")
        self.sampler, self.steps = chosen.sampler, chosen.steps

    @torch.no_grad()
    def sample(self, conditions: Conditions, generator: torch.Generator) -> Latents:
        """See `ShowerGenerator.sample`; `choose` sets the sampler."""
        noise = Latents.noise(len(conditions), self.dit.patching.grid, generator).to(conditions.device)
        return self.sample_from_noise(noise, conditions, generator)

    @torch.no_grad()
    def sample_from_noise(
        self, noise: Latents, conditions: Conditions, generator: torch.Generator | None = None
    ) -> Latents:
        """The showers that the sampler makes of standard normal `noise`; `ddpm` draws more of it from `generator`."""
        grid, device = self.dit.patching.grid, conditions.device
        step = torch.full((conditions.shape[0],), 1 / self.steps, device=device) if self.sampler == "shortcut" else None

        def velocity(flat: Tensor, angle: float) -> Tensor:
            return self.velocity(Latents.from_flat(flat, grid), angle, conditions, step).flat()

        drawn = Latents.from_flat(sample(velocity, noise.flat(), self.sampler, self.steps, generator), grid)
        return replace(
            noise, **{component: getattr(drawn, component) for component in self.settings.weights.components}
        )


def mix(a: Latents, b: Latents, alpha: Float[Tensor, "n"], beta: Float[Tensor, "n"]) -> Latents:
    """The sum alpha a + beta b, with one alpha and beta per shower."""

    def both(x: Tensor, y: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 1)
        return alpha.reshape(shape) * x + beta.reshape(shape) * y

    return a.combine(b, both)
