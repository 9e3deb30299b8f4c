"""Noise levels as angles: x_a = sin(a) x + cos(a) noise, from a = 0 (noise) to a = pi/2 (data).

Every Gaussian path alpha x + sigma noise is this one after division by sqrt(alpha^2 + sigma^2), with
tan(a) = alpha / sigma. A schedule therefore only says how often training visits each angle. On this path the
probability-flow ODE is dx/da = v with v = cos(a) x - sin(a) noise, the "v" of progressive distillation
(arXiv:2202.00512), and data without structure (independent unit normals) has v = 0: it needs no step at all.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ScheduleName", "draw_angles"]

ScheduleName = Literal["linear", "cosine"]


def draw_angles(schedule: ScheduleName, n: int, generator: torch.Generator) -> Tensor:
    """Training angles in (0, pi/2), shape (n,).

    linear: the straight path t x + (1 - t) noise of flow matching (arXiv:2210.02747) with logit-normal t
        (arXiv:2403.03206).
    cosine: uniform in the angle, the cosine schedule of Nichol & Dhariwal (arXiv:2102.09672) without its small offset.
    """
    if schedule == "cosine":
        return torch.rand(n, generator=generator) * math.pi / 2
    time = torch.sigmoid(torch.randn(n, generator=generator))
    return torch.atan2(time, 1 - time)
