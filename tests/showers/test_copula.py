from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import hadamard

from metacalo.normaliser.copula import (
    COMPONENT_KNOTS,
    Components,
    Copula,
    _wave_sizes,
    _waves,
    fit_components,
    fit_modes,
    fit_structure,
)
from metacalo.normaliser.latents import Latents, structure_size
from metacalo.normaliser.marginals import Interval

GRID = (3, 8, 4)
SIZE = structure_size(GRID)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_energies(n: int, seed: int = 9) -> torch.Tensor:
    """Spread evenly over the knots, and a little beyond."""
    return torch.empty(n).uniform_(np.log(0.7e3), np.log(1.4e5), generator=generator(seed))


def components(d: int, k: int, seed: int = 0) -> Components:
    """Of any variances and widths."""
    vectors = torch.linalg.qr(torch.randn(d, k, generator=generator(seed)))[0]
    log_variance = 0.5 * torch.randn(len(COMPONENT_KNOTS), k, generator=generator(seed + 1))
    return Components(vectors, log_variance, torch.rand(d, generator=generator(seed + 2)) + 0.5)


def even_components(log_variance: torch.Tensor, d: int = 8) -> Components:
    """Of vectors whose entries are all as large, so that components are exactly those of the correlation matrix."""
    vectors = torch.from_numpy(hadamard(d)).float()[:, [1, 3]] / d**0.5
    return Components(vectors, log_variance.expand(len(COMPONENT_KNOTS), 2), torch.linspace(0.5, 2, d))


def copula(seed: int = 0) -> Copula:
    """Of the structure and of modes 0, 1 and 2."""
    n_r, _, n_z = GRID
    return Copula(components(SIZE, 7, seed), tuple(components(n_r * n_z, 3, seed + mode) for mode in (1, 2, 3)))


def steady(one: Components) -> Components:
    """Variances of 2.7 at all energies."""
    return Components(one.vectors, torch.ones_like(one.log_variance), one.scale)


# --- components ---


@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_whitening_undoes_colouring(d: int, part: float, seed: int) -> None:
    one = components(d, round(part * d), seed)
    x = log_energies(20)
    first, second = torch.randn(2, 20, d, generator=generator(seed))
    rows = torch.stack([first, second], dim=1)
    for white in (first, rows):
        torch.testing.assert_close(one.forward(one.inverse(white, x), x), white, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.inverse(one.forward(white, x), x), white, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.inverse(rows, x), torch.stack([one.inverse(each, x) for each in (first, second)], 1))


@pytest.mark.parametrize("n_phi", [1, 2, 5, 8, 16])
def test_waves_are_those_of_the_discrete_fourier_transform(n_phi: int) -> None:
    waves = _waves(n_phi)
    torch.testing.assert_close(waves.T @ waves, torch.eye(n_phi), atol=1e-6, rtol=0)
    moduli = torch.fft.rfft(waves, dim=0).abs() > 1e-4
    modes = [mode for mode, size in enumerate(_wave_sizes(n_phi)) for _ in range(size)]
    assert torch.equal(moduli, torch.tensor(modes) == torch.arange(n_phi // 2 + 1)[:, None])


@pytest.mark.parametrize("knot", [0, 4, 8])
def test_coloured_noise_has_the_covariance_of_the_components(knot: int) -> None:
    n, d, k, one = 50_000, 5, 2, components(5, 2)
    x = torch.full((n,), float(COMPONENT_KNOTS[knot]))
    values = one.inverse(torch.randn(n, d, generator=generator(3)), x)
    variance = torch.exp(one.log_variance[knot])
    rest = (d - variance.sum()) / (d - k)
    inner = rest * torch.eye(d) + one.vectors @ torch.diag(variance - rest) @ one.vectors.T
    stretch = one.scale / inner.diagonal().sqrt()
    expected = stretch[:, None] * inner * stretch
    torch.testing.assert_close(torch.cov(values.T), expected, atol=6 * float(variance.max()) / n**0.5 * 2, rtol=0)
    torch.testing.assert_close(values.std(0), one.scale, rtol=6 / (2 * n) ** 0.5, atol=0)  # whatever the components


@pytest.mark.parametrize(("d", "k", "size"), [(9, 3, 9), (9, 3, 4), (9, 0, 4), (4, 4, 4), (3, 2, 2)])
def test_the_covariance_is_that_of_coloured_noise(d: int, k: int, size: int) -> None:
    """At energies on a knot, between two, and beyond the last; of all values or the first."""
    n, one = 20_000, components(d, k)
    for log_energy in (float(COMPONENT_KNOTS[2]), 8.4, 12.0):
        x = torch.full((n,), log_energy)
        values = one.inverse(torch.randn(n, d, generator=generator(3)), x)[:, :size]
        message = one.covariance(x[:2], size)
        assert message.shape == (2, size, size)
        error = 6 * one.scale[:size, None] * one.scale[:size] * (2 / n) ** 0.5
        assert ((values.T @ values / n - message[1]).abs() < error).all()
        torch.testing.assert_close(message[0].diagonal(), one.scale[:size] ** 2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("d", [3, 2])
def test_components_that_leave_nothing_for_the_rest(d: int) -> None:
    """Their variances sum to more than d; or there is no rest."""
    vectors = torch.eye(d)[:, :2]
    one = Components(vectors, torch.full((len(COMPONENT_KNOTS), 2), 3.0), torch.ones(d))
    white, x = torch.randn(1000, d, generator=generator()), log_energies(1000)
    values = one.inverse(white, x)
    assert torch.isfinite(values).all()
    torch.testing.assert_close(one.forward(values, x), white, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(values.std(0), torch.ones(d), atol=0.1, rtol=0)


def test_fitted_components_whiten_what_is_correlated() -> None:
    n, d = 20_000, 8
    drifting = torch.tensor([1.2, -1.5]) + torch.linspace(-0.4, 0.4, 9)[:, None] * torch.tensor([1.0, -1.0])
    true = even_components(drifting)
    x = log_energies(n)
    values = true.inverse(torch.randn(n, d, generator=generator(3)), x)
    fitted = fit_components(values, x, torch.ones(n), 2)
    overlap = (fitted.vectors.T @ true.vectors).abs()
    torch.testing.assert_close(overlap, torch.eye(2).flip(0), atol=0.03, rtol=0)  # largest ratio to 1 first
    torch.testing.assert_close(fitted.log_variance, true.log_variance.flip(1), atol=0.15, rtol=0)
    torch.testing.assert_close(fitted.scale, true.scale, rtol=0.03, atol=0)
    white = fitted.forward(values, x)
    for low, high in ((7, 8.5), (8.5, 10), (10, 12)):
        chosen = white[(x > low) & (x < high)]
        torch.testing.assert_close(torch.cov(chosen.T), torch.eye(d), atol=8 / len(chosen) ** 0.5, rtol=0)


def test_without_components_widths_are_left() -> None:
    n = 5000
    x = log_energies(n)
    values = torch.randn(n, 3, generator=generator()) * torch.tensor([0.5, 1.0, 2.0])
    fitted = fit_components(values, x, torch.ones(n), 0)
    assert fitted.vectors.shape == (3, 0)
    torch.testing.assert_close(fitted.forward(values, x), values / fitted.scale, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fitted.scale, torch.tensor([0.5, 1.0, 2.0]), rtol=0.05, atol=0)


def test_rows_of_components_are_weighted() -> None:
    """A thousand showers of one kind do not outvote a hundred that count thirty times each."""
    x = torch.full((1100,), 9.0)
    white = torch.randn(1100, 2, generator=generator())
    alike, opposite = (torch.tensor([[1.0, 0.0], [sign * 0.9, 0.19**0.5]]) for sign in (1, -1))
    values = torch.cat([white[:1000] @ alike.T, white[1000:] @ opposite.T])
    weight = torch.cat([torch.ones(1000), torch.full((100,), 30.0)])
    fitted = fit_components(values, x, weight, 2)
    correlation = 0.9 * (1000 - 3000) / 4000
    variance = torch.exp(fitted.log_variance[4]).sort().values
    torch.testing.assert_close(variance, torch.tensor([1 + correlation, 1 - correlation]), atol=0.25, rtol=0)
    largest = fitted.vectors[:, int(fitted.log_variance[4].argmax())]
    assert largest[0] * largest[1] < 0


def test_components_of_unseen_energies_have_the_pooled_variances() -> None:
    n = 5000
    x = torch.full((n,), float(COMPONENT_KNOTS[0]))
    values = even_components(torch.tensor([1.2, -1.5])).inverse(torch.randn(n, 8, generator=generator()), x)
    fitted = fit_components(values, x, torch.ones(n), 2)
    torch.testing.assert_close(fitted.log_variance, fitted.log_variance[:1].expand(9, 2), atol=0.02, rtol=0)
    torch.testing.assert_close(fitted.log_variance[8], torch.tensor([-1.5, 1.2]), atol=0.1, rtol=0)


# --- values of which intervals are known ---


def covariance_of(one: Components, knot: int) -> torch.Tensor:
    """What coloured noise has at that knot."""
    d, k = one.vectors.shape
    variance = torch.exp(one.log_variance[knot])
    rest = (d - variance.sum()) / (d - k)
    inner = rest * torch.eye(d) + one.vectors @ torch.diag(variance - rest) @ one.vectors.T
    stretch = one.scale / inner.diagonal().sqrt()
    return stretch[:, None] * inner * stretch


@pytest.mark.parametrize("width", [np.inf, 1.5])
@pytest.mark.parametrize("n_groups", [1, 2, 5])
def test_settled_values_keep_within_their_intervals_and_have_the_covariance(width: float, n_groups: int) -> None:
    """True values are forgotten but for the bins that they fell into, and the start is the middle of each."""
    n, d, one = 20_000, 5, components(5, 2)
    groups = torch.arange(d) % n_groups
    if n_groups == 1:  # what is drawn at once must not depend on one another
        one = Components(one.vectors, torch.zeros_like(one.log_variance), one.scale)
    x = torch.full((n,), float(COMPONENT_KNOTS[3]))
    true = one.inverse(torch.randn(n, d, generator=generator(3)), x)
    lower = torch.floor(true / width) * width if width < np.inf else torch.full_like(true, -np.inf)
    within = Interval(lower, lower + width if width < np.inf else -lower)
    start = (lower + width / 2) if width < np.inf else torch.zeros_like(true)
    for seed in range(3):  # of three sweeps each
        start = one.gibbs_resample(start, within, x, groups, generator(seed))
        assert ((start >= within.lower) & (start <= within.upper)).all()
    if n_groups in (1, 5):
        torch.testing.assert_close(torch.cov(start.T), covariance_of(one, 3), atol=0.06, rtol=0.03)
        torch.testing.assert_close(start.mean(0), torch.zeros(d), atol=0.04, rtol=0)


def test_settled_values_follow_those_that_are_known() -> None:
    """Of two correlated values the one that is known stays; the other has the conditional distribution."""
    n, rho = 20_000, 0.8
    vectors = torch.tensor([[1.0], [1.0]]) / 2**0.5
    one = Components(vectors, torch.full((len(COMPONENT_KNOTS), 1), np.log(1 + rho)), torch.tensor([1.0, 2.0]))
    x = log_energies(n)
    known = torch.randn(n, generator=generator())
    lower = torch.stack([known, torch.full((n,), -np.inf)], dim=1)
    upper = torch.stack([known, torch.full((n,), np.inf)], dim=1)
    start = torch.stack([known, torch.zeros(n)], dim=1)
    settled = one.gibbs_resample(start, Interval(lower, upper), x, torch.tensor([0, 1]), generator(1))
    assert torch.equal(settled[:, 0], known)
    residual = (settled[:, 1] / 2 - rho * known) / (1 - rho**2) ** 0.5
    assert stats.kstest(residual.double().numpy(), stats.norm.cdf).pvalue > 1e-3
    positive = torch.stack([upper[:, 0], torch.full((n,), np.inf)], dim=1)
    above = torch.stack([known, torch.zeros(n)], dim=1)
    settled = one.gibbs_resample(start, Interval(above, positive), x, torch.tensor([0, 1]), generator(1))[:, 1]
    chosen = (known - 1).abs() < 0.1
    expected = stats.truncnorm(-rho / 0.6, np.inf, 2 * rho, 2 * 0.6)
    assert stats.kstest(settled[chosen].double().numpy(), expected.cdf).pvalue > 1e-3


def test_settled_values_keep_within_intervals_that_are_too_improbable() -> None:
    """Scores end at 5.3."""
    within = Interval(torch.full((9, 2), 8.0), torch.full((9, 2), 9.0))
    one = Components(torch.eye(2)[:, :1], torch.zeros(len(COMPONENT_KNOTS), 1), torch.ones(2))
    settled = one.gibbs_resample(torch.full((9, 2), 8.5), within, log_energies(9), torch.tensor([0, 1]), generator())
    assert ((settled >= 8) & (settled <= 9)).all()


def test_a_copula_settles_layers_rings_and_hits_that_depend_on_one_another() -> None:
    n, grid = 20_000, (1, 4, 4)
    size = structure_size(grid)
    entries = [5, 9, 6]  # of the first layer the ring and the hits, of the second the ring
    vector = torch.zeros(size, 1)
    vector[entries] = 3**-0.5
    one = Copula(Components(vector, torch.full((len(COMPONENT_KNOTS), 1), 1.0), torch.ones(size)), ())
    x = torch.full((n,), float(COMPONENT_KNOTS[3]))
    values, everything = torch.zeros(n, size), torch.full((n, size), np.inf)
    for seed in range(3):
        values = one.gibbs_resample(values, Interval(-everything, everything), x, grid, generator(seed))
    torch.testing.assert_close(torch.cov(values.T), covariance_of(one.structure, 3), atol=0.06, rtol=0)


def test_a_copula_settles_all_of_the_structure() -> None:
    n = 200
    one, x = copula(), log_energies(n)
    everything = torch.full((n, SIZE), np.inf)
    settled = one.gibbs_resample(torch.zeros(n, SIZE), Interval(-everything, everything), x, GRID, generator())
    assert (settled != 0).all()
    fixed = torch.randn(n, SIZE, generator=generator())
    assert torch.equal(one.gibbs_resample(fixed, Interval(fixed, fixed), x, GRID, generator()), fixed)


# --- copula ---


def test_latents_are_white_again_after_they_were_coloured() -> None:
    latents, x = Latents.noise(30, GRID, generator()), log_energies(30)
    torch.testing.assert_close(
        copula().forward(copula().inverse(latents, x), x).flat(), latents.flat(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        copula().inverse(copula().forward(latents, x), x).flat(), latents.flat(), atol=1e-4, rtol=0
    )
    assert not torch.allclose(copula().inverse(latents, x).cells, latents.cells, atol=0.1)


@pytest.mark.parametrize("turn", [1, 3, 4])
def test_a_turn_of_the_shower_commutes_with_whitening(turn: int) -> None:
    latents, x = Latents.noise(10, GRID, generator()), log_energies(10)
    turned = copula().forward(Latents(*latents.components()[:4], latents.cells.roll(turn, 2)), x)
    torch.testing.assert_close(turned.cells, copula().forward(latents, x).cells.roll(turn, 2), atol=1e-5, rtol=1e-5)
    mirrored = copula().forward(Latents(*latents.components()[:4], latents.cells.flip(2)), x)
    torch.testing.assert_close(mirrored.cells, copula().forward(latents, x).cells.flip(2), atol=1e-5, rtol=1e-5)


def test_modes_without_components_are_left_as_they_are() -> None:
    latents, x = Latents.noise(10, GRID, generator()), log_energies(10)
    before, after = (torch.fft.rfft(part.cells, dim=2) for part in (latents, copula().inverse(latents, x)))
    for mode in (3, 4):
        torch.testing.assert_close(after[:, :, mode], before[:, :, mode], atol=1e-4, rtol=0)
    for mode in (0, 1, 2):
        assert (after[:, :, mode] - before[:, :, mode]).abs().max() > 0.1


def test_a_fitted_copula_whitens_two_detectors_at_once() -> None:
    n, wild = 6000, copula()
    true = Copula(steady(wild.structure), tuple(map(steady, wild.modes)))
    samples = []
    for seed in (0, 1):
        x = log_energies(n, seed)
        samples.append((true.inverse(Latents.noise(n, GRID, generator(seed)), x), x))
    fitted = Copula(
        fit_structure([(latents.structure(), x) for latents, x in samples]),
        fit_modes([(latents.cells, x) for latents, x in samples]),
    )
    assert len(fitted.modes) == 5  # of 8 cells in phi
    latents, x = samples[0]
    before, white = latents.flat().double().numpy(), fitted.forward(latents, x).flat().double().numpy()
    upper = np.triu_indices(before.shape[1], 1)
    coloured, left = (np.corrcoef(values.T)[upper] * n**0.5 for values in (before, white))
    assert np.abs(coloured).max() > 20
    assert np.abs(left).max() < 6
    assert left.std() < 1.1
    assert np.abs(white.std(0) - 1).max() < 0.05
    assert np.abs(before.std(0) - 1).max() > 0.3


def test_fast_modes_are_only_scaled() -> None:
    modes = fit_modes([(torch.randn(300, 1, 12, 2, generator=generator()), log_energies(300))])
    assert [mode.vectors.shape for mode in modes] == [(2, 2)] * 5 + [(2, 0)] * 2


def test_white_cells_have_white_modes() -> None:
    n = 6000
    latents, x = Latents.noise(n, GRID, generator()), log_energies(n)
    for one in (fit_structure([(latents.structure(), x)]), *fit_modes([(latents.cells, x)])):
        assert one.log_variance.abs().max() < 0.35  # 9 knots of 1300 showers, each extreme of many
        torch.testing.assert_close(one.scale, torch.ones_like(one.scale), atol=0.05, rtol=0)


def test_copula_tensors_round_trip() -> None:
    one = copula()
    latents, x = Latents.noise(5, GRID, generator()), log_energies(5)
    expected = one.inverse(latents, x).flat()
    for again in (Copula.from_tensors(one.tensors()), one.to("cpu")):
        assert torch.equal(again.inverse(latents, x).flat(), expected)
        assert again.tensors().keys() == one.tensors().keys()


def test_noise_through_a_copula_stays_normal_in_each_cell() -> None:
    """The components of a mode are orthonormal and the same for both parts: cells of a ring stay alike."""
    n = 4000
    x = torch.full((n,), 9.0)
    cells = copula().inverse(Latents.noise(n, GRID, generator()), x).cells
    width = cells.std(0)
    torch.testing.assert_close(width, width.mean(1, keepdim=True).expand_as(width), rtol=0.08, atol=0)
    one = cells[:, 1, 3, 2] / width[1, 3, 2]
    assert stats.kstest(one.double().numpy(), stats.norm.cdf).pvalue > 1e-3
