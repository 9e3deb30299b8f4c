"""Likelihoods against what is known in closed form: Gaussian latents with the exact denoiser, and sums over all codes.

For data N(m, C), x_a = sin(a) data + cos(a) noise is N(sin(a) m, Q) with Q = sin^2(a) C + cos^2(a), and
v_hat = E[v | x_a] = cos(a) m + sin(a) cos(a) (C - 1) Q^-1 (x_a - sin(a) m). With it the
bound is no bound but ln p itself.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm
from torch import Tensor

from metacalo.generators.base import Batch
from metacalo.generators.diffusion import LossWeights
from metacalo.generators.likelihood import (
    END,
    PathDraws,
    autoregressive_density,
    denoising_gain,
    diffusion_bound,
    normal_log_density,
)
from metacalo.normaliser.latents import Latents
from tests.small import GRID, disturb, draw_batch, draw_latents, seeded, small_autoregressive, small_diffusion

LINE = (1, 1, 1)
ALL = ("total", "layers", "rings", "hits", "cells")
MEAN = torch.tensor([0.3, -0.2, 0.0, 0.5, 0.1], dtype=torch.float64)
_LOADING = torch.tensor([[0.6, 0.1, 0.3, -0.5, 0.2]], dtype=torch.float64)
COVARIANCE = torch.diag(torch.tensor([0.5, 0.8, 1.0, 1.3, 0.9], dtype=torch.float64)) + _LOADING.T @ _LOADING


VARIANCES, AXES = torch.linalg.eigh(COVARIANCE)


def exact(x: Latents, angle: float) -> Latents:
    sine, cosine = math.sin(angle), math.cos(angle)
    gain = AXES * (sine * cosine * (VARIANCES - 1) / (sine**2 * VARIANCES + cosine**2)) @ AXES.T
    return Latents.from_flat(cosine * MEAN + (x.flat() - sine * MEAN) @ gain, LINE)


def gaussian(n: int, seed: int = 0) -> Tensor:
    noise = torch.randn(n, 5, generator=seeded(seed), dtype=torch.float64)
    return MEAN + noise @ torch.linalg.cholesky(COVARIANCE).T


def bound_of(x: Tensor, draws: PathDraws) -> tuple[Tensor, Tensor]:
    latents = Latents.from_flat(x, LINE)
    gain = denoising_gain(exact, latents, ALL, draws)
    return normal_log_density(latents, ALL) + gain.value, gain.error


def log_density(x: Tensor) -> Tensor:
    return torch.from_numpy(multivariate_normal(MEAN, COVARIANCE).logpdf(x))


def test_with_the_exact_denoiser_the_bound_is_the_gaussian_log_density():
    """Shower by shower, to 0.1 nats where log-densities spread by 1.6, with the path cut at tan(a) = 1000.

    The error is of the estimate alone: ten times as many times bring it to 0.03.
    """
    x = gaussian(40)
    value, error = bound_of(x, PathDraws.stratified(4000, LINE, seeded(1), end=math.atan(1000.0)))
    wanted = log_density(x)
    assert float(wanted.std()) > 1.2
    assert float(error.max()) < 0.1
    assert float(((value - wanted) / error).abs().max()) < 4
    torch.testing.assert_close(value, wanted, atol=0.1, rtol=0)
    off = normal_log_density(Latents.from_flat(x, LINE), ALL) - wanted
    assert float(off.abs().mean()) > 0.3, "without a denoiser it would not pass"


def test_a_cut_path_costs_what_it_should():
    """Mean over the data of int_end^(pi/2) tan(a) |v_hat|^2 da, and the rule of thumb of the module's docstring."""
    means = AXES.T @ MEAN

    def density_lost(angle: float) -> float:
        sine, cosine = math.sin(angle), math.cos(angle)
        spread = sine**2 * cosine**2 * (VARIANCES - 1) ** 2 / (sine**2 * VARIANCES + cosine**2)
        return math.tan(angle) * float((cosine**2 * means**2 + spread).sum())

    def lost(end: float) -> float:
        return float(quad(density_lost, end, math.pi / 2 - 1e-9)[0])

    end, x = math.pi / 4, gaussian(4000)
    value, _ = bound_of(x, PathDraws.stratified(2000, LINE, seeded(2), end=end))
    assert lost(end) > 0.15
    assert float((log_density(x) - value).mean()) == pytest.approx(lost(end), abs=0.03)
    thumb = math.cos(END) ** 2 / 2 * float((means**2 + (VARIANCES - 1) ** 2 / VARIANCES).sum())
    assert lost(END) == pytest.approx(thumb, rel=0.01)
    assert lost(END) < 2e-3


def test_the_error_is_that_of_repeated_estimates():
    x = gaussian(30)
    found = [bound_of(x, PathDraws.stratified(16, LINE, seeded(100 + i))) for i in range(150)]
    spread = torch.stack([value for value, _ in found]).std(0)
    message = torch.stack([error for _, error in found]).square().mean(0).sqrt()
    assert float((message / spread).mean()) == pytest.approx(1.05, abs=0.12)


def test_a_wrong_denoiser_gives_less():
    """It is a lower bound: of half and of twice the exact estimate, and of none."""
    latents, draws = Latents.from_flat(gaussian(2000), LINE), PathDraws.stratified(200, LINE, seeded(3))

    def mean_gain(factor: float) -> float:
        scaled = denoising_gain(lambda x, a: exact(x, a).map(lambda part: factor * part), latents, ALL, draws)
        return float(scaled.value.mean())

    assert mean_gain(0.0) == 0.0
    assert mean_gain(1.0) > mean_gain(0.5) > mean_gain(0.0) > mean_gain(2.2)


def test_a_network_that_returns_zero_is_independent_normals():
    model, batch = small_diffusion(), draw_batch(6)
    draws = PathDraws.stratified(4, GRID, seeded())
    bound = diffusion_bound(model, batch, draws)
    structure = batch.latents.structure()
    torch.testing.assert_close(bound.value, torch.from_numpy(norm.logpdf(structure.double()).sum(1)))
    assert not bound.error.any()
    whole = diffusion_bound(model, batch, draws, cells=True).value
    torch.testing.assert_close(whole, torch.from_numpy(norm.logpdf(batch.latents.flat().double()).sum(1)))


@torch.no_grad()
def test_bounds_of_a_network_do_not_depend_on_the_batch():
    model, batch = small_diffusion(), draw_batch(6)
    disturb(model)
    draws = PathDraws.stratified(8, GRID, seeded())
    whole = diffusion_bound(model, batch, draws)
    singly = [
        diffusion_bound(model, Batch(batch.latents[i : i + 1], batch.conditions[i : i + 1]), draws) for i in range(6)
    ]
    torch.testing.assert_close(whole.value, torch.cat([one.value for one in singly]), atol=1e-3, rtol=1e-5)
    assert float(whole.error.min()) > 0


@torch.no_grad()
def test_cells_that_a_network_sees_always_count():
    model = small_diffusion(weights=LossWeights(total=0, layers=0, rings=0, hits=0, cells=1))
    batch, draws = draw_batch(3), PathDraws.stratified(2, GRID, seeded())
    assert torch.equal(*(diffusion_bound(model, batch, draws, cells=cells).value for cells in (False, True)))


@torch.no_grad()
def test_the_bound_of_the_codes_is_one_term_of_the_density():
    """Codes and the decoder by hand, with bins of width 1; a ring that two patches share counts once."""
    model, batch = small_autoregressive(bins=9), draw_batch(3)
    disturb(model)
    model.eval()
    found = autoregressive_density(model, batch)
    codes = model.encode(batch.latents)
    torch.testing.assert_close(found.log_likelihood, model.log_likelihood(batch).double())
    mean, log_sigma = model.tokenizer.decode(codes[:, 7:].reshape(3, 6, 2))
    means, widths = (model.tokenizer.patching.split(x, batch.latents) for x in (mean, log_sigma.exp()))
    by_hand = sum(
        torch.distributions.Normal(getattr(means, part).double(), getattr(widths, part).double())
        .log_prob(getattr(batch.latents, part).double())
        .sum((1, 2))
        for part in ("rings", "hits")
    )
    torch.testing.assert_close(found.bound, found.log_likelihood + by_hand, atol=1e-3, rtol=0)
    cells = norm.logpdf(batch.latents.cells).sum((1, 2, 3))
    both = autoregressive_density(model, batch, cells=True)
    torch.testing.assert_close(both.bound - found.bound, torch.from_numpy(cells).double(), atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_density_of_the_energies_integrates_to_one():
    """Over the total of a shower, all else alike: bins of probability P and width w have the density P / w."""
    model, n = small_autoregressive(bins=9), 900
    disturb(model)
    batch = draw_batch(1)
    total = torch.linspace(-4.5, 4.5, n + 1)[:-1] + 4.5 / n
    same = batch.latents.map(lambda part: part.expand(n, *part.shape[1:]))
    codes = model.encode(replace(same, total=total))
    logits, _ = model.prior(codes, batch.conditions.expand(n, -1))
    density = logits[:, 0].log_softmax(-1).gather(1, codes[:, :1]).exp() / model.bin_width
    assert float(density.sum() * 9 / n) == pytest.approx(1, abs=1e-4)
    assert model.bin_width == 1


def test_draws_cover_the_path():
    draws = PathDraws.stratified(10, GRID, seeded())
    assert ((draws.angles / END * 10).floor() == torch.arange(10)).all()
    assert len(draws.noise) == 10
    for times, end in ((3, END), (0, END), (4, 2.0)):
        with pytest.raises(ValueError, match="an even number"):
            PathDraws.stratified(times, GRID, seeded(), end=end)


def test_independent_normals_are_what_they_should_be():
    latents = draw_latents(4)
    torch.testing.assert_close(
        normal_log_density(latents, ("hits",)), torch.from_numpy(norm.logpdf(latents.hits.double()).sum((1, 2)))
    )
