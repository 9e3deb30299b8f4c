from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.showers.marginals import LEVELS, ConditionalMarginals, dequantise, fit_marginals

SCORES = stats.norm.ppf(LEVELS)
KNOTS = torch.tensor([0.0, 1.0, 2.0])


def lognormal(t0: float, mu: float = 0.0, sigma: float = 1.0, *, extrapolate: bool = False) -> ConditionalMarginals:
    """One site: zero below t0, else lognormal, with mu growing by one per unit of context."""
    quantiles = torch.from_numpy(mu + np.arange(3)[:, None] + sigma * SCORES)[None].float()
    return ConditionalMarginals(KNOTS, torch.full((1, 3), t0), quantiles, torch.ones(1, 3), extrapolate)


@st.composite
def tables(draw: Callable) -> ConditionalMarginals:
    n_levels = len(LEVELS)
    steps = draw(st.lists(st.floats(0, 2), min_size=3 * n_levels, max_size=3 * n_levels))
    start = draw(st.lists(st.floats(-10, 5), min_size=3, max_size=3))
    t0 = draw(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
    quantiles = torch.tensor(steps).reshape(1, 3, n_levels).cumsum(-1) + torch.tensor(start)[None, :, None]
    return ConditionalMarginals(KNOTS, torch.tensor([t0]), quantiles, torch.ones(1, 3), draw(st.booleans()))


contexts = st.floats(-2, 4, width=32)


def apply(function: Callable, values: np.ndarray | list[float], x: float) -> torch.Tensor:
    """`function` on values of one site in one context."""
    result = function(torch.as_tensor(values, dtype=torch.float32)[None, None], torch.full((1, 1), x))
    return (result[0] if isinstance(result, tuple) else result)[0, 0]


@pytest.mark.parametrize("t0", [-4.0, -1.0, 0.0, 1.5])
@pytest.mark.parametrize("x", [0.0, 0.25, 2.0])
def test_latents_of_a_lognormal_follow_the_formula(t0: float, x: float) -> None:
    energy = np.exp(x + np.linspace(-3, 3, 13))  # the tables are exact for a lognormal, tails included
    p0 = stats.norm.cdf(t0)
    expected = stats.norm.isf((1 - p0) * stats.norm.sf(np.log(energy) - x))
    torch.testing.assert_close(
        apply(lognormal(t0).to_latent, energy, x), torch.from_numpy(expected).float(), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("t0", [-2.0, 0.5])
def test_normal_latents_have_the_wanted_zeros_and_spectrum(t0: float) -> None:
    latent = torch.randn(20_000, generator=torch.Generator().manual_seed(1)).double().numpy()
    energy = apply(lognormal(t0).to_energy, latent, 1.0).numpy()
    hits = energy[energy > 0]
    assert stats.binomtest(int((energy == 0).sum()), len(energy), stats.norm.cdf(t0)).pvalue > 1e-3
    assert stats.kstest(np.log(hits), stats.norm(1.0, 1.0).cdf).pvalue > 1e-3


@given(tables(), contexts, st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=20))
def test_energy_never_falls_with_the_latent(table: ConditionalMarginals, x: float, latents: list[float]) -> None:
    energy = apply(table.to_energy, sorted(latents), x)
    # where quantiles coincide a smallest slope keeps the map invertible, which the next level takes back
    assert (energy[1:] >= energy[:-1] * (1 - 1e-3)).all()
    assert (energy >= 0).all()


@given(tables(), contexts, st.lists(st.floats(2**-20, 2**20, width=32), min_size=2, max_size=20))
def test_the_latent_never_falls_with_energy(table: ConditionalMarginals, x: float, energies: list[float]) -> None:
    latent = apply(table.to_latent, sorted(energies), x)
    assert (latent[1:] >= latent[:-1] - 1e-5).all()


@given(tables(), contexts, st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=20))
def test_energies_survive_the_round_trip(table: ConditionalMarginals, x: float, latents: list[float]) -> None:
    """Latents may not: where quantiles coincide many of them stand for one energy."""
    energy = apply(table.to_energy, latents, x)
    again = apply(table.to_energy, apply(table.to_latent, energy, x).nan_to_num(nan=-9.0), x)
    resolved = energy == 0
    # within a rounding of the threshold a hit may come back as a zero, and far out scores are clamped
    near = table.excess(torch.tensor(latents)[None, None], torch.full((1, 1), x))[0, 0].abs() < 2e-2
    assert ((again / energy - 1).abs()[~resolved & ~near] < 2e-2).all()
    assert (again[resolved] == 0).all()


def test_zero_is_nan_until_it_is_dequantised_and_zero_again_after() -> None:
    table = lognormal(0.3)
    latent, t0 = table.to_latent(torch.tensor([[[0.0, 1.0, 0.0]]]), torch.zeros(1, 1))
    assert latent.isnan().tolist() == [[[True, False, True]]]
    torch.testing.assert_close(t0, torch.tensor([[0.3]]))
    drawn = dequantise(latent, t0[..., None], torch.Generator().manual_seed(0))
    assert (drawn[latent.isnan()] < 0.3).all()
    assert drawn[0, 0, 1] == latent[0, 0, 1]
    energy = table.to_energy(drawn, torch.zeros(1, 1))
    assert (energy == 0).tolist() == [[[True, False, True]]]


@pytest.mark.parametrize("t0", [-3.9, -1.0, 0.0, 2.5])
def test_dequantised_zeros_are_a_truncated_normal(t0: float) -> None:
    nan = torch.full((5000,), torch.nan)
    drawn = dequantise(nan, torch.tensor(t0), torch.Generator().manual_seed(4))
    assert stats.kstest(drawn.double().numpy(), stats.truncnorm(-np.inf, t0).cdf).pvalue > 1e-3


def test_a_fit_gives_the_empirical_quantiles() -> None:
    generator = np.random.default_rng(0)
    energy = np.exp(generator.normal(2.0, 0.5, size=(400, 1, 10)))
    energy[generator.random(energy.shape) < 0.3] = 0.0
    table = fit_marginals(energy, np.zeros((400, 1)), np.array([0.0, 1.0]), [[(0, 1.0)]])
    expected = np.quantile(np.log(energy[energy > 0]), LEVELS, method="hazen")
    np.testing.assert_allclose(table.log_quantiles[0, 0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(stats.norm.cdf(table.t0[0, 0]), (energy == 0).mean(), atol=1e-5)
    assert table.weight.tolist() == [[400.0, 0.0]]
    # nothing was seen at the second knot: it takes over the first
    torch.testing.assert_close(table.log_quantiles[0, 1], table.log_quantiles[0, 0])
    torch.testing.assert_close(table.t0[0, 1], table.t0[0, 0])


def test_a_fit_follows_the_context() -> None:
    generator = np.random.default_rng(1)
    x = generator.uniform(0, 4, size=(20_000, 1))
    energy = np.exp(3 * x + generator.normal(size=x.shape))[..., None]
    table = fit_marginals(energy, x, np.linspace(0, 4, 5), [[(0, 1.0)]])
    inner = table.log_quantiles[0, 1:-1, len(LEVELS) // 2].numpy()
    np.testing.assert_allclose(inner, 3.0 * np.arange(1, 4), atol=0.15)


def test_pooled_sites_are_weighted() -> None:
    energy = np.full((10, 2, 3), 1.0)
    energy[:, 1] = np.e
    pool = [[(0, 1.0), (1, 0.5)], [(1, 1.0)]]
    table = fit_marginals(energy, np.zeros((10, 2)), np.array([0.0, 1.0]), pool)
    median = len(LEVELS) // 2
    assert table.log_quantiles[0, 0, median] == 0.0  # two thirds of the weight lie at ln(energy) = 0
    assert table.log_quantiles[0, 0, -1] == 1.0
    assert (table.log_quantiles[1, 0] == 1.0).all()


def test_a_site_that_was_never_hit_decodes_to_zero() -> None:
    energy = np.ones((50, 2, 4))
    energy[:, 1] = 0.0
    table = fit_marginals(energy, np.zeros((50, 2)), np.array([0.0, 1.0]), [[(0, 1.0)], [(1, 1.0)]])
    assert torch.isfinite(table.log_quantiles).all()
    latent = torch.linspace(-3.9, 3.9, 9).expand(1, 2, 9)
    decoded = table.to_energy(latent, torch.zeros(1, 2))
    assert (decoded[0, 1] == 0).all()
    assert (decoded[0, 0] > 0).all()


def test_outside_the_knots_tables_hold_or_go_on() -> None:
    held, further = lognormal(-4.0), lognormal(-4.0, extrapolate=True)
    latent = [1.0]
    torch.testing.assert_close(apply(held.to_energy, latent, 5.0), apply(held.to_energy, latent, 2.0))
    torch.testing.assert_close(
        apply(further.to_energy, latent, 5.0), np.exp(3.0).astype(np.float32) * apply(further.to_energy, latent, 2.0)
    )


def test_crossing_tables_are_made_to_ascend() -> None:
    """Beyond the knots tables are continued linearly; a spread that shrinks with the context would turn negative."""
    spread = torch.tensor([2.0, 1.0, 0.5])[:, None] * torch.from_numpy(SCORES).float()
    table = ConditionalMarginals(KNOTS, torch.full((1, 3), -4.0), spread[None], torch.ones(1, 3), extrapolate=True)
    energy = apply(table.to_energy, torch.linspace(-3, 3, 50), 6.0)
    assert (energy[1:] >= energy[:-1] * (1 - 1e-3)).all()
    assert energy.max() < 1.01 * energy.min()  # all quantiles have met


def test_shrinking() -> None:
    mine, prior = lognormal(0.0), lognormal(1.0, mu=2.0)
    seen = ConditionalMarginals(mine.knots, mine.t0, mine.log_quantiles, torch.tensor([[0.0, 5.0, 1e9]]))
    shrunk = seen.shrunk_towards(prior, 5.0)
    torch.testing.assert_close(shrunk.t0, torch.tensor([[1.0, 0.5, 0.0]]))
    torch.testing.assert_close(
        shrunk.log_quantiles[0] - mine.log_quantiles[0], torch.tensor([[2.0], [1.0], [0.0]]).expand(3, 13)
    )
    torch.testing.assert_close(seen.shrunk_towards(prior, 1e12).log_quantiles[0, :2], prior.log_quantiles[0, :2])
    torch.testing.assert_close(seen.shrunk_towards(prior, 1e-9).log_quantiles[0, 1:], mine.log_quantiles[0, 1:])


def test_tables_by_name() -> None:
    table = lognormal(0.2, extrapolate=True)
    again = ConditionalMarginals.from_tensors(table.tensors("stage"), "stage", extrapolate=True)
    for name, tensor in table.tensors("stage").items():
        assert torch.equal(again.tensors("stage")[name], tensor)
    assert again.extrapolate
