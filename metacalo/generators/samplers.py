"""Samplers: from noise at angle 0 to a shower at angle pi/2 (see `schedules`), in equal steps of the angle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

__all__ = ["SHORTCUT_STEPS", "Denoiser", "SamplerName", "sample"]

SamplerName = Literal["ddpm", "ddim", "euler", "heun", "ab2", "shortcut"]
SHORTCUT_STEPS = (1, 2, 4, 8)
"""Numbers of steps that a distilled network knows."""
Denoiser = Callable[[Tensor, float], Tensor]
"""(x, angle) to the estimate of v = cos(a) data - sin(a) noise."""


def sample(
    velocity: Denoiser, noise: Tensor, sampler: SamplerName, steps: int, generator: torch.Generator | None
) -> Tensor:
    """Carries `noise` (n, ...) to a sample in `steps` steps.

    ddpm: ancestral sampling with the posterior variance (arXiv:2006.11239), `steps` evaluations.
    ddim: deterministic, keeps the estimates of data and noise (arXiv:2010.02502), `steps` evaluations.
    euler: first order on dx/da = v, `steps` evaluations; exact where v = 0.
    heun: second order, 2 `steps` - 1 evaluations (the last step is Euler's: nothing is evaluated on clean data).
    ab2: Adams-Bashforth, second order from past evaluations, `steps` evaluations.
    shortcut: `euler` whose `velocity` is the mean over the step, which a distilled network knows (`distillation`).
    """
    step = math.pi / 2 / steps
    x = noise
    last: Tensor | None = None
    for i in range(steps):
        angle = i * step
        v = velocity(x, angle)
        if sampler == "ddpm":
            x = _ancestral(x, v, angle, angle + step, generator)
        elif sampler == "ddim":
            x = math.cos(step) * x + math.sin(step) * v
        elif sampler == "heun" and i < steps - 1:
            x = x + step / 2 * (v + velocity(x + step * v, angle + step))
        elif sampler == "ab2" and last is not None:
            x = x + step * (1.5 * v - 0.5 * last)
        else:
            x = x + step * v
        last = v
    return x


def _ancestral(x: Tensor, v: Tensor, angle: float, to: float, generator: torch.Generator | None) -> Tensor:
    """Draws from q(x_to | x, estimate of the data): DDPM's posterior in angles."""
    data = math.sin(angle) * x + math.cos(angle) * v
    alpha, sigma, alpha_to, sigma_to = math.sin(angle), math.cos(angle), math.sin(to), math.cos(to)
    ratio = alpha / alpha_to
    step_variance = max(0.0, sigma**2 - ratio**2 * sigma_to**2)
    mean = ratio * sigma_to**2 / sigma**2 * x + alpha_to * step_variance / sigma**2 * data
    deviation = math.sqrt(sigma_to**2 / sigma**2 * step_variance)
    if deviation < 1e-6:
        return mean
    return mean + deviation * torch.randn(x.shape, generator=generator).to(x.device)
