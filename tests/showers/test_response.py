from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from metacalo.normaliser.condition_vector import energy_coordinate
from metacalo.normaliser.marginals import LEVELS, draw_within
from metacalo.normaliser.response import Response, fit_response

MEAN = np.array([-0.05, 0.04, -0.02, 0.03])
LOG_WIDTH = np.array([np.log(0.06), -0.6])
N = 4000


def synthetic(n: int = N, seed: int = 0, slope: float = LOG_WIDTH[1]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses of known parameters, with normal q; `slope` is that of ln s."""
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(np.log(1e3), np.log(1e5), n))
    theta = rng.uniform(0, np.pi, n)
    location, width = location_and_width(energy, theta, slope)
    return np.exp(location + width * rng.normal(size=n)), energy, theta


def location_and_width(
    energy: np.ndarray, theta: np.ndarray, slope: float = LOG_WIDTH[1]
) -> tuple[np.ndarray, np.ndarray]:
    u = 2 * np.log(energy / 1e3) / np.log(100) - 1
    location = MEAN[0] + MEAN[1] * u + MEAN[2] * u**2 + MEAN[3] * np.cos(theta) ** 2
    return location, np.exp(LOG_WIDTH[0] + slope * u)


def single(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array.astype(np.float32)) for array in arrays)


@pytest.fixture(scope="module")
def fitted() -> Response:
    return fit_response(*synthetic())


def test_known_parameters_are_recovered_within_their_errors(fitted: Response) -> None:
    _, energy, theta = synthetic()
    u = energy_coordinate(torch.from_numpy(energy)).numpy()
    _, width = location_and_width(energy, theta)
    basis = np.stack([np.ones(N), u, u**2, np.cos(theta) ** 2], axis=1)
    error = np.sqrt(np.diag(np.linalg.inv(basis.T @ (basis / width[:, None] ** 2))))
    assert (np.abs(fitted.mean.numpy() - MEAN) < 4 * error).all()
    lines = np.stack([np.ones(N), u], axis=1)
    error = np.sqrt(np.diag(np.linalg.inv(2 * lines.T @ lines)))  # Fisher information of ln s: 2 per shower
    assert (np.abs(fitted.log_width.numpy() - LOG_WIDTH) < 4 * error).all()
    quantiles = fitted.shape.quantiles[0, 0].numpy()
    expected = stats.norm.ppf(LEVELS)
    error = np.sqrt(np.multiply(LEVELS, 1 - np.array(LEVELS)) / N) / stats.norm.pdf(expected)
    assert (np.abs(quantiles - expected)[1:-1] < 4 * error[1:-1]).all()
    assert fitted.weight == N


def test_showers_count_by_their_inverse_variances() -> None:
    """Pulls of small samples have variance 1; without the weights they would have 2."""
    pulls = []
    for seed in range(30):
        response, energy, theta = synthetic(300, seed, slope=-1.2)
        u = energy_coordinate(torch.from_numpy(energy)).numpy()
        basis = np.stack([np.ones(300), u, u**2, np.cos(theta) ** 2], axis=1)
        width = np.exp(LOG_WIDTH[0] - 1.2 * u)
        error = np.sqrt(np.diag(np.linalg.inv(basis.T @ (basis / width[:, None] ** 2))))
        pulls.append((fit_response(response, energy, theta).mean.numpy() - MEAN) / error)
    assert 0.6 < np.mean(np.square(pulls)) < 1.4


def test_latents_of_the_sample_are_standard_normal_at_all_energies_and_angles(fitted: Response) -> None:
    response, energy, theta = single(*synthetic(seed=1))
    latent = fitted.forward(response, energy, theta).lower.double().numpy()
    assert stats.kstest(latent, stats.norm.cdf).pvalue > 1e-3
    for context in (np.log(energy.numpy()), np.cos(theta.numpy()) ** 2):
        for power in (1, 2):
            assert stats.pearsonr(latent**power, context).pvalue > 1e-4


def test_responses_survive_the_round_trip(fitted: Response) -> None:
    response, energy, theta = single(*synthetic(seed=2))
    lower, upper = fitted.forward(response, energy, theta)
    assert torch.equal(lower, upper)
    torch.testing.assert_close(fitted.inverse(lower, energy, theta), response, rtol=2e-5, atol=0)


def test_empty_showers_have_their_own_share_of_the_latents() -> None:
    response, energy, theta = synthetic()
    response[np.random.default_rng(3).random(N) < 0.2] = 0.0
    fitted = fit_response(response, energy, theta)
    assert fitted.weight == (response > 0).sum()
    tensors = single(response, energy, theta)
    interval = fitted.forward(*tensors)
    drawn = draw_within(interval, torch.Generator().manual_seed(0))
    assert stats.kstest(drawn.double().numpy(), stats.norm.cdf).pvalue > 1e-3
    empty = torch.from_numpy(response == 0)
    assert (interval.lower[empty] == -torch.inf).all()
    np.testing.assert_allclose(stats.norm.cdf(interval.upper[empty]), (response == 0).mean(), rtol=1e-5)
    again = fitted.inverse(drawn, *tensors[1:])
    assert torch.equal(again == 0, empty)
    torch.testing.assert_close(again, tensors[0], rtol=2e-5, atol=0)


def test_beyond_the_trained_range_the_mean_is_held(fitted: Response) -> None:
    theta, median = torch.full((2,), torch.pi / 2), torch.zeros(2)
    edge = 10 ** (3 + (1.2 + 1))  # u = 1.2, in MeV
    shape = fitted.shape.inverse(torch.zeros(1, 1, 1), torch.zeros(1, 1))
    inside, outside = torch.log(fitted.inverse(median, torch.tensor([edge, 3 * edge]), theta))
    assert abs(float(shape)) < 0.1  # of a width that is below 2 % there
    torch.testing.assert_close(outside, inside, atol=2e-3, rtol=0)
    farther = torch.log(fitted.inverse(median, torch.tensor([1e5, edge]), theta))
    assert float(farther[1] - farther[0]) == pytest.approx(0.2 * MEAN[1] + 0.44 * MEAN[2], abs=3e-3)


@pytest.mark.parametrize("edge", [-1.2, 2.0])
def test_far_beyond_the_trained_range_the_width_is_held(fitted: Response, edge: float) -> None:
    energy = 10 ** (4 + edge * torch.tensor([0.0, 1.0, 1.2, 2.5]))  # u = 0, at the edge, beyond it, in MeV
    theta = torch.full((4,), torch.pi / 2)
    low, high = (torch.log(fitted.inverse(torch.full((4,), q), energy, theta)) for q in (-1.0, 1.0))
    width = high - low
    torch.testing.assert_close(width[2:], width[1].expand(2), rtol=1e-4, atol=0)
    assert float(torch.log(width[1] / width[0])) == pytest.approx(edge * LOG_WIDTH[1], abs=0.1)


def test_the_width_is_fitted_where_it_is_held() -> None:
    rng = np.random.default_rng(1)
    energy = np.concatenate([np.exp(rng.uniform(np.log(1e3), np.log(1e5), 1000)), np.full(1000, 1e7)])
    u = np.minimum(2 * np.log(energy / 1e3) / np.log(100) - 1, 2.0)
    response = np.exp(np.exp(np.log(0.05) - 0.6 * u) * rng.normal(size=2000))
    theta = np.full(2000, np.pi / 2)
    fitted = fit_response(response, energy, theta)
    latent = fitted.forward(*single(response, energy, theta)).lower
    for part in (latent[:1000], latent[1000:]):
        assert float(part.std()) == pytest.approx(1, abs=0.1)


def test_shots_beyond_the_trained_range_have_latents_without_bias() -> None:
    rng = np.random.default_rng(0)
    energy = np.concatenate([np.exp(rng.uniform(np.log(1e3), np.log(1e5), 1000)), np.full(1000, 1e6)])
    response = np.exp(0.1 * np.log10(energy / 1e3) + 0.02 * rng.normal(size=2000))
    tensors = single(response, energy, np.full(2000, np.pi / 2))
    fitted = fit_response(response, energy, np.full(2000, np.pi / 2))
    latent = fitted.forward(*tensors).lower[1000:]
    assert abs(float(latent.mean())) < 0.2


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_showers_gives_their_level_and_a_usual_width(n: int) -> None:
    response, energy, theta = synthetic(n)
    fitted = fit_response(response, energy, theta)
    np.testing.assert_allclose(torch.exp(fitted.log_width), [0.05, 1.0], rtol=1e-6)
    np.testing.assert_allclose(fitted.shape.quantiles[0, 0], stats.norm.ppf(LEVELS), rtol=1e-4)
    latents = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    _, energies, angles = single(*synthetic(1000))
    drawn = fitted.inverse(latents, energies, angles)
    assert float(torch.log(drawn).mean()) == pytest.approx(float(np.log(response).mean()), abs=0.15)


def test_vector_and_tensors_round_trip(fitted: Response) -> None:
    again = Response.from_vector(fitted.vector(), fitted.weight)
    loaded = Response.from_tensors(fitted.tensors())
    _, energy, theta = single(*synthetic(50))
    latents = torch.randn(50, generator=torch.Generator().manual_seed(0))
    expected = fitted.inverse(latents, energy, theta)
    for other in (again, loaded):
        assert torch.equal(other.vector(), fitted.vector())
        assert torch.equal(other.inverse(latents, energy, theta), expected)
        assert other.weight == fitted.weight
    assert fitted.vector().shape == (6 + 2 + len(LEVELS),)


def test_shrinking_trusts_the_level_first() -> None:
    mine, prior = torch.zeros(19), torch.cat([torch.ones(8), torch.arange(1.0, 12)])
    fitted = Response.from_vector(mine, 10.0)
    shrunk = fitted.shrunk_towards(Response.from_vector(prior, 0.0), 10.0).vector()
    # the prior counts as 10 showers for the level, as 100 for its slopes, ...
    expected = [10 / 20, 100 / 110, 100 / 110, 200 / 210, 30 / 40, 200 / 210]
    torch.testing.assert_close(shrunk[:6], torch.tensor(expected))
    torch.testing.assert_close(shrunk[6:], prior[6:] * 200 / 210)
    unseen = Response.from_vector(mine, 0.0).shrunk_towards(Response.from_vector(prior, 0.0), 10.0)
    torch.testing.assert_close(unseen.vector(), prior)
    torch.testing.assert_close(fitted.shrunk_towards(fitted, 10.0).vector(), fitted.vector())
