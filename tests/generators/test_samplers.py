"""Samplers on a Gaussian, for which everything is known.

Data N(m, s^2) and x_a = sin(a) data + cos(a) noise give x_a ~ N(sin(a) m, q(a)) with q = sin^2(a) s^2 + cos^2(a), and
by regression of the jointly normal (data, noise) on x_a

    E[data | x]  = m + sin(a) s^2 / q (x - sin(a) m),    E[noise | x] = cos(a) / q (x - sin(a) m)
    v(x, a)      = cos(a) E[data | x] - sin(a) E[noise | x] = cos(a) m + sin(a) cos(a) (s^2 - 1) / q (x - sin(a) m).

The flow dx/da = v keeps the standard score, so that noise z arrives at m + s z.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metacalo.generators.samplers import SamplerName, sample
from tests.small import seeded

MEAN, SIGMA = 1.5, 0.4
ALL: tuple[SamplerName, ...] = ("ddpm", "ddim", "euler", "heun", "ab2")
DETERMINISTIC = ALL[1:]


def velocity(x: Tensor, angle: float) -> Tensor:
    sine, cosine = math.sin(angle), math.cos(angle)
    variance = sine**2 * SIGMA**2 + cosine**2
    return cosine * MEAN + sine * cosine * (SIGMA**2 - 1) / variance * (x - sine * MEAN)


def noise(n: int = 20_000) -> Tensor:
    return torch.randn(n, 1, generator=seeded(), dtype=torch.float64)


def test_the_velocity_by_monte_carlo() -> None:
    z, data = noise(400_000), MEAN + SIGMA * torch.randn(400_000, 1, generator=seeded(1), dtype=torch.float64)
    for angle in (0.3, 0.8, 1.3):
        x = math.sin(angle) * data + math.cos(angle) * z
        near = (x - 1.2).abs() < 0.05
        measured = (math.cos(angle) * data - math.sin(angle) * z)[near]
        error = float(measured.std()) / len(measured) ** 0.5
        expected = float(velocity(x[near], angle).mean())
        assert abs(float(measured.mean()) - expected) < 4 * error


@pytest.mark.parametrize("sampler", ALL)
def test_a_gaussian_is_recovered(sampler: SamplerName) -> None:
    # ancestral sampling leaves out the spread of the data given x, which costs a variance of order 1 / steps
    result = sample(velocity, noise(), sampler, 1000 if sampler == "ddpm" else 100, seeded(2))
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(result.std()) == pytest.approx(SIGMA, rel=0.02)
    scores = (result - result.mean()) / result.std()
    assert float((scores**3).mean()) == pytest.approx(0, abs=0.06)
    assert float((scores**4).mean()) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("ab2", 2)])
def test_order_of_convergence_to_the_exact_flow(sampler: SamplerName, order: int) -> None:
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = MEAN + SIGMA * z
    steps = np.array([40, 80, 160, 320])
    errors = [float((sample(velocity, z, sampler, int(n), seeded()) - exact).abs().max()) for n in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ab2"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_velocity_leaves_the_noise_as_it_is(sampler: SamplerName, steps: int) -> None:
    z = noise(50)
    assert torch.equal(sample(lambda x, _: torch.zeros_like(x), z, sampler, steps, seeded()), z)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_known_data_is_reached_exactly(sampler: SamplerName, steps: int) -> None:
    """Where the data is one point its estimate never errs: v = (data - sin(a) x) / cos(a)."""
    point = torch.tensor([[0.3, -1.7]], dtype=torch.float64)

    def exact(x: Tensor, angle: float) -> Tensor:
        return (point - math.sin(angle) * x) / math.cos(angle)

    z = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(sample(exact, z, sampler, steps, seeded()), point.expand(5, 2))


@pytest.mark.parametrize(("sampler", "evaluations"), [("ddpm", 6), ("ddim", 6), ("euler", 6), ("heun", 11), ("ab2", 6)])
def test_number_of_evaluations_and_their_angles(sampler: SamplerName, evaluations: int) -> None:
    angles = []

    def counted(x: Tensor, angle: float) -> Tensor:
        angles.append(angle)
        return velocity(x, angle)

    sample(counted, noise(3), sampler, 6, seeded())
    assert len(angles) == evaluations
    assert min(angles) == 0
    assert max(angles) == pytest.approx(5 / 6 * math.pi / 2)


@pytest.mark.parametrize("sampler", ALL)
def test_only_ancestral_sampling_draws(sampler: SamplerName) -> None:
    def run(seed: int) -> Tensor:
        return sample(velocity, noise(20), sampler, 5, seeded(seed))

    assert torch.equal(run(1), run(1))
    assert torch.equal(run(1), run(2)) == (sampler in DETERMINISTIC)


def ancestral_deviation(steps: int) -> float:
    """Standard deviation after DDPM's steps x -> c x + k E[data | x] + noise, all of them linear in x."""
    step, variance = math.pi / 2 / steps, 1.0
    for i in range(steps):
        a, b = i * step, (i + 1) * step
        ratio = math.sin(a) / math.sin(b)
        added = math.cos(a) ** 2 - ratio**2 * math.cos(b) ** 2
        slope = math.sin(a) * SIGMA**2 / (math.sin(a) ** 2 * SIGMA**2 + math.cos(a) ** 2)  # of E[data | x]
        gain = (ratio * math.cos(b) ** 2 + math.sin(b) * added * slope) / math.cos(a) ** 2
        variance = gain**2 * variance + math.cos(b) ** 2 / math.cos(a) ** 2 * added
    return math.sqrt(variance)


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_ancestral_sampling_has_the_variance_of_its_posterior(steps: int) -> None:
    result = sample(velocity, noise(), "ddpm", steps, seeded(3))
    expected = ancestral_deviation(steps)
    assert expected < 0.95 * SIGMA
    assert float(result.std()) == pytest.approx(expected, rel=0.02)
