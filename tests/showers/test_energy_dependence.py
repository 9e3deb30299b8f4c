from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from metacalo.normaliser.energy_dependence import ENERGY_KNOTS, EnergyDependence, fit_energy_dependence, hat_weights
from metacalo.normaliser.marginals import Interval

SIZE = 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_energies(n: int, seed: int = 9) -> torch.Tensor:
    """Spread evenly over the knots, and a little beyond."""
    return torch.empty(n).uniform_(np.log(0.7e3), np.log(1.4e5), generator=generator(seed))


def known(values: torch.Tensor) -> Interval:
    return Interval(values, values)


def drift(seed: int = 0) -> EnergyDependence:
    shape = (len(ENERGY_KNOTS), SIZE)
    mean, log_width = torch.randn(2, *shape, generator=generator(seed))
    mean[:, 0] = log_width[:, 0] = 0.0  # the total
    return EnergyDependence(mean, 0.3 * log_width, torch.full(shape[:1], 100.0))


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0, 1.75, 2.0, -4.0, 9.0])
def test_hat_weights_interpolate(x: float) -> None:
    knots, values = np.array([0.0, 1.0, 2.0]), torch.tensor([3.0, -1.0, 7.0])
    weights = hat_weights(torch.tensor([x]), knots)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights @ values) == pytest.approx(np.interp(x, knots, values), abs=1e-6)


def test_drift_comes_back() -> None:
    structure, x = torch.randn(50, SIZE, generator=generator()), log_energies(50)
    torch.testing.assert_close(drift().forward(drift().inverse(structure, x), x), structure, atol=1e-5, rtol=0)
    torch.testing.assert_close(drift().inverse(drift().forward(structure, x), x), structure, atol=1e-5, rtol=0)
    assert torch.equal(EnergyDependence.none(SIZE).forward(structure, x), structure)


@pytest.mark.parametrize("log_energy", [*ENERGY_KNOTS, 8.3, 10.1, 5.0, 13.0])
def test_drift_is_interpolated_between_knots_and_held_outside(log_energy: float) -> None:
    x = torch.tensor([log_energy])
    mean, log_width = (
        torch.tensor([np.interp(log_energy, ENERGY_KNOTS, column) for column in part.T.numpy()]).float()
        for part in (drift().mean, drift().log_width)
    )
    structure = torch.randn(1, SIZE, generator=generator())
    expected = structure * torch.exp(log_width) + mean
    torch.testing.assert_close(drift().inverse(structure, x), expected, atol=1e-5, rtol=1e-5)


def test_a_known_drift_is_fitted_within_its_errors() -> None:
    n, wild = 20_000, drift()
    true = EnergyDependence(wild.mean, 0.3 * wild.log_width, wild.weight)
    x = log_energies(n)
    white = torch.randn(n, SIZE, generator=generator(1))
    fitted = fit_energy_dependence(known(true.inverse(white, x)), x)
    n_knot = fitted.weight[:, None]
    torch.testing.assert_close(n_knot.sum(), torch.tensor(float(n)))
    width = torch.exp(true.log_width)
    # neighbouring knots share their showers: errors are up to twice 1 / sqrt(n)
    assert ((fitted.mean - true.mean).abs() < 4 * 2 * width / n_knot.sqrt()).all()
    # a line of the variance is not quite the exponential of a line of ln(width)
    assert ((fitted.log_width - true.log_width).abs() < 4 * 2 / (2 * n_knot).sqrt() + 0.01).all()
    steady = fitted.forward(true.inverse(white, x), x)
    for low, high in ((7, 8.5), (8.5, 10), (10, 12)):
        chosen = steady[(x > low) & (x < high)]
        assert (chosen.mean(0).abs() < 6 / len(chosen) ** 0.5).all()
        assert (chosen.std(0) - 1).abs().max() < 0.1


def test_knots_without_showers_follow_their_neighbours() -> None:
    x = torch.full((1000,), float(ENERGY_KNOTS[1]))
    structure = 2 + 0.5 * torch.randn(1000, 3, generator=generator())
    fitted = fit_energy_dependence(known(structure), x)
    torch.testing.assert_close(fitted.mean[:, 1:], torch.full((5, 2), 2.0), atol=0.2, rtol=0)
    torch.testing.assert_close(torch.exp(fitted.log_width[:2, 1:]), torch.full((2, 2), 0.5), atol=0.1, rtol=0)
    assert (torch.exp(fitted.log_width[4]) > 0.52).all()  # and a little the width 1
    assert fitted.weight.tolist() == pytest.approx([0, 1000, 0, 0, 0], abs=1e-2)


def test_the_total_does_not_drift() -> None:
    fitted = fit_energy_dependence(known(5 + 3 * torch.randn(500, 2, generator=generator())), log_energies(500))
    assert (fitted.mean[:, 0] == 0).all()
    assert (fitted.log_width[:, 0] == 0).all()
    assert (fitted.mean[:, 1] > 4).all()


@pytest.mark.parametrize("n", [1, 2])
def test_widths_are_bounded(n: int) -> None:
    scale = torch.tensor([1.0, 1e-3, 1e3])
    fitted = fit_energy_dependence(known(scale * torch.randn(500, 3, generator=generator())), log_energies(500))
    np.testing.assert_allclose(torch.exp(fitted.log_width[:, 1:]), np.tile([0.3, 3.0], (5, 1)), rtol=1e-5)
    few = fit_energy_dependence(known(torch.randn(n, SIZE, generator=generator())), torch.full((n,), 9.0))
    assert torch.isfinite(few.columns()).all()


@pytest.mark.parametrize("seen", [0.5, 0.1, 0.04])
def test_a_drift_of_which_little_is_seen(seen: float) -> None:
    """Of most latents only a side of t0 is known: that a ring is empty."""
    n, x = 40_000, log_energies(40_000)
    mean = torch.tensor([0.0, 0.3, -0.4])
    drawn = mean + torch.tensor([1.0, 0.8, 1.1]) * torch.randn(n, 3, generator=generator())
    t0 = -stats.norm.ppf(seen)
    empty = drawn < t0
    within = Interval(torch.where(empty, -torch.inf, drawn), torch.where(empty, t0, drawn))
    fitted = fit_energy_dependence(within, x)
    rate = stats.norm.sf((t0 - fitted.mean[:, 1:].numpy()) / np.exp(fitted.log_width[:, 1:].numpy()))
    true = stats.norm.sf((t0 - mean[1:].numpy()) / np.array([0.8, 1.1]))
    error = np.sqrt(true * (1 - true) / (n / 4))
    assert (np.abs(rate - true) < 6 * error + 0.02 * true).all()


def test_a_drift_of_which_the_sign_is_known() -> None:
    n = 4000
    within = Interval(
        torch.tensor([0.0, 0.0, -torch.inf]).repeat(n, 1), torch.tensor([0.0, torch.inf, 0.0]).repeat(n, 1)
    )
    one = fit_energy_dependence(within, log_energies(n), EnergyDependence.none(3), strength=1e9)
    assert one.mean.abs().max() < 1e-3
    many = fit_energy_dependence(within, log_energies(n))
    assert (many.mean[:, 1] > np.sqrt(2 / np.pi)).all()  # that of |z|, which one round from N(0, 1) gives
    torch.testing.assert_close(many.mean[:, 1], -many.mean[:, 2], atol=1e-3, rtol=0)


def test_a_prior_counts_as_latents() -> None:
    n, x = 400, torch.full((400,), float(ENERGY_KNOTS[2]))
    values = 1 + torch.randn(n, 2, generator=generator())
    prior = EnergyDependence(torch.full((5, 2), 3.0), torch.zeros(5, 2), torch.zeros(5))
    fitted = fit_energy_dependence(known(values), x, prior, strength=100.0)
    expected = (float(values[:, 1].sum()) + 100 * 3.0) / (n + 100)
    assert float(fitted.mean[2, 1]) == pytest.approx(expected, abs=0.02)  # neighbours pull by a shower's worth
    assert float(fitted.mean[0, 1]) == pytest.approx(3.0, abs=0.05)


def test_shrinking_a_drift() -> None:
    mine, prior = drift(0), drift(1)
    mine = EnergyDependence(mine.mean, mine.log_width, torch.tensor([0.0, 100, 300, 1e9, 0]))
    shrunk = mine.shrunk_towards(prior, 100.0)
    share = torch.tensor([0, 0.5, 0.75, 1, 0])[:, None]
    torch.testing.assert_close(shrunk.mean, share * mine.mean + (1 - share) * prior.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        shrunk.log_width, share * mine.log_width + (1 - share) * prior.log_width, atol=1e-5, rtol=0
    )


def test_columns_and_tensors_of_a_drift() -> None:
    one = drift()
    assert one.columns().shape == (SIZE, len(ENERGY_KNOTS), 2)
    for again in (
        EnergyDependence.from_columns(one.columns(), one.weight),
        EnergyDependence.from_tensors(one.tensors()),
    ):
        assert torch.equal(again.mean, one.mean)
        assert torch.equal(again.log_width, one.log_width)
        assert torch.equal(again.weight, one.weight)
