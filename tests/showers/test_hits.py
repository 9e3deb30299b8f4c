from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.normaliser.hits import count_hits, draw_hits, encode_hits, fit_hits
from metacalo.normaliser.marginals import LEVELS, NO_ATOM, ConditionalMarginals, draw_within
from metacalo.normaliser.rings import LOG_ENERGY_KNOTS, LOG_INCIDENT_PLANES
from metacalo.showers import Showers

N_PHI = 16
THRESHOLD = 0.015  # a little less than the smallest cell of the file


@pytest.fixture(scope="module")
def hits(emptied_siw: Showers) -> torch.Tensor:
    return count_hits(torch.from_numpy(emptied_siw.showers))


@pytest.fixture(scope="module")
def table(emptied_siw: Showers, hits: torch.Tensor, rings: torch.Tensor) -> ConditionalMarginals:
    return fit_hits(hits.numpy(), rings.numpy(), emptied_siw.energy, np.random.default_rng(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_table(n_sites: int, mean: float, sigma: float = 1.0) -> ConditionalMarginals:
    """Counts that are normal at all contexts."""
    shape = (n_sites * len(LOG_INCIDENT_PLANES), len(LOG_ENERGY_KNOTS))
    quantiles = mean + sigma * torch.from_numpy(stats.norm.ppf(LEVELS)).float().expand(*shape, -1)
    atoms = (torch.full(shape, -NO_ATOM), torch.full(shape, NO_ATOM))
    knots, planes = (torch.from_numpy(array).float() for array in (LOG_ENERGY_KNOTS, LOG_INCIDENT_PLANES))
    return ConditionalMarginals(knots, *atoms, quantiles, torch.ones(shape), False, planes)


def test_hits_are_cells_with_energy() -> None:
    showers = torch.zeros(1, 2, 4, 1)
    showers[0, 0, [0, 3], 0] = torch.tensor([1e-9, 5.0])
    assert count_hits(showers).tolist() == [[[2], [0]]]


def test_hit_counts_come_back(
    emptied_siw: Showers, hits: torch.Tensor, rings: torch.Tensor, table: ConditionalMarginals
) -> None:
    energy = torch.from_numpy(emptied_siw.energy)
    interval = encode_hits(table, hits, rings, energy, N_PHI)
    lower, upper = interval
    assert (lower <= upper).all()
    assert (lower[hits == 1] == -torch.inf).all()
    assert (upper[hits == N_PHI] == torch.inf).all()
    assert torch.equal((lower == -torch.inf) & (upper == torch.inf), hits == 0)
    latent = draw_within(interval, generator())
    again = draw_hits(table, latent, rings, energy, N_PHI, THRESHOLD)
    assert (again != hits).sum() <= 2e-3 * (hits > 0).sum()  # counts beyond their table are not resolved
    assert torch.equal(again[hits == 0], hits[hits == 0])
    columns = latent.flatten(1).double().numpy()  # in a column showers are independent
    p = np.array([stats.kstest(column, stats.norm.cdf).pvalue for column in columns.T])
    assert (p > 1e-3).mean() > 0.9


def test_normal_latents_have_the_counts_of_the_sample(
    emptied_siw: Showers, hits: torch.Tensor, rings: torch.Tensor, table: ConditionalMarginals
) -> None:
    latent = torch.randn(rings.shape, generator=generator())
    drawn = draw_hits(table, latent, rings, torch.from_numpy(emptied_siw.energy), N_PHI, THRESHOLD)
    # between knots, 1.7 in ln(E) apart, a convex mean is overestimated; `EnergyDependence` takes this out on average
    torch.testing.assert_close(drawn.double().mean((0, 2)), hits.double().mean((0, 2)), rtol=0.06, atol=0)
    # given the energies of its rings, at low and at high incident energy
    for chosen in (emptied_siw.energy < 5e3, emptied_siw.energy > 3e4):
        ratio = drawn[chosen].double().mean() / hits[chosen].double().mean()
        assert float(ratio) == pytest.approx(1, abs=0.04)


def test_a_count_stands_for_the_values_up_to_it() -> None:
    table = normal_table(1, mean=3.0, sigma=2.0)
    hits = torch.tensor([1, 3, 8]).reshape(3, 1, 1)
    ten, energy = torch.full((3, 1, 1), 10.0), torch.full((3,), 1e4)
    lower, upper = encode_hits(table, hits, ten, energy, 8)
    torch.testing.assert_close(upper.flatten()[:2], torch.tensor([-1.0, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(lower.flatten()[1:], torch.tensor([-0.5, 2.0]), atol=1e-4, rtol=0)
    assert lower[0] == -torch.inf
    assert upper[2] == torch.inf
    latent = torch.tensor([-4.0, -0.51, -0.49, -0.01, 0.01, 4.0]).reshape(6, 1, 1)
    counts = draw_hits(table, latent, torch.full((6, 1, 1), 10.0), torch.full((6,), 1e4), 8, 1e-3)
    assert counts.flatten().tolist() == [1, 2, 3, 3, 4, 8]


@given(st.integers(0, 10_000), st.floats(0, 20))
def test_a_ring_has_a_hit_if_it_has_energy_and_no_more_than_the_threshold_allows(seed: int, mean: float) -> None:
    rings = torch.exp(torch.empty(30, 2, 3).uniform_(-5, 5, generator=generator(seed)))
    rings[torch.rand(rings.shape, generator=generator(seed + 1)) < 0.2] = 0
    latent = 2 * torch.randn(30, 2, 3, generator=generator(seed + 2))
    hits = draw_hits(normal_table(2, mean), latent, rings, torch.full((30,), 1e4), N_PHI, THRESHOLD)
    assert torch.equal(hits > 0, rings > 0)
    assert (hits <= N_PHI).all()
    assert (hits * THRESHOLD <= rings * (1 + 1e-4)).logical_or(hits <= 1).all()


def test_counts_depend_on_the_incident_energy_at_the_same_ring_energy() -> None:
    rng = np.random.default_rng(0)
    n = 6000
    energy = np.exp(rng.uniform(np.log(1e3), np.log(1e5), n))
    mean = 4 + 2 * np.log10(energy / 1e3)
    hits = np.clip(np.ceil(mean + rng.normal(size=n)), 1, N_PHI).astype(np.int64)[:, None, None]
    rings = np.exp(rng.uniform(np.log(1), np.log(100), (n, 1, 1)))
    table = fit_hits(hits, rings, energy, rng)
    median = torch.zeros(4, 1, 1)
    at = torch.tensor([1e3, 1e4, 1e5, 1e6])
    values = table.inverse(median.flatten(1)[..., None], torch.full((4, 1), 2.3), None, torch.log(at)[:, None])
    # the value is spread over (n - 1, n]: half a count less than the ceiling, which is half a count more
    np.testing.assert_allclose(values.flatten(), [4, 6, 8, 8], atol=0.25)


def test_layers_share_tables_by_five() -> None:
    rng = np.random.default_rng(0)
    hits = np.broadcast_to(np.array([2] * 5 + [6] * 2), (50, 3, 7))
    table = fit_hits(hits, np.full((50, 3, 7), 10.0), np.full(50, 1e4), rng)
    assert table.quantiles.shape == (3 * 2 * len(LOG_INCIDENT_PLANES), len(LOG_ENERGY_KNOTS), len(LEVELS))
    drawn = draw_hits(table, torch.zeros(1, 3, 7), torch.full((1, 3, 7), 10.0), torch.tensor([1e4]), N_PHI, THRESHOLD)
    assert drawn[0].tolist() == [[2] * 5 + [6] * 2] * 3
