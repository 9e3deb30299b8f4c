from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.normaliser.marginals import ATOM_LIMIT, LEVELS, NO_ATOM
from metacalo.normaliser.tabulate import fit_marginals

KNOTS = np.linspace(0, 4, 5)
MEDIAN = LEVELS.index(0.5)
OF_FIFTY = slice(LEVELS.index(0.05), LEVELS.index(0.95) + 1)  # levels that 50 values resolve


def test_at_a_knot_a_fit_gives_the_empirical_quantiles() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(2.0, 0.5, size=4000)
    value[rng.random(4000) < 0.3] = -np.inf
    value[rng.random(4000) < 0.1] = np.inf
    table = fit_marginals([(value, np.zeros(4000))], KNOTS)
    inner = value[np.isfinite(value)]
    np.testing.assert_allclose(table.quantiles[0, 0], np.quantile(inner, LEVELS, method="hazen"), atol=1e-5)
    np.testing.assert_allclose(stats.norm.cdf(table.t0[0, 0]), (value == -np.inf).mean(), atol=1e-6)
    np.testing.assert_allclose(stats.norm.sf(table.t1[0, 0]), (value == np.inf).mean(), atol=1e-6)
    assert table.weight.tolist() == [[4000, 0, 0, 0, 0]]
    # nothing was seen at the other knots: they take over the first
    for part in (table.quantiles, table.t0, table.t1):
        assert torch.equal(part[0, 4], part[0, 0])


def test_values_count_at_the_two_knots_around_them() -> None:
    x = np.array([0.25, 1.0, 3.5, -2.0, 9.0])
    table = fit_marginals([(np.arange(5.0), x)], KNOTS)
    np.testing.assert_allclose(table.weight[0], [1.75, 1.25, 0.0, 0.5, 1.5])


def test_neither_location_nor_width_is_biased_at_any_knot() -> None:
    """A plain weighted sample would be off by 1 (third of a knot spacing times the slope) at the two ends."""
    rng = np.random.default_rng(1)
    n = 40_000
    x = rng.uniform(0, 4, n)
    value = 3 * x + (0.5 + 0.4 * x) * rng.normal(size=n)
    table = fit_marginals([(value, x)], KNOTS)
    width = 0.5 + 0.4 * KNOTS
    n_row = table.weight[0].numpy()
    for level in (0.15, 0.5, 0.85):
        expected = 3 * KNOTS + width * stats.norm.ppf(level)
        # of a quantile; local lines at the ends and weights cost up to a factor of two
        error = 2 * width * np.sqrt(level * (1 - level) / n_row) / stats.norm.pdf(stats.norm.ppf(level))
        assert (np.abs(table.quantiles[0, :, LEVELS.index(level)].numpy() - expected) < 4 * error).all()


def test_atoms_are_straight_lines_in_the_context() -> None:
    rng = np.random.default_rng(2)
    n = 200_000
    x = rng.uniform(0, 4, n)
    uniform = rng.random(n)
    value = np.where(uniform < 0.1 + 0.1 * x, -np.inf, np.where(uniform > 0.95 - 0.05 * x, np.inf, 0.0))
    table = fit_marginals([(value, x)], KNOTS)
    lower, upper = 0.1 + 0.1 * KNOTS, 0.05 + 0.05 * KNOTS
    for found, expected in ((stats.norm.cdf(table.t0[0]), lower), (stats.norm.sf(table.t1[0]), upper)):
        error = 2 * np.sqrt(expected * (1 - expected) / table.weight[0].numpy())
        assert (np.abs(found - expected) < 4 * error).all()  # a weighted share is off by 6 errors at the ends


def test_neither_is_biased_in_two_contexts() -> None:
    """Location and width are planes over x and y; a plain weighted sample is off by 1 in each at the edges."""
    rng = np.random.default_rng(6)
    n, planes = 100_000, np.linspace(10, 12, 3)
    x, y = rng.uniform(0, 4, n), rng.uniform(10, 12, n)
    value = 3 * x - 3 * (y - 10) + (0.5 + 0.2 * x + 0.2 * (y - 10)) * rng.normal(size=n)
    # the second site is empty: sites must not mix
    table = fit_marginals([(value, x, y), (np.full(9, np.nan),) * 3], KNOTS, planes)
    assert table.quantiles.shape == (2 * 3, 5, len(LEVELS))
    assert table.planes.tolist() == planes.tolist()
    assert table.weight[3:].sum() == 0
    mean = 3 * KNOTS - 3 * np.arange(3)[:, None]
    width = 0.5 + 0.2 * KNOTS + 0.2 * np.arange(3)[:, None]
    for level in (0.15, 0.5, 0.85):
        expected = mean + width * stats.norm.ppf(level)
        error = 2 * width * np.sqrt(level * (1 - level) / table.weight[:3].numpy())
        error /= stats.norm.pdf(stats.norm.ppf(level))
        assert (np.abs(table.quantiles[:3, :, LEVELS.index(level)].numpy() - expected) < 4 * error).all()


def test_what_bends_between_knots_is_right_on_average() -> None:
    """Local lines alone would lie a sixth of the second derivative, here 0.33, on the hollow side."""
    rng = np.random.default_rng(7)
    n = 100_000
    x = rng.uniform(0, 4, n)
    seen = rng.random(n) < stats.norm.cdf(2 - (x - 2) ** 2)
    value = (x - 2) ** 2 + 0.1 * rng.normal(size=n)
    table = fit_marginals([(np.where(seen, -np.inf, value), x), (value, x)], KNOTS)
    hats = np.clip(1 - np.abs(x[:, None] - KNOTS), 0, 1)
    rate = stats.norm.cdf(hats @ table.t0[0].numpy())
    medians = hats @ table.quantiles[1, :, MEDIAN].numpy()
    for half in (x < 1, (x > 1) & (x < 3), x > 3):
        assert rate[half].mean() == pytest.approx(seen[half].mean(), abs=0.01)
        assert medians[half].mean() == pytest.approx(value[half].mean(), abs=0.03)


def test_a_plane_without_values_takes_those_of_the_nearest() -> None:
    value = np.linspace(0, 1, 50)
    table = fit_marginals([(value, np.full(50, 2.0), np.full(50, 1.0))], KNOTS, np.arange(4.0))
    expected = torch.from_numpy(np.quantile(value, LEVELS, method="hazen")).float()
    torch.testing.assert_close(table.quantiles[..., OF_FIFTY], expected[OF_FIFTY].expand(4, 5, -1), atol=1e-5, rtol=0)
    assert torch.equal(table.quantiles, table.quantiles[:1, :1].expand(4, 5, -1))
    assert table.weight.sum() == table.weight[1, 2] == 50
    two = np.concatenate([value, value + 10]), np.full(100, 2.0), np.repeat([1.0, 4.0], 50)
    medians = fit_marginals([two], KNOTS, np.arange(5.0)).quantiles[:, 0, MEDIAN]
    torch.testing.assert_close(medians, torch.tensor([0.5, 0.5, 0.5, 10.5, 10.5]), atol=1e-5, rtol=0)


def test_what_does_not_exist_does_not_count() -> None:
    rng = np.random.default_rng(3)
    value, x = rng.normal(size=500), rng.uniform(0, 4, 500)
    gaps = np.concatenate([value, np.full(300, np.nan)]), np.concatenate([x, rng.uniform(0, 4, 300)])
    with_gaps, without = fit_marginals([gaps], KNOTS), fit_marginals([(value, x)], KNOTS)
    for name, tensor in without.tensors().items():
        torch.testing.assert_close(with_gaps.tensors()[name], tensor, atol=1e-6, rtol=1e-6)


def test_an_atom_that_was_never_seen_cannot_be_and_one_that_always_was_leaves_some_room() -> None:
    never = np.arange(10.0), np.zeros(10)
    always = np.full(10, -np.inf), np.zeros(10)
    many = np.full(100_000, np.inf), np.zeros(100_000)
    table = fit_marginals([never, always, many], KNOTS)
    assert table.t0[0, 0] == table.t0[2, 0] == -NO_ATOM
    assert table.t1[0, 0] == table.t1[1, 0] == NO_ATOM
    assert 1 - 0.5 / 11 < stats.norm.cdf(table.t0[1, 0]) < 1 - 0.1 / 11  # as if a part of one were not
    assert -ATOM_LIMIT - 0.1 < table.t1[2, 0] < -ATOM_LIMIT + 0.1


def test_both_atoms_together_leave_some_room() -> None:
    value = np.repeat([-np.inf, np.inf], 50_000)
    table = fit_marginals([(value, np.zeros(len(value)))], KNOTS)
    assert 0 < table.t1[0, 0] - table.t0[0, 0] < 1e-3


def test_a_site_without_values_takes_the_mean_of_the_others() -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 4, 200)
    full = [(rng.normal(mean, 1, 200), x) for mean in (0, 4)]
    nothing = (np.empty(0), np.empty(0))
    table = fit_marginals([*full, nothing, (np.full(200, np.nan), x)], KNOTS)
    for site in (2, 3):
        torch.testing.assert_close(table.quantiles[site], table.quantiles[:2].mean(0))
        assert table.weight[site].tolist() == [0] * 5
    assert fit_marginals([nothing], KNOTS).quantiles.abs().max() == 0


def test_a_few_values_are_their_mean() -> None:
    value = np.array([1.0, 2.0, 6.0, -np.inf])
    table = fit_marginals([(value, np.zeros(4))], KNOTS)
    assert table.quantiles[0, 0].tolist() == pytest.approx([3.0] * len(LEVELS))
    np.testing.assert_allclose(stats.norm.cdf(table.t0[0, 0]), 0.25, rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1e-10, -1e-10, 1e-16])
def test_one_context_at_a_knot_but_for_rounding(shift: float) -> None:
    """A file of one energy, say 10 GeV, has all its contexts there."""
    value = np.linspace(0, 1, 50)
    table = fit_marginals([(value, np.full(50, 2 + shift))], KNOTS)
    expected = torch.from_numpy(np.quantile(value, LEVELS, method="hazen")).float()
    for knot in range(5):
        torch.testing.assert_close(table.quantiles[0, knot, OF_FIFTY], expected[OF_FIFTY], atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [5, 10, 50, 400])
def test_beyond_the_sample_tables_go_on_along_the_score(n: int) -> None:
    """The outermost value, held, would leave what lies beyond without a latent."""
    value = stats.norm.ppf((np.arange(n) + 0.5) / n)
    quantiles = fit_marginals([(value, np.zeros(n))], KNOTS).quantiles[0, 0].numpy()
    np.testing.assert_allclose(quantiles, stats.norm.ppf(LEVELS), rtol=0.15, atol=1e-6)
    assert quantiles[-1] > value.max() or n == 400
    assert quantiles[0] == pytest.approx(-quantiles[-1])


def test_a_sample_that_reaches_farther_than_the_line_is_followed() -> None:
    value = np.concatenate([stats.norm.ppf((np.arange(50) + 0.5) / 50), [20.0]])
    quantiles = fit_marginals([(value, np.zeros(51))], KNOTS).quantiles[0, 0]
    assert quantiles[-1] == 20
    assert quantiles[0] == pytest.approx(stats.norm.ppf(0.001), rel=0.15)


def test_unseen_values_are_told_apart() -> None:
    """Of a second sample those beyond the first one have latents of their own."""
    rng = np.random.default_rng(7)
    first, second = rng.normal(size=50), rng.normal(size=2000)
    table = fit_marginals([(first, np.zeros(50))], KNOTS)
    beyond = np.sort(second[(second < first.min()) | (second > first.max())])
    assert len(beyond) > 20
    value = torch.from_numpy(beyond).float()[None, None]
    latent = table.forward(value, torch.zeros(1, 1)).lower
    assert latent.abs().max() < 5
    torch.testing.assert_close(table.inverse(latent, torch.zeros(1, 1)), value, rtol=1e-2, atol=0)


@given(
    st.lists(st.tuples(st.sampled_from([-np.inf, np.inf, np.nan, 0.0, 1.0, -3.0, 2.5]), st.floats(-1, 5)), max_size=12)
)
def test_any_sample_gives_a_table(rows: list[tuple[float, float]]) -> None:
    value, x = np.array(rows, dtype=float).reshape(-1, 2).T
    table = fit_marginals([(value, x)], KNOTS)
    assert torch.isfinite(table.columns()).all()
    assert (table.quantiles.diff(dim=-1) >= 0).all()
    assert (table.t0 < table.t1).all()


def test_a_huge_sample_is_thinned_evenly() -> None:
    rng = np.random.default_rng(5)
    value = rng.normal(size=500_000)
    table = fit_marginals([(value, np.zeros(len(value)))], np.array([0.0, 1.0]))
    assert table.weight[0, 0] == 166_667
    assert abs(float(table.quantiles[0, 0, MEDIAN])) < 4 * 1.25 / 166_667**0.5
