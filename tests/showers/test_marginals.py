from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.normaliser.marginals import (
    LEVELS,
    NO_ATOM,
    ConditionalMarginals,
    Interval,
    draw_within,
    held_inside,
    score_of,
    scores_of_levels,
)

SCORES = stats.norm.ppf(LEVELS)
KNOTS = torch.tensor([0.0, 1.0, 2.0])
INF = float("inf")


def normal(
    t0: float = -NO_ATOM, t1: float = NO_ATOM, mu: float = 0.0, sigma: float = 1.0, *, extrapolate: bool = False
) -> ConditionalMarginals:
    """One site: -inf below t0, +inf above t1, else normal, with a mean that grows by one per unit of context."""
    quantiles = torch.from_numpy(mu + np.arange(3)[:, None] + sigma * SCORES)[None].float()
    atoms = (torch.full((1, 3), t) for t in (t0, t1))
    return ConditionalMarginals(KNOTS, *atoms, quantiles, torch.ones(1, 3), extrapolate)


@st.composite
def tables(draw: Callable) -> ConditionalMarginals:
    n_levels = len(LEVELS)
    steps = draw(st.lists(st.floats(0, 2), min_size=3 * n_levels, max_size=3 * n_levels))
    start = draw(st.lists(st.floats(-10, 5), min_size=3, max_size=3))
    atoms = st.one_of(st.just(NO_ATOM), st.floats(-2, 4))
    t0 = [-t for t in draw(st.lists(atoms, min_size=3, max_size=3))]
    t1 = draw(st.lists(atoms, min_size=3, max_size=3))
    quantiles = torch.tensor(steps).reshape(1, 3, n_levels).cumsum(-1) + torch.tensor(start)[None, :, None]
    return ConditionalMarginals(
        KNOTS, torch.tensor([t0]), torch.tensor([t1]), quantiles, torch.ones(1, 3), draw(st.booleans())
    )


contexts = st.floats(-2, 4, width=32)


def latent_of(table: ConditionalMarginals, values: np.ndarray | list[float], x: float) -> Interval:
    """Intervals of values of one site in one context."""
    value = torch.as_tensor(values, dtype=torch.float32)[None, None]
    lower, upper = table.forward(value, torch.full((1, 1), x))
    return Interval(lower[0, 0], upper[0, 0])


def value_of(table: ConditionalMarginals, latents: torch.Tensor | np.ndarray | list[float], x: float) -> torch.Tensor:
    """Values of latents of one site in one context."""
    return table.inverse(torch.as_tensor(latents, dtype=torch.float32)[None, None], torch.full((1, 1), x))[0, 0]


@pytest.mark.parametrize("t0", [-NO_ATOM, -1.0, 0.0])
@pytest.mark.parametrize("t1", [0.5, 2.0, NO_ATOM])
@pytest.mark.parametrize("x", [0.0, 0.25, 2.0])
def test_latents_of_a_normal_with_atoms_follow_the_formula(t0: float, t1: float, x: float) -> None:
    value = x + np.linspace(-3, 3, 13)  # the tables are exact for a normal, tails included
    p0, p1 = stats.norm.cdf(t0), stats.norm.sf(t1)
    expected = torch.from_numpy(stats.norm.ppf(p0 + (1 - p0 - p1) * stats.norm.cdf(value - x))).float()
    lower, upper = latent_of(normal(t0, t1), value, x)
    torch.testing.assert_close(lower, expected, atol=2e-3, rtol=0)
    assert torch.equal(lower, upper)


def test_an_atom_is_an_interval_and_a_value_that_does_not_exist_is_all_latents() -> None:
    lower, upper = latent_of(normal(-0.5, 1.0), [-INF, INF, np.nan], 0.3)
    torch.testing.assert_close(lower, torch.tensor([-INF, 1.0, -INF]))
    torch.testing.assert_close(upper, torch.tensor([-0.5, INF, INF]))


@pytest.mark.parametrize(("t0", "t1"), [(-2.0, NO_ATOM), (0.5, 1.2), (-NO_ATOM, -1.0)])
def test_normal_latents_have_the_wanted_atoms_and_spectrum(t0: float, t1: float) -> None:
    latent = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    value = value_of(normal(t0, t1), latent, 1.0).double().numpy()
    for atom, probability in ((-INF, stats.norm.cdf(t0)), (INF, stats.norm.sf(t1))):
        assert stats.binomtest(int((value == atom).sum()), len(value), probability).pvalue > 1e-3
    assert stats.kstest(value[np.isfinite(value)], stats.norm(1.0, 1.0).cdf).pvalue > 1e-3


@given(tables(), contexts, st.lists(st.floats(-7, 7, width=32), min_size=2, max_size=20))
def test_the_value_never_falls_with_the_latent(table: ConditionalMarginals, x: float, latents: list[float]) -> None:
    value = value_of(table, sorted(latents), x)
    assert not value.isnan().any()
    # where quantiles coincide a smallest slope keeps the map invertible, which the next level takes back
    assert (value[1:] >= value[:-1] - 5e-3).all()


@given(tables(), contexts, st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=20))
def test_the_latent_never_falls_with_the_value(table: ConditionalMarginals, x: float, values: list[float]) -> None:
    lower, upper = latent_of(table, [-INF, *sorted(values), INF], x)
    assert (lower <= upper).all()
    assert (lower[1:] >= lower[:-1] - 1e-3).all()
    assert (upper[1:] >= upper[:-1] - 1e-3).all()


@given(tables(), contexts, st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_values_survive_the_round_trip(table: ConditionalMarginals, x: float, scores: list[float]) -> None:
    """Latents may not: where quantiles coincide many of them stand for one value."""
    without_atoms = ConditionalMarginals(
        table.knots, torch.full((1, 3), -NO_ATOM), torch.full((1, 3), NO_ATOM), table.quantiles, table.weight
    )
    value = value_of(without_atoms, scores, min(max(x, 0.0), 2.0))
    latent = latent_of(table, value, x).lower
    again = value_of(table, latent, x)
    assert torch.isfinite(again).all()
    if table.extrapolate and not 0 <= x <= 2:
        return  # the values were made inside the knots
    # atoms leave the values between them fewer latents: those at the very ends are held off the atoms
    atoms = latent_of(table, [-INF, INF], x)
    start, end = atoms.upper[0], atoms.lower[1]
    margin = 1.1 * min(0.03 * float(end - start), 3e-4)
    free = (latent > start + margin) & (latent < end - margin)
    assert free[torch.tensor(scores).abs() < 1.5].all()
    torch.testing.assert_close(again[free], value[free], atol=2e-2, rtol=2e-3)


@pytest.mark.parametrize("value", [-7.0, 7.0])
def test_a_value_beyond_the_table_is_no_atom(value: float) -> None:
    for score in np.linspace(0.1, 2, 20):  # rounding decides on which side of the atom's end the latent falls
        table = normal(-score, score)
        assert torch.isfinite(value_of(table, latent_of(table, [value], 0.0).lower, 0.0)).all()


@given(st.floats(-NO_ATOM, 1), st.floats(1.5, NO_ATOM), contexts)
def test_atoms_survive_the_round_trip(t0: float, t1: float, x: float) -> None:
    """A sample with atoms has them in its tables: the scores are within +-4."""
    table = normal(max(t0, -4), min(t1, 4))
    interval = latent_of(table, [-INF, INF] * 20, x)
    drawn = draw_within(interval, torch.Generator().manual_seed(0))
    assert value_of(table, drawn, x).tolist() == [-INF, INF] * 20


@pytest.mark.parametrize(
    ("lower", "upper"), [(-INF, -3.0), (-INF, 0.3), (2.0, INF), (-1.0, 0.5), (0.1, 0.2), (-INF, INF)]
)
def test_draws_within_an_interval_are_a_truncated_normal(lower: float, upper: float) -> None:
    interval = Interval(torch.full((5000,), lower), torch.full((5000,), upper))
    drawn = draw_within(interval, torch.Generator().manual_seed(4)).double().numpy()
    assert ((drawn >= lower - 1e-5) & (drawn <= upper + 1e-5)).all()
    assert stats.kstest(drawn, stats.truncnorm(lower, upper).cdf).pvalue > 1e-3


@pytest.mark.parametrize("width", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("at", [-5.0, -1.0, 0.3, 4.0])
def test_draws_keep_off_the_ends_of_their_interval(width: float, at: float) -> None:
    """EnergyDependence and copula round to about 1e-6."""
    for lower, upper in ((at, at + width), (-INF, at), (at, INF)):
        interval = Interval(torch.full((2000,), lower), torch.full((2000,), upper))
        drawn = draw_within(interval, torch.Generator().manual_seed(5))
        margin = 0.9 * min(0.03 * (interval.upper - interval.lower)[0].item(), 3e-4) - 1e-6
        assert ((drawn >= interval.lower + margin) & (drawn <= interval.upper - margin)).all()
        assert ((drawn > interval.lower) & (drawn < interval.upper)).all()


def test_latents_are_held_inside_but_for_those_that_are_known() -> None:
    lower, upper = torch.tensor([0.0, 0.0, 0.0, 0.7, -INF]), torch.tensor([1.0, 1.0, 1e-3, 0.7, INF])
    held = held_inside(torch.tensor([-3.0, 0.4, 9.0, 5.0, 4.0]), Interval(lower, upper))
    torch.testing.assert_close(held, torch.tensor([3e-4, 0.4, 9.7e-4, 0.7, 4.0]))


@pytest.mark.parametrize("t0", [-8.0, -7.9, -6.8, -5.5])
def test_an_atom_that_an_average_makes_too_rare_still_comes_back(t0: float) -> None:
    """A sample with one empty shower, averaged with a prior without any."""
    table = normal(t0, -t0)
    drawn = draw_within(latent_of(table, [-INF, INF] * 50, 0.0), torch.Generator().manual_seed(0))
    value = value_of(table, drawn, 0.0)
    assert drawn.abs().max() < (6.01 if t0 == -NO_ATOM else 5.5)
    if t0 == -NO_ATOM:  # which cannot be
        assert torch.isfinite(value_of(table, [-20.0, 20.0], 0.0)).all()
        assert (value.diff().sign() == torch.tensor([1.0, -1.0]).repeat(50)[:-1]).all()
    else:
        assert value.tolist() == [-INF, INF] * 50


def test_what_has_one_latent_only_is_kept_to_the_bit() -> None:
    latent = torch.linspace(-5, 5, 101)
    assert torch.equal(draw_within(Interval(latent, latent), torch.Generator().manual_seed(0)), latent)


def test_normal_scores_follow_scipy() -> None:
    probability = torch.linspace(1e-4, 1 - 1e-4, 999)
    np.testing.assert_allclose(score_of(probability), stats.norm.ppf(probability.double()), atol=2e-3)
    np.testing.assert_allclose(scores_of_levels(), SCORES, rtol=1e-6)
    assert score_of(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([-5.29, 5.29], abs=0.01)


@pytest.mark.parametrize("x", [0.0, 0.25, 0.5, 1.0, 1.9])
def test_tables_are_interpolated_linearly_between_knots(x: float) -> None:
    generator = torch.Generator().manual_seed(0)
    t0 = -torch.rand(1, 3, generator=generator)
    t1 = 1 + torch.rand(1, 3, generator=generator)
    quantiles = torch.randn(1, 3, len(LEVELS), generator=generator).sort(-1).values
    table = ConditionalMarginals(KNOTS, t0, t1, quantiles, torch.ones(1, 3))
    interval = latent_of(table, [-INF, INF], x)
    np.testing.assert_allclose(interval.upper[0], np.interp(x, KNOTS, t0[0]), rtol=1e-5)
    np.testing.assert_allclose(interval.lower[1], np.interp(x, KNOTS, t1[0]), rtol=1e-5)
    row = [np.interp(x, KNOTS, quantiles[0, :, j]) for j in range(len(LEVELS))]
    plain = ConditionalMarginals(
        KNOTS, torch.full((1, 3), -NO_ATOM), torch.full((1, 3), NO_ATOM), quantiles, table.weight
    )
    np.testing.assert_allclose(value_of(plain, scores_of_levels(), x), row, atol=5e-3)


def test_outside_the_knots_tables_hold_or_go_on() -> None:
    held, further = normal(), normal(extrapolate=True)
    assert value_of(held, [1.0], 5.0) == value_of(held, [1.0], 2.0)
    torch.testing.assert_close(value_of(further, [1.0], 5.0), value_of(further, [1.0], 2.0) + 3)
    torch.testing.assert_close(value_of(further, [1.0], -2.0), value_of(further, [1.0], 0.0) - 2)


def test_crossing_tables_are_made_to_ascend() -> None:
    """Beyond the knots tables are continued linearly; a spread that shrinks with the context would turn negative."""
    spread = torch.tensor([2.0, 1.0, 0.5])[:, None] * torch.from_numpy(SCORES).float()
    atoms = (torch.full((1, 3), -NO_ATOM), torch.full((1, 3), NO_ATOM))
    table = ConditionalMarginals(KNOTS, *atoms, spread[None], torch.ones(1, 3), extrapolate=True)
    value = value_of(table, torch.linspace(-3, 3, 50), 6.0)
    assert (value[1:] >= value[:-1] - 1e-3).all()
    assert value.max() < value.min() + 1e-2  # all quantiles have met


def test_atoms_that_meet_still_leave_a_value_between_them() -> None:
    """Extrapolated, t0 climbs over t1."""
    t0, t1 = torch.tensor([[-1.0, 0.0, 1.0]]), torch.tensor([[1.5, 1.5, 1.5]])
    table = ConditionalMarginals(KNOTS, t0, t1, normal().quantiles, torch.ones(1, 3), extrapolate=True)
    value = value_of(table, torch.linspace(-5, 5, 41), 3.0)
    assert not value.isnan().any()
    assert value[0] == -INF
    assert value[-1] == INF
    assert latent_of(table, [2.0], 3.0).lower == pytest.approx(2.0, abs=0.01)


def test_columns_may_name_their_sites() -> None:
    shifted = normal().quantiles + torch.tensor([0.0, 10.0])[:, None, None]
    atoms = (torch.full((2, 3), -NO_ATOM), torch.full((2, 3), NO_ATOM))
    table = ConditionalMarginals(KNOTS, *atoms, shifted, torch.ones(2, 3))
    zero = torch.zeros(1, 2, 1)
    torch.testing.assert_close(table.inverse(zero, torch.zeros(1, 2)).flatten(), torch.tensor([0.0, 10.0]))
    site = torch.tensor([[1, 0, 1, 1]])
    expected = torch.tensor([10.0, 0.0, 10.0, 10.0])
    torch.testing.assert_close(table.inverse(torch.zeros(1, 4, 1), torch.zeros(1, 4), site).flatten(), expected)
    lower, _ = table.forward(expected[None, :, None], torch.zeros(1, 4), site)
    torch.testing.assert_close(lower, torch.zeros(1, 4, 1), atol=1e-5, rtol=0)


def planar(*, n_sites: int = 1) -> ConditionalMarginals:
    """Normal values with mean x + 10 y + 100 site and deviation 1 + y, y from 0 to 2 in three planes."""
    x, y, site = KNOTS, torch.arange(3.0), torch.arange(float(n_sites))
    mean = x + 10 * y[:, None] + 100 * site[:, None, None]
    width = torch.from_numpy(SCORES).float() * (1 + y[:, None, None])
    quantiles = (mean[..., None] + width).flatten(0, 1)
    shape = quantiles.shape[:2]
    atoms = (torch.full(shape, -NO_ATOM), torch.full(shape, NO_ATOM))
    return ConditionalMarginals(KNOTS, *atoms, quantiles, torch.ones(shape), False, y)


@given(st.floats(-1, 3), st.floats(-1, 3), st.integers(0, 1))
def test_planes_are_interpolated_and_held_outside(x: float, y: float, site: int) -> None:
    table = planar(n_sites=2)
    contexts = (torch.full((1, 1), x), torch.full((1, 1), site), torch.full((1, 1), y))
    latent = torch.tensor([[[-1.0, 0.0, 2.0]]])
    x, y = min(max(x, 0.0), 2.0), min(max(y, 0.0), 2.0)
    expected = x + 10 * y + 100 * site + (1 + y) * latent
    value = table.inverse(latent, *contexts)
    torch.testing.assert_close(value, expected, atol=2e-2, rtol=1e-4)
    lower, upper = table.forward(value, *contexts)
    torch.testing.assert_close(lower, latent, atol=2e-3, rtol=0)
    assert torch.equal(lower, upper)


@pytest.mark.parametrize("table", [planar(), normal(0.2, 1.3, extrapolate=True)], ids=["planes", "one line"])
def test_tables_survive_tensors_columns_and_shrinking(table: ConditionalMarginals) -> None:
    assert table.columns().shape == (*table.t0.shape, 2 + len(LEVELS))
    given = {"extrapolate": table.extrapolate, "planes": table.planes}
    for again in (
        ConditionalMarginals.from_tensors(table.tensors(), extrapolate=table.extrapolate),
        ConditionalMarginals.from_columns(table.knots, table.columns(), table.weight, **given),
    ):
        assert again.extrapolate == table.extrapolate
        for name, tensor in table.tensors().items():
            assert torch.equal(again.tensors()[name], tensor)
        assert torch.equal(again.planes, table.planes)
    torch.testing.assert_close(table.shrunk_towards(table, 1.0).columns(), table.columns())


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.8])
def test_relative_variance_of_a_lognormal(sigma: float) -> None:
    variance = normal(mu=3.0, sigma=sigma).relative_variance(torch.tensor([[0.0, 1.5]]), torch.zeros(1, 2).long())
    torch.testing.assert_close(variance, torch.full((1, 2), np.expm1(sigma**2)), rtol=0.05, atol=0)


def test_shrinking() -> None:
    mine, prior = normal(0.0, 1.0), normal(1.0, 3.0, mu=2.0)
    seen = ConditionalMarginals(mine.knots, mine.t0, mine.t1, mine.quantiles, torch.tensor([[0.0, 5.0, 1e9]]))
    shrunk = seen.shrunk_towards(prior, 5.0)
    torch.testing.assert_close(shrunk.t0, torch.tensor([[1.0, 0.5, 0.0]]))
    torch.testing.assert_close(shrunk.t1, torch.tensor([[3.0, 2.0, 1.0]]))
    steps = torch.tensor([[2.0], [1.0], [0.0]]).expand(3, len(LEVELS))
    torch.testing.assert_close(shrunk.quantiles[0] - mine.quantiles[0], steps)
    assert torch.equal(shrunk.weight, seen.weight)
    same = seen.shrunk_towards(seen, 5.0)
    torch.testing.assert_close(same.columns(), seen.columns())


def test_an_offset_that_sites_share_is_estimated_from_all_their_values() -> None:
    """A prior that is off by 0.5 in all sites of one kind, by -0.3 in those of another; five values in each row."""
    n_sites, n_values = 60, 5.0
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(n_sites) % 2
    offset = torch.tensor([0.5, -0.3])[kind, None, None]
    ladder = torch.from_numpy(SCORES).float()
    level = torch.randn(n_sites, 3, 1, generator=generator)
    noise = torch.randn(n_sites, 3, 1, generator=generator) / n_values**0.5
    weight = torch.full((n_sites, 3), n_values)
    weight[:, 2] = 0  # the last knot saw nothing
    atoms = (torch.full((n_sites, 3), t) for t in (-NO_ATOM, NO_ATOM))
    prior = ConditionalMarginals(KNOTS, *atoms, level + ladder, torch.zeros_like(weight))
    fitted = ConditionalMarginals(KNOTS, prior.t0, prior.t1, level + offset + noise + ladder, weight)
    alone, together = (fitted.shrunk_towards(prior, 40.0, alike) for alike in (None, kind))
    left = [(one.quantiles - prior.quantiles - offset)[..., LEVELS.index(0.5)] for one in (alone, together)]
    for number in (0, 1):
        chosen = kind == number
        shared = 0.5 if number == 0 else -0.3
        seen = 30 * n_values / (30 * n_values + 30)  # of 30 sites, against 30 values for none
        found = (fitted.quantiles - prior.quantiles)[chosen].mean((0, 2)) * seen
        assert found[0] == pytest.approx(shared * seen, abs=0.1)
        expected = torch.lerp(prior.quantiles[chosen] + found[:, None], fitted.quantiles[chosen], 5 / 45)
        torch.testing.assert_close(together.quantiles[chosen, :2], expected[:, :2])
        before, after = (errors[chosen, :2].mean() for errors in left)
        assert abs(before) > 0.85 * abs(shared)
        assert abs(after) < 0.3 * abs(shared)
    torch.testing.assert_close(together.quantiles[:, 2], prior.quantiles[:, 2])
    each = fitted.shrunk_towards(prior, 40.0, torch.arange(n_sites))  # nobody to share with
    departure = (fitted.quantiles - prior.quantiles)[..., :1]
    torch.testing.assert_close(each.quantiles[:, :2], (alone.quantiles + 40 / 45 * 5 / 35 * departure)[:, :2])


def test_columns_that_do_not_ascend_are_lifted() -> None:
    columns = torch.zeros(1, 3, 2 + len(LEVELS))
    columns[..., 2:] = torch.tensor([0.0, 2.0, 1.0, 3.0] + [4.0] * (len(LEVELS) - 4))
    table = ConditionalMarginals.from_columns(KNOTS, columns, torch.ones(1, 3), extrapolate=False)
    assert table.quantiles[0, 0, :4].tolist() == [0, 2, 2, 3]
