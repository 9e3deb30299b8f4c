from __future__ import annotations

import math

import numpy as np
from scipy import stats

from metacalo.generators.schedules import draw_angles
from tests.small import seeded

N = 20_000


def test_cosine_is_uniform_in_the_angle() -> None:
    angles = draw_angles("cosine", N, seeded()).double().numpy()
    assert stats.kstest(angles, stats.uniform(0, math.pi / 2).cdf).pvalue > 1e-3


def test_linear_has_logit_normal_times() -> None:
    """On the straight path t x + (1 - t) noise, tan(a) = t / (1 - t), so that ln tan(a) = logit(t) is N(0, 1)."""
    angles = draw_angles("linear", N, seeded()).double().numpy()
    assert stats.kstest(angles, lambda a: stats.norm.cdf(np.log(np.tan(a)))).pvalue > 1e-3
    assert angles.min() > 0
    assert angles.max() < math.pi / 2


def test_the_generator_decides() -> None:
    assert (draw_angles("linear", 5, seeded(1)) == draw_angles("linear", 5, seeded(1))).all()
    assert (draw_angles("linear", 5, seeded(1)) != draw_angles("linear", 5, seeded(2))).any()
