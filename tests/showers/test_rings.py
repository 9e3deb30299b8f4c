from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.normaliser.marginals import LEVELS, ConditionalMarginals, Interval, draw_within
from metacalo.normaliser.rings import (
    LOG_ENERGY_KNOTS,
    LOG_INCIDENT_PLANES,
    break_rings,
    depth_sites,
    encode_rings,
    fit_rings,
    log_energy,
    ring_of_rows,
)
from metacalo.showers import Showers

THRESHOLD = 0.015


@pytest.fixture(scope="module")
def incident(emptied_siw: Showers) -> torch.Tensor:
    return torch.from_numpy(emptied_siw.energy)


@pytest.fixture(scope="module")
def table(emptied_siw: Showers, rings: torch.Tensor) -> ConditionalMarginals:
    return fit_rings(rings.numpy(), emptied_siw.energy, THRESHOLD)


def ten_gev(n: int) -> torch.Tensor:
    return torch.full((n,), 1e4)


def constant_table(n_sites: int, t0: float, t1: float, mean: float = 0.0) -> ConditionalMarginals:
    """Log-odds that are normal at all contexts and incident energies."""
    shape = (n_sites, len(LOG_ENERGY_KNOTS))
    quantiles = mean + torch.from_numpy(stats.norm.ppf(LEVELS)).float().expand(*shape, -1)
    knots = torch.from_numpy(LOG_ENERGY_KNOTS).float()
    return ConditionalMarginals(knots, torch.full(shape, t0), torch.full(shape, t1), quantiles, torch.ones(shape))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_adds_up(rings: torch.Tensor, layers: torch.Tensor) -> None:
    torch.testing.assert_close(rings.sum(1), layers, rtol=1e-5, atol=0)
    assert (rings >= 0).all()


def test_sites_are_rings_by_blocks_of_three_layers() -> None:
    assert depth_sites(2, 7).tolist() == [[0, 0, 0, 1, 1, 1, 2], [3, 3, 3, 4, 4, 4, 5]]
    assert depth_sites(2, 7, 5).tolist() == [[0, 0, 0, 0, 0, 1, 1], [2, 2, 2, 2, 2, 3, 3]]
    assert depth_sites(9, 45).max() == 9 * 15 - 1


def test_log_energy_is_finite_for_zero() -> None:
    np.testing.assert_allclose(log_energy(torch.tensor([0.0, 1.0, np.e])), [np.log(1e-6), 0, 1], atol=1e-6)


def test_each_ring_takes_its_part_of_what_is_left() -> None:
    layers = torch.tensor([[8.0, 5.0]])
    latent = torch.tensor([[[0.0, 1.0], [0.5, -1.0], [9.0, 9.0]]])
    rings = break_rings(constant_table(2, -8.0, 8.0), latent, layers, ten_gev(1), THRESHOLD)[0]
    first = torch.sigmoid(latent[0, 0])
    second = torch.sigmoid(latent[0, 1])
    inner = THRESHOLD + (layers[0] - 2 * THRESHOLD) * first
    middle = THRESHOLD + (layers[0] - inner - 2 * THRESHOLD) * second
    torch.testing.assert_close(rings[0], inner, rtol=1e-4, atol=0)
    torch.testing.assert_close(rings[1], middle, rtol=1e-4, atol=0)
    torch.testing.assert_close(rings[2], layers[0] - inner - middle, rtol=1e-4, atol=0)


@given(st.integers(0, 1000), st.floats(-6, 4), st.floats(-3, 6), st.floats(-5, 5), st.booleans())
def test_rings_add_up_to_layers_and_none_is_below_the_threshold(
    seed: int, t0: float, width: float, mean: float, all_hit: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers = torch.exp(torch.empty(20, 4).uniform_(np.log(THRESHOLD), np.log(5e3), generator=generator))
    layers = torch.where(torch.rand(20, 4, generator=generator) < 0.8, layers, float(all_hit) * layers)
    table = constant_table(5 * 2, t0, t0 + abs(width), mean)
    rings = break_rings(table, 3 * torch.randn(20, 6, 4, generator=generator), layers, ten_gev(20), THRESHOLD)
    assert_adds_up(rings, layers)
    assert (rings[rings > 0] > THRESHOLD * (1 - 1e-5)).all()


def test_rings_do_not_pile_up_at_the_threshold(
    rings: torch.Tensor, incident: torch.Tensor, table: ConditionalMarginals
) -> None:
    decoded = break_rings(table, noise(*rings.shape), rings.sum(1), incident, THRESHOLD)
    edges = torch.tensor([1.0, 1.5, 3.0, 10.0]) * THRESHOLD
    drawn, true = (torch.histogram(sample[sample > 0], edges).hist for sample in (decoded, rings))
    assert ((drawn - true).abs() < 4 * torch.sqrt(drawn + true)).all()


def test_a_layer_below_the_threshold_keeps_its_energy_in_one_ring() -> None:
    layers = torch.full((50, 3), 0.5 * THRESHOLD)
    rings = break_rings(constant_table(5, -1.0, 2.0), noise(50, 6, 3), layers, ten_gev(50), THRESHOLD)
    assert_adds_up(rings, layers)
    assert ((rings > 0).sum(1) == 1).all()


def test_encoded_rings_come_back(rings: torch.Tensor, incident: torch.Tensor, table: ConditionalMarginals) -> None:
    interval = encode_rings(table, rings, incident, THRESHOLD)
    latent = draw_within(interval, torch.Generator().manual_seed(0))
    again = break_rings(table, latent, rings.sum(1), incident, THRESHOLD)
    assert_adds_up(again, rings.sum(1))
    hit = rings > 0
    # single precision does not resolve values far beyond their table
    assert ((again > 0) != hit).float().mean() < 1e-4
    error = (again / rings - 1).abs()[hit]
    assert error.median() < 1e-6
    assert (error < 1e-3).float().mean() > 0.995
    assert (again[0] == 0).all()


def test_latents_of_the_sample_are_standard_normal(
    rings: torch.Tensor, incident: torch.Tensor, table: ConditionalMarginals
) -> None:
    latent = draw_within(encode_rings(table, rings, incident, THRESHOLD), torch.Generator().manual_seed(1))
    columns = latent.flatten(1).double().numpy()  # in a column showers are independent
    p = np.array([stats.kstest(column, stats.norm.cdf).pvalue for column in columns.T])
    # tables pool layers and contexts, so that not every column is normal; about all are
    assert (p > 1e-3).mean() > 0.9
    assert abs(columns.mean()) < 0.02
    assert abs(columns.std() - 1) < 0.02


def test_normal_latents_have_the_rings_of_the_sample(
    rings: torch.Tensor, incident: torch.Tensor, table: ConditionalMarginals
) -> None:
    decoded = break_rings(table, noise(*rings.shape), rings.sum(1), incident, THRESHOLD)
    expected = (rings > 0).float().mean((0, 2))
    torch.testing.assert_close((decoded > 0).float().mean((0, 2)), expected, atol=0.02, rtol=0)
    expected = rings.sum((0, 2)) / rings.sum()
    torch.testing.assert_close(decoded.sum((0, 2)) / decoded.sum(), expected, atol=0.01, rtol=0)


def test_what_has_no_choice_says_nothing(
    rings: torch.Tensor, incident: torch.Tensor, table: ConditionalMarginals
) -> None:
    lower, upper = encode_rings(table, rings, incident, THRESHOLD)
    free = (lower == -torch.inf) & (upper == torch.inf)
    assert free[:, -1].all()  # the outermost ring takes what is left
    assert free[0].all()
    nothing_left = rings.flip(1).cumsum(1).flip(1) == 0
    assert torch.equal(free[:, :-1], nothing_left[:, :-1])
    other = noise(*rings.shape, seed=2)
    changed = torch.cat([other[:, :-1], noise(len(rings), 1, rings.shape[2], seed=3)], dim=1)
    layers = rings.sum(1)
    mine, theirs = (break_rings(table, latent, layers, incident, THRESHOLD) for latent in (changed, other))
    assert torch.equal(mine, theirs)


def test_a_ring_that_takes_all_and_one_that_takes_nothing() -> None:
    rings = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 5.0]]])
    table = constant_table(3, -1.0, 1.5)
    lower, upper = encode_rings(table, rings, ten_gev(1), THRESHOLD)
    assert (lower[0, 0].tolist(), upper[0, 0].tolist()) == ([1.5, -np.inf], [np.inf, -1.0])
    assert lower[0, 1, 1] == upper[0, 1, 1]  # ln(2 / 5), but for the threshold
    odds = np.log((2 - THRESHOLD) / (5 - THRESHOLD))
    np.testing.assert_allclose(
        stats.norm.cdf(lower[0, 1, 1]),
        stats.norm.cdf(-1) + (stats.norm.cdf(1.5) - stats.norm.cdf(-1)) * stats.norm.cdf(odds),
        rtol=1e-3,
    )
    latent = draw_within(Interval(lower, upper), torch.Generator().manual_seed(0))
    torch.testing.assert_close(break_rings(table, latent, rings.sum(1), ten_gev(1), THRESHOLD), rings)


@pytest.mark.parametrize("log_odds", [15.0, 25.0])
def test_in_large_layers_small_rings_keep_their_energy(log_odds: float) -> None:
    layers = torch.linspace(2e4, 5e4, 100)[:, None]
    table = constant_table(1, -8.0, 8.0, mean=log_odds)
    rings = break_rings(table, torch.zeros(100, 2, 1), layers, ten_gev(100), threshold := 1e-3)
    expected = threshold + (layers - 2 * threshold) * torch.sigmoid(torch.tensor(-log_odds))
    torch.testing.assert_close(rings[:, 1], expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("log_odds", [-25.0, 0.1, 25.0])
def test_a_part_that_is_not_all_leaves_a_cell_for_the_others(log_odds: float) -> None:
    """Finite odds stand for energy in both, however small a part single precision makes of them."""
    layers = torch.tensor([[1.9, 2.1, 30.0, 5e4]]) * THRESHOLD
    table = constant_table(2, -8.0, 8.0, mean=log_odds)
    rings = break_rings(table, torch.zeros(1, 2, 4), layers, ten_gev(1), THRESHOLD)
    assert_adds_up(rings, layers)
    assert (rings > 0).sum(1).tolist() == [[1, 2, 2, 2]]
    assert (rings[:, 0, 0] > 0).item() == (log_odds > 0)
    assert (rings[:, :, 1:] >= THRESHOLD * (1 - 1e-5)).all()


# --- the incident energy ---


def two_beams(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Layers of 10 MeV: the inner ring takes a third at 1 GeV, and nine tenths or all at 100 GeV."""
    incident = torch.tensor([1e3, 1e5]).repeat_interleave(n)
    odds = torch.tensor([-0.7, 2.2]).repeat_interleave(n)[:, None] + 0.3 * noise(2 * n, 3)
    inner = 10 * torch.sigmoid(odds)
    alone = (incident > 1e4)[:, None] & (noise(2 * n, 3, seed=1) > 1)  # 16 % of them leave nothing
    inner = torch.where(alone, 10.0, inner)
    return torch.stack([inner, 10 - inner], dim=1), incident


def test_rings_of_one_energy_are_shared_out_by_the_incident_one() -> None:
    rings, incident = two_beams(3000)
    table = fit_rings(rings.numpy(), incident.numpy(), THRESHOLD)
    assert table.quantiles.shape == (len(LOG_INCIDENT_PLANES), len(LOG_ENERGY_KNOTS), len(LEVELS))
    torch.testing.assert_close(table.planes, torch.from_numpy(LOG_INCIDENT_PLANES).float())
    latent = draw_within(encode_rings(table, rings, incident, THRESHOLD), torch.Generator().manual_seed(2))
    again = break_rings(table, latent, rings.sum(1), incident, THRESHOLD)
    torch.testing.assert_close(again, rings, rtol=1e-3, atol=1e-4)
    drawn = break_rings(table, noise(*rings.shape, seed=3), rings.sum(1), incident, THRESHOLD)
    for chosen in (incident == 1e3, incident == 1e5):
        part = latent[chosen, 0].flatten().double().numpy()
        assert stats.kstest(part, stats.norm.cdf).pvalue > 1e-3
        ours, theirs = (sample[chosen, 0] / 10 for sample in (drawn, rings))
        assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=0.01)
        assert float((ours == 1).double().mean()) == pytest.approx(float((theirs == 1).double().mean()), abs=0.02)
    assert (drawn[incident == 1e3, 1] > 0).all()


def test_between_planes_log_odds_are_interpolated_and_beyond_them_held() -> None:
    n, low, high = 4000, *np.log([1e3, 1e5])
    x = torch.empty(n).uniform_(low, high, generator=torch.Generator().manual_seed(0))
    inner = 10 * torch.sigmoid(-1 + 3 * (x - low) / (high - low) + 0.3 * noise(n, seed=1))
    rings = torch.stack([inner, 10 - inner], dim=1)[..., None]
    table = fit_rings(rings.numpy(), torch.exp(x).numpy(), THRESHOLD)
    at = torch.exp(low + (high - low) * torch.tensor([-0.5, 0, 0.3, 0.5, 0.9, 1, 1.5]))
    medians = break_rings(table, torch.zeros(7, 2, 1), torch.full((7, 1), 10.0), at, THRESHOLD)[:, 0, 0]
    expected = torch.tensor([-1, -1, -0.1, 0.5, 1.7, 2, 2])
    torch.testing.assert_close(torch.logit(medians / 10), expected, atol=0.06, rtol=0)


def test_rows_of_the_same_ring_and_plane_are_alike() -> None:
    n_planes, n_z = len(LOG_INCIDENT_PLANES), 7  # three blocks
    alike = ring_of_rows(2 * 3 * n_planes, n_z).reshape(2, 3, n_planes)
    for ring in range(2):
        for plane in range(n_planes):
            assert alike[ring, :, plane].tolist() == [ring * n_planes + plane] * 3
