from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.normaliser.spectrum import LOG_CELL_KNOTS, Spectrum, fit_spectrum, shared_hits

N_R, N_PHI = 3, 8


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_cells(n: int = 200, seed: int = 0, occupancy: float = 0.3, width: float = 1.5) -> torch.Tensor:
    """Of 1 keV to 100 GeV: beyond the knots on both sides."""
    shape = (n, N_R, N_PHI, 4)
    level = torch.empty(n, N_R, 1, 4).uniform_(-6, 9, generator=generator(seed))
    energy = torch.exp(level + width * torch.randn(shape, generator=generator(seed + 1)))
    return torch.where(torch.rand(shape, generator=generator(seed + 2)) < occupancy, energy, 0.0)


def wave(amplitude: float, periods: float, phase: float = 0.0) -> Spectrum:
    """Corrections that swing up and down over the knots, in each ring a little further on."""
    place = torch.linspace(0, 2 * np.pi, len(LOG_CELL_KNOTS))
    return Spectrum(
        amplitude * torch.sin(periods * place + phase + torch.arange(N_R)[:, None]), torch.full((N_R,), 10.0)
    )


def test_corrections_are_added_to_the_logarithm_and_the_ring_adds_up_again() -> None:
    cells = torch.zeros(1, 1, N_PHI, 1)
    cells[0, 0, :2, 0] = torch.exp(torch.from_numpy(LOG_CELL_KNOTS[[30, 50]]))
    offset = torch.zeros(1, len(LOG_CELL_KNOTS))
    offset[0, 30], offset[0, 50] = 0.1, -0.05
    sharp = Spectrum(offset, torch.ones(1)).inverse(cells)[0, 0, :, 0]
    expected = cells[0, 0, :, 0] * torch.tensor([np.exp(0.1), np.exp(-0.05), *[1] * 6])
    torch.testing.assert_close(sharp, (expected * cells.sum() / expected.sum()).float())


@pytest.mark.parametrize("spectrum", [wave(0.1, 2), wave(0.4, 3), wave(0.3, 8)])
def test_blurring_undoes_sharpening(spectrum: Spectrum) -> None:
    cells = draw_cells()
    sharp = spectrum.inverse(cells)
    assert not torch.allclose(sharp, cells, rtol=0.05)
    torch.testing.assert_close(spectrum.forward(sharp), cells, rtol=1e-5, atol=0)
    torch.testing.assert_close(spectrum.inverse(spectrum.forward(cells)), cells, rtol=1e-5, atol=0)


@given(
    st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    st.lists(st.floats(0, 12), min_size=3, max_size=3),
    st.sampled_from([0.1, 0.25, 0.9]),  # in rings of 8: few with more than two hits, and many that are full
    st.floats(0.1, 3),
    st.integers(0, 1000),
)
def test_any_smooth_map_comes_back(
    amplitudes: list[float], periods: list[float], occupancy: float, width: float, seed: int
) -> None:
    """Corrections below 0.5, among them such that energies would change their order: those are held to ascend."""
    waves = [
        wave(one, period, phase) for one, period, phase in zip(amplitudes[:3], periods, amplitudes[3:], strict=True)
    ]
    spectrum = Spectrum(sum(one.offset for one in waves) / 6, torch.zeros(N_R))
    assert spectrum.offset.abs().max() <= 0.5
    cells = draw_cells(20, seed, occupancy, width)
    torch.testing.assert_close(spectrum.forward(spectrum.inverse(cells)), cells, rtol=1e-4, atol=0)
    torch.testing.assert_close(spectrum.inverse(spectrum.forward(cells)), cells, rtol=1e-4, atol=0)


@pytest.mark.parametrize("amplitude", [2.0, 20.0])
@pytest.mark.parametrize("periods", [0.5, 6, 15, 29.5])
def test_wild_maps_come_back(amplitude: float, periods: float) -> None:
    """Twenty times as steep as the identity here, and as flat there."""
    cells, spectrum = draw_cells(50), wave(amplitude, periods)
    sharp = spectrum.inverse(cells)
    torch.testing.assert_close(spectrum.forward(sharp), cells, rtol=1e-3, atol=0)
    torch.testing.assert_close(sharp.sum(2), cells.sum(2), rtol=1e-5, atol=0)


@pytest.mark.parametrize("change", [Spectrum.inverse, Spectrum.forward])
def test_rings_keep_their_energy_and_hits_that_are_alone_theirs(
    change: Callable[[Spectrum, torch.Tensor], torch.Tensor],
) -> None:
    cells = draw_cells(occupancy=0.15)
    changed = change(wave(0.5, 3), cells)
    shared = shared_hits(cells)
    torch.testing.assert_close(changed.sum(2), cells.sum(2), rtol=1e-6, atol=0)
    assert torch.equal(changed[~shared], cells[~shared])
    assert torch.equal(changed > 0, cells > 0)
    assert 0.1 < ((cells > 0) & ~shared).sum() / (cells > 0).sum() < 0.9
    assert changed.dtype == cells.dtype


@pytest.mark.parametrize("change", [Spectrum.inverse, Spectrum.forward])
def test_where_no_hits_share_a_ring_nothing_happens(change: Callable[[Spectrum, torch.Tensor], torch.Tensor]) -> None:
    alone = torch.zeros(2, N_R, N_PHI, 4)
    alone[1, 2, 3, 1] = 5.0
    for cells in (alone, alone[:0], torch.full((2, N_R, 1, 4), 3.0)):
        assert torch.equal(change(wave(0.5, 3), cells), cells)
    cells = draw_cells()
    torch.testing.assert_close(change(Spectrum.none(N_R), cells), cells, rtol=1e-6, atol=0)


def test_shared_hits_are_those_of_rings_with_several() -> None:
    cells = torch.zeros(1, 2, N_PHI, 1)
    cells[0, 0, 3], cells[0, 1, [0, 7]] = 1.0, 2.0
    assert shared_hits(cells).nonzero()[:, 1:3].tolist() == [[1, 0], [1, 7]]


# --- fitting ---


def with_a_peak(n: int, seed: int) -> torch.Tensor:
    """Rings of four hits: of each hit a third at 2 MeV, the deposit of a particle that crosses, else lognormal."""
    shape = (n, N_R, 4, 4)
    smooth = torch.exp(1 + 1.5 * torch.randn(shape, generator=generator(seed)))
    peak = 2 * torch.exp(0.1 * torch.randn(shape, generator=generator(seed + 1)))
    energy = torch.where(torch.rand(shape, generator=generator(seed + 2)) < 1 / 3, peak, smooth)
    return torch.cat([energy, torch.zeros(n, N_R, N_PHI - 4, 4)], dim=2)


def blurred(cells: torch.Tensor, seed: int, spectrum: Spectrum) -> torch.Tensor:
    """The same rings with hits of the wrong spectrum, as tables relative to the ring make them."""
    noise = cells * torch.exp(0.5 * torch.randn(cells.shape, generator=generator(seed)))
    noise = noise * cells.sum(2, keepdim=True) / noise.sum(2, keepdim=True)
    return spectrum.inverse(noise)


def distance(mine: torch.Tensor, theirs: torch.Tensor, ring: int) -> float:
    """Kolmogorov-Smirnov, of all hits of a ring."""
    samples = (cells[:, ring][cells[:, ring] > 0].numpy() for cells in (mine, theirs))
    return float(stats.ks_2samp(*samples).statistic)


def test_a_peak_that_was_blurred_comes_back() -> None:
    true, none = with_a_peak(1000, 0), Spectrum.none(N_R)
    fitted = fit_spectrum(true, lambda spectrum: blurred(true, 5, spectrum), none, 500.0)
    assert fitted.weight.tolist() == [16_000] * N_R
    unseen = with_a_peak(1000, 20)
    before, after = (blurred(unseen, 25, spectrum) for spectrum in (none, fitted))
    for ring in range(N_R):
        assert distance(before, unseen, ring) > 0.08
        assert distance(after, unseen, ring) < 0.03
    near = [float(((cells > 1.6) & (cells < 2.5)).sum()) for cells in (before, after, unseen)]
    assert near[0] < 0.75 * near[2]
    assert near[1] == pytest.approx(near[2], rel=0.1)


def test_with_few_cells_the_prior_holds() -> None:
    true, prior = with_a_peak(400, 0), wave(0.05, 2)
    fits = [
        fit_spectrum(true[:n], lambda spectrum, n=n: blurred(true[:n], 5, spectrum), prior, 500.0) for n in (0, 4, 400)
    ]
    assert torch.equal(fits[0].offset, prior.offset)
    assert fits[0].weight.tolist() == [0] * N_R
    few, many = ((one.offset - prior.offset).abs().max() for one in fits[1:])
    assert 0 < few < 0.3 * many


def test_a_ring_without_shared_hits_keeps_the_prior() -> None:
    true, prior = with_a_peak(200, 0), wave(0.05, 2)
    true[:, 1, 1:] = 0
    fitted = fit_spectrum(true, lambda spectrum: blurred(true, 5, spectrum), prior, 500.0)
    assert torch.equal(fitted.offset[1], prior.offset[1])
    assert not torch.allclose(fitted.offset[0], prior.offset[0], atol=0.01)
    assert fitted.weight.tolist() == [3200, 0, 3200]


def test_shrinking_a_spectrum() -> None:
    mine = Spectrum(wave(0.3, 2).offset, torch.tensor([0.0, 500, 1500]))
    prior = wave(0.2, 5)
    share = torch.tensor([0, 0.5, 0.75])[:, None]
    shrunk = mine.shrunk_towards(prior, 500.0)
    torch.testing.assert_close(shrunk.offset, share * mine.offset + (1 - share) * prior.offset)
    assert torch.equal(shrunk.weight, mine.weight)


def test_columns_and_tensors_of_a_spectrum() -> None:
    one = wave(0.3, 2)
    assert one.columns().shape == (N_R, len(LOG_CELL_KNOTS), 1)
    for again in (Spectrum.from_columns(one.columns(), one.weight), Spectrum.from_tensors(one.tensors())):
        assert torch.equal(again.offset, one.offset)
        assert torch.equal(again.weight, one.weight)
