"""Few-step sampling: a network that also knows the mean velocity of a whole sampler step.

A sampler's step from the angle a to a + h (see `schedules`) is x + h s(x, a, h), where s is the mean of v along the
way. The network that predicts v = s(x, a, 0) takes h as a second time (`DiT`, `shortcuts`), as in shortcut models
(arXiv:2410.12557), so that one network serves 1, 2, 4 and 8 steps, and any solver at h = 0. A step is two of its half:

    s(x, a, h) = (s(x, a, h / 2) + s(x', a + h / 2, h / 2)) / 2,   x' = x + (h / 2) s(x, a, h / 2)

Why this and not its relatives. Progressive distillation (arXiv:2202.00512) needs a training for each halving and ends
with a network for one number of steps. Consistency models (arXiv:2303.01469) only know the jump to the end of the path
and add noise again between jumps, where an error of the jump comes in anew. Both, in the angle parametrisation, keep
cos(h) x + sin(h) s, for which a network of zeros is wrong; here it is exact for every h where latents are white, which
is nearly so by construction, and distilling only has to learn what is left.

Three things differ from shortcut models, so that minutes are enough. The network is a trained one, and what it knew is
its teacher: the shortest step learns the midpoint rule of the teacher's v, and steps of no length learn the teacher's v
in the place of the data's, so that all targets are functions of (x, a, h) without noise, and v stays what it was: the
solvers and adaptation, whose loss only knows v, find it as they left it. And longer steps learn from the network as it
is and not from its average, which lags behind (arXiv:2310.14189, section 3.2). The teacher lives in memory while the
stage runs; a base keeps one network with 32 more inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.errors import ConfigError
from metacalo.generators.base import Batch
from metacalo.generators.diffusion import Diffusion, DiffusionSettings, mix
from metacalo.generators.samplers import SHORTCUT_STEPS
from metacalo.generators.schedules import draw_angles
from metacalo.normaliser.latents import Latents

__all__ = ["Field", "ShortcutSteps", "distillation_loss", "distilled", "midpoint", "two_halves"]

ShortcutSteps = Literal[1, 2, 4, 8]

Field = Callable[[Latents, Tensor, Tensor], Latents]
"""(x, time, step) to the mean velocity from `time` on over `step`, both (n,) in units of pi/2 rad."""


def distilled(settings: DiffusionSettings, steps: ShortcutSteps) -> DiffusionSettings:
    """The settings of the network after distillation, which is then sampled in `steps` steps.

    Raises:
        ConfigError: the network does not predict v.
    """
    if settings.prediction != "v":
        raise ConfigError(f"distil: the network predicts {settings.prediction}, not v; leave the stage out")
    values = settings.model_dump()
    values["dit"]["shortcuts"] = True
    return DiffusionSettings.build({**values, "sampler": "shortcut", "steps": steps}, source="distil")


def midpoint(velocity: Field, x: Latents, time: Float[Tensor, "n"], step: Float[Tensor, "n"]) -> Latents:
    """The mean of v over a step by the midpoint rule; v itself for a step of no length."""
    none, half = torch.zeros_like(step), step / 2
    return velocity(_advance(x, velocity(x, time, none), half), time + half, none)


def two_halves(shortcut: Field, x: Latents, time: Float[Tensor, "n"], step: Float[Tensor, "n"]) -> Latents:
    """The mean velocity over a step, of the shortcuts over its halves."""
    half = step / 2
    first = shortcut(x, time, half)
    second = shortcut(_advance(x, first, half), time + half, half)
    return first.combine(second, lambda a, b: (a + b) / 2)


def _advance(x: Latents, velocity: Latents, step: Float[Tensor, "n"]) -> Latents:
    return mix(x, velocity, torch.ones_like(step), math.pi / 2 * step)


def distillation_loss(
    student: Diffusion, teacher: Diffusion, batch: Batch, generator: torch.Generator
) -> Float[Tensor, ""]:
    """Mean squared error of the student's mean velocities, weighted as the training loss.

    A fifth of the showers has steps of no length at angles as in training, the others have steps of pi/2 over 1, 2, 4
    and 8, each starting where a step of a sampler may start.

    Args:
        student: knows step sizes.
        teacher: predicts v.
        batch: training showers.
        generator: of angles and noise.
    """
    n, rows, device = batch.whole, batch.rows, batch.conditions.device
    time, step = (values[rows].to(device) for values in _draw_steps(student, n, generator))
    noise = Latents.noise(n, batch.latents.grid, generator)[rows].to(device)
    angle = math.pi / 2 * time
    x = mix(batch.latents, noise, angle.sin(), angle.cos())
    target = _targets(student, teacher, x, time, step, batch.conditions)
    return student.error(student.denoise(x, time, batch.conditions, step), target)


def _draw_steps(model: Diffusion, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Where steps start, and their lengths; neighbours differ in length, since a batch is sorted by task."""
    trained = draw_angles(model.settings.schedule, n, generator) / (math.pi / 2)
    uniform = torch.rand(n, generator=generator)
    kind = torch.arange(n) % (1 + len(SHORTCUT_STEPS))
    number = torch.tensor((1, *SHORTCUT_STEPS))[kind]
    none = kind == 0
    return torch.where(none, trained, (uniform * number).floor() / number), torch.where(none, 0.0, 1 / number)


@torch.no_grad()
def _targets(
    student: Diffusion, teacher: Diffusion, x: Latents, time: Tensor, step: Tensor, conditions: Tensor
) -> Latents:
    shortest = step <= 1 / max(SHORTCUT_STEPS)
    target = torch.empty_like(x.flat())
    for rows, rule, model in ((shortest, midpoint, teacher), (~shortest, two_halves, student)):

        def field(x: Latents, time: Tensor, step: Tensor, rows: Tensor = rows, model: Diffusion = model) -> Latents:
            return model.denoise(x, time, conditions[rows], step if model is student else None)

        target[rows] = rule(field, x[rows], time[rows], step[rows]).flat()
    return Latents.from_flat(target, x.grid)
