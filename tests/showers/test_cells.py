from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.normaliser.cells import (
    ALONE,
    LOG_HIT_KNOTS,
    encode_shares,
    fit_shares,
    place_cells,
    share_out,
    surroundings,
)
from metacalo.normaliser.hits import count_hits
from metacalo.normaliser.marginals import LEVELS, NO_ATOM, ConditionalMarginals
from metacalo.normaliser.threshold import excess
from metacalo.showers import Showers

N_PHI = 16
N_CLASSES = 7  # of hit counts in 16 cells: 2, 3, 4-5, 6-8, 9-12, 13-15, 16
THRESHOLD = 0.015  # a little less than the smallest cell of the file


@pytest.fixture(scope="module")
def showers(emptied_siw: Showers) -> torch.Tensor:
    return torch.from_numpy(emptied_siw.showers)


@pytest.fixture(scope="module")
def shares(showers: torch.Tensor) -> ConditionalMarginals:
    return fit(showers)


def fit(showers: torch.Tensor, threshold: float = THRESHOLD) -> ConditionalMarginals:
    above, rng = excess(showers, threshold), np.random.default_rng(0)
    return fit_shares(above.numpy(), count_hits(showers).numpy(), above.sum(2).numpy(), rng)


def encode(table: ConditionalMarginals, showers: torch.Tensor, threshold: float = THRESHOLD) -> torch.Tensor:
    above = excess(showers, threshold)
    return encode_shares(table, above, count_hits(showers), above.sum(2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_table(n_sites: int, sigma: float = 1.0) -> ConditionalMarginals:
    """Log-weights that are normal at all contexts."""
    shape = (n_sites, len(LOG_HIT_KNOTS))
    quantiles = sigma * torch.from_numpy(stats.norm.ppf(LEVELS)).float().expand(*shape, -1)
    atoms = (torch.full(shape, -NO_ATOM), torch.full(shape, NO_ATOM))
    return ConditionalMarginals(torch.from_numpy(LOG_HIT_KNOTS).float(), *atoms, quantiles, torch.ones(shape))


# --- which cells, and how they share: the order statistics ---


def test_independent_latents_share_independently_of_the_number_of_hits() -> None:
    """Log-ratios of any two hits are those of independent values of the table, here normal."""
    n = 4000
    latent = torch.randn(n, 1, N_PHI, 3, generator=generator())
    hits = torch.tensor([2, 7, N_PHI]).expand(n, 1, 3)
    energy = share_out(normal_table(N_CLASSES, sigma=0.7), latent, hits, torch.full((n, 1, 3), 1e3), 0)
    assert torch.equal(count_hits(energy), hits)
    for z in range(3):
        first, second = (energy[:, 0, :, z] > 0).float().topk(2, dim=1, sorted=False).indices.T
        row = torch.arange(n)
        ratio = torch.log(energy[row, 0, first, z] / energy[row, 0, second, z])
        assert stats.kstest(ratio.double().numpy(), stats.norm(0, 0.7 * 2**0.5).cdf).pvalue > 1e-3


def test_the_hits_are_the_cells_with_the_largest_latents() -> None:
    latent = torch.randn(200, 1, N_PHI, 1, generator=generator())
    hits = torch.randint(0, N_PHI + 1, (200, 1, 1), generator=generator())
    energy = share_out(normal_table(N_CLASSES), latent, hits, torch.full((200, 1, 1), 1e3), 0)
    for values, cells, n in zip(latent[:, 0, :, 0], energy[:, 0, :, 0], hits.flatten(), strict=True):
        assert set(cells.nonzero().flatten().tolist()) == set(values.topk(int(n)).indices.tolist())


@pytest.mark.parametrize("n_hits", [0, 1, 2, 9, N_PHI])
def test_independent_shares_anywhere_have_independent_normal_latents(n_hits: int) -> None:
    n = 3000
    place = torch.rand(n, 1, N_PHI, 1, generator=generator()).argsort(2)
    score = torch.randn(n, 1, N_PHI, 1, generator=generator(1))
    score = torch.where(place < n_hits, ALONE if n_hits == 1 else score, torch.nan)
    latent = place_cells(score, torch.zeros_like(score), generator(2))[:, 0, :, 0].double().numpy()
    assert stats.kstest(latent.flatten(), stats.norm.cdf).pvalue > 1e-3
    correlation = np.corrcoef(latent.T)[np.triu_indices(N_PHI, 1)]
    assert stats.kstest(correlation * n**0.5, stats.norm.cdf).pvalue > 1e-3


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_placed_cells_are_hit_again_and_keep_their_scores(seed: int, n_phi: int) -> None:
    hit = torch.rand(20, 2, n_phi, 3, generator=generator(seed)) < 0.5
    score = torch.randn(hit.shape, generator=generator(seed + 1))
    hits = hit.sum(2)
    score = torch.where(hits[:, :, None] > 1, score, ALONE)
    around = torch.randn(hit.shape, generator=generator(seed + 2))
    latent = place_cells(torch.where(hit, score, torch.nan), around, generator(seed + 3))
    lowest_hit = torch.where(hit, latent, torch.inf).amin(2)
    highest_empty = torch.where(hit, -torch.inf, latent).amax(2)
    assert (lowest_hit > highest_empty).all()
    table = normal_table(2 * 10)
    energy = share_out(table, latent, hits, torch.where(hits > 0, 1e3, 0.0), 0)
    assert torch.equal(energy > 0, hit)
    expected = torch.where(hit, torch.where(hits[:, :, None] > 1, score, 0.0), -torch.inf).softmax(2)
    expected = torch.where(hit, 1e3 * expected, 0.0)
    torch.testing.assert_close(energy, expected, rtol=2e-2, atol=0)


def test_latents_of_real_cells_are_standard_normal_and_decode_to_the_very_cells(
    showers: torch.Tensor, shares: ConditionalMarginals
) -> None:
    hits, rings = count_hits(showers), showers.sum(2)
    score = encode(shares, showers)
    assert torch.equal(score.isnan(), showers == 0)
    assert torch.equal((score == ALONE).any(2), hits == 1)
    latent = place_cells(score, surroundings(showers), generator())
    pick = torch.randint(N_PHI, (len(showers), 9, 1, 45), generator=generator(1))
    columns = latent.gather(2, pick).flatten(1).double().numpy()  # in a column showers are independent
    p = np.array([stats.kstest(column, stats.norm.cdf).pvalue for column in columns.T])
    assert (p > 1e-3).mean() > 0.97
    assert abs(float(latent.mean())) < 0.005
    assert abs(float(latent.std()) - 1) < 0.005
    again = share_out(shares, latent, hits, rings, THRESHOLD)
    # single precision does not resolve shares far beyond their table
    assert ((again > 0) != (showers > 0)).sum() <= 1e-4 * (showers > 0).sum()
    torch.testing.assert_close(again.sum(2), rings, rtol=1e-5, atol=0)
    alone = (hits == 1)[:, :, None] & (showers > 0)
    torch.testing.assert_close(again[alone], showers[alone], rtol=1e-5, atol=0)


def test_energies_of_real_cells_come_back(showers: torch.Tensor, shares: ConditionalMarginals) -> None:
    hits, rings = count_hits(showers), showers.sum(2)
    latent = place_cells(encode(shares, showers), surroundings(showers), generator())
    again = share_out(shares, latent, hits, rings, THRESHOLD)
    error = (again / showers - 1).abs()[showers > 0]
    assert error.median() < 1e-5
    assert (error < 1e-2).float().mean() > 0.99


def test_scores_do_not_depend_on_the_other_showers(showers: torch.Tensor, shares: ConditionalMarginals) -> None:
    def scores(rows: torch.Tensor) -> torch.Tensor:
        return encode(shares, rows)

    together = scores(showers[10:20])
    for rows in (slice(7, 8), slice(2, 6)):
        alone = scores(showers[10:20][rows])
        torch.testing.assert_close(alone, together[rows], atol=1e-4, rtol=0, equal_nan=True)
    twice = scores(showers[[10, 10]])
    torch.testing.assert_close(twice[0], twice[1], equal_nan=True)


def test_totals_of_showers_are_independent(shares: ConditionalMarginals) -> None:
    """Rings that differ in one bit: their shares are the same, and only the totals tell their scores apart."""
    showers = torch.zeros(400, 9, N_PHI, 45)
    showers[:, 0, :2, 0] = (30.0 * (1 + 1e-6 * torch.arange(400)))[:, None]
    score = encode(shares, showers)[:, 0, :2, 0].double().numpy()
    np.testing.assert_array_equal(score[:, 0], score[:, 1])
    assert score[:, 0].std() > 0.1
    assert stats.pearsonr(score[1:, 0], score[:-1, 0]).pvalue > 1e-3


def test_every_draw_places_cells_anew(showers: torch.Tensor, shares: ConditionalMarginals) -> None:
    few = showers[:20]
    score, around = encode(shares, few), surroundings(few)
    first, second, again = (place_cells(score, around, generator(seed)) for seed in (0, 1, 0))
    assert torch.equal(first, again)
    free = (count_hits(few) < N_PHI)[:, :, None].expand_as(few)  # in a full ring order statistics have no choice
    assert (first != second)[free].float().mean() > 0.999
    assert torch.equal(first[~free], second[~free])


def test_empty_cells_near_energy_rank_first(showers: torch.Tensor, shares: ConditionalMarginals) -> None:
    score, around = encode(shares, showers), surroundings(showers)
    latent = place_cells(score, around, generator())
    sparse = ((showers > 0).sum(2, keepdim=True) == 1) & (showers == 0)
    assert stats.spearmanr(around[sparse], latent[sparse]).statistic > 0.2


def test_surroundings_of_one_cell() -> None:
    showers = torch.zeros(1, 5, 12, 9)
    showers[0, 2, 0, 4] = 9.0
    field = torch.exp(surroundings(showers))[0]
    assert field[2, 0, 4] == pytest.approx(3.0)  # the root of its own energy
    assert field[2, 1, 4] == field[2, 11, 4] == pytest.approx(1.5)  # phi wraps round
    assert field[1, 10, 6] == pytest.approx(3 * 0.3 * 0.25 * 0.25, rel=1e-4)
    assert field[0, 0, 4] == field[2, 3, 4] == field[2, 0, 7] == pytest.approx(1e-6)
    turned = surroundings(showers.roll(5, 2))
    torch.testing.assert_close(turned, surroundings(showers).roll(5, 2))


# --- energies ---


@given(st.integers(0, 10_000), st.floats(0.05, 3))
def test_cells_add_up_to_rings_and_as_many_are_hit_as_were_drawn(seed: int, sigma: float) -> None:
    rings = torch.exp(torch.empty(30, 2, 3).uniform_(-5, 8, generator=generator(seed)))
    rings[torch.rand(rings.shape, generator=generator(seed + 1)) < 0.2] = 0
    latent = torch.randn(30, 2, N_PHI, 3, generator=generator(seed + 2))
    hits = torch.randint(1, N_PHI + 1, rings.shape, generator=generator(seed + 3))
    hits = torch.minimum(hits, (rings / THRESHOLD).ceil()).long()
    energy = share_out(normal_table(2 * N_CLASSES, sigma), latent, hits, rings, THRESHOLD)
    torch.testing.assert_close(energy.sum(2), rings, rtol=1e-5, atol=0)
    assert torch.equal(count_hits(energy), hits)


def test_of_cells_with_equal_latents_as_many_are_hit_as_were_drawn() -> None:
    hits, rings = torch.tensor([[[3]]]), torch.tensor([[[10.0]]])
    energy = share_out(normal_table(N_CLASSES), torch.zeros(1, 1, N_PHI, 1), hits, rings, THRESHOLD)
    assert float(energy.sum()) == pytest.approx(10)
    assert count_hits(energy) == 3


def test_no_hit_is_below_the_threshold() -> None:
    latent = torch.randn(2000, 1, N_PHI, 1, generator=generator())
    hits = torch.full((2000, 1, 1), 5)
    rings = torch.full((2000, 1, 1), 7 * THRESHOLD)
    energy = share_out(normal_table(N_CLASSES), latent, hits, rings, THRESHOLD)
    assert (energy[energy > 0] > THRESHOLD * (1 - 1e-3)).all()


@given(st.integers(0, 10_000), st.floats(1, 20), st.floats(0.05, 3))
def test_hits_share_what_their_ring_has_above_the_threshold(seed: int, hits_worth: float, sigma: float) -> None:
    latent = torch.randn(50, 1, N_PHI, 1, generator=generator(seed))
    hits = torch.randint(1, N_PHI + 1, (50, 1, 1), generator=generator(seed + 1))
    rings = hits * hits_worth * THRESHOLD
    table = normal_table(N_CLASSES, sigma)
    held = share_out(table, latent, hits, rings, THRESHOLD)
    free = share_out(table, latent, hits, rings - hits * THRESHOLD, 0)
    torch.testing.assert_close(held.sum(2), rings, rtol=1e-5, atol=0)
    torch.testing.assert_close(held, torch.where(held > 0, free + THRESHOLD, 0.0), rtol=1e-5, atol=1e-6)


def test_cells_of_real_rings_do_not_pile_up_at_the_threshold(
    showers: torch.Tensor, shares: ConditionalMarginals
) -> None:
    latent = torch.randn(showers.shape, generator=generator())
    drawn = share_out(shares, latent, count_hits(showers), showers.sum(2), THRESHOLD)
    edges = torch.tensor([1.0, 1.5, 3.0]) * THRESHOLD
    found, true = (torch.histogram(sample[sample > 0], edges).hist for sample in (drawn, showers))
    assert ((found - true).abs() < 4 * torch.sqrt(found + true)).all()


def dirichlet(n: int, counts: np.ndarray, shape: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hit cells with independent Gamma energies of that shape, a mean at the fifth knot; and which they are."""
    rng = np.random.default_rng(seed)
    hit = rng.random((n, 2, N_PHI, len(counts))).argsort(2) < counts
    energy = np.exp(LOG_HIT_KNOTS[4]) * rng.standard_gamma(shape, hit.shape) / shape
    return np.where(hit, energy, 0).astype(np.float32), hit


def test_weights_of_dirichlet_shares_are_gamma_distributed() -> None:
    """Sums of a ring are forgotten and drawn anew; what comes out has the distribution of what went in."""
    counts, shape = np.array([2, 3, N_PHI]), np.array([1.5, 1.5, 4.0])
    energy, _ = dirichlet(3000, counts, shape)
    # all rings of one energy per hit: the contexts say nothing
    energy *= np.exp(LOG_HIT_KNOTS[4]) * counts / energy.sum(2, keepdims=True)
    showers = torch.from_numpy(energy)
    table = fit(showers, 0)
    assert table.quantiles.shape == (2 * N_CLASSES, len(LOG_HIT_KNOTS), len(LEVELS))
    assert table.weight[[2, N_CLASSES + 2]].sum() == 0  # of 4 and 5 hits
    level = slice(LEVELS.index(0.05), LEVELS.index(0.95) + 1)
    for site, (n, a) in zip([0, 1, N_CLASSES - 1], zip(counts, shape, strict=True), strict=True):
        expected = np.log(stats.gamma.ppf(LEVELS, a) / a)[level]
        for ring in (0, 1):
            np.testing.assert_allclose(table.quantiles[ring * N_CLASSES + site, 4, level], expected, atol=0.12)
        variance = table.relative_variance(torch.full((1, 1), LOG_HIT_KNOTS[4]).float(), torch.full((1, 1), site))
        assert float(variance) == pytest.approx(1 / a, rel=0.15), n


def test_independent_latents_have_the_shares_of_the_sample() -> None:
    counts, shape = np.array([2, 3, 9, N_PHI]), np.array([1.0, 1.5, 2.0, 4.0])
    energy, hit = dirichlet(2000, counts, shape)
    energy *= np.exp(LOG_HIT_KNOTS[4]) * counts / energy.sum(2, keepdims=True)
    showers = torch.from_numpy(energy)
    hits, rings = count_hits(showers), showers.sum(2)
    table = fit(showers, 0)
    drawn = share_out(table, torch.randn(showers.shape, generator=generator()), hits, rings, 0)
    back = share_out(
        table,
        place_cells(encode(table, showers, 0), surroundings(showers), generator()),
        hits,
        rings,
        0,
    )
    for z, n in enumerate(counts):
        expected = stats.beta(shape[z], shape[z] * (n - 1))  # a share of n
        for decoded in (drawn, back):
            first = (decoded[..., z] > 0).float().argmax(2, keepdim=True)
            share = decoded[..., z].gather(2, first)[..., 0] / rings[..., z]
            assert stats.kstest(share.flatten().double().numpy(), expected.cdf).pvalue > 1e-4
    torch.testing.assert_close(back, showers, rtol=1e-2, atol=1e-2)
    assert torch.equal(back > 0, torch.from_numpy(hit))


def test_scores_in_a_ring_of_two_are_independent_and_normal() -> None:
    """Their shares add up to 1: as they are, one score would be minus the other."""
    energy, hit = dirichlet(4000, np.array([2]), np.array([1.0]))
    energy *= 2 * np.exp(LOG_HIT_KNOTS[4]) / energy.sum(2, keepdims=True)
    showers = torch.from_numpy(energy)
    score = encode(fit(showers, 0), showers, 0)
    pairs = score[:, 0, :, 0][torch.from_numpy(hit[:, 0, :, 0])].reshape(-1, 2).double().numpy()
    assert stats.pearsonr(*pairs.T).pvalue > 1e-3
    assert stats.kstest(pairs[:, 0], stats.norm.cdf).pvalue > 1e-3


def test_equal_showers_have_equal_scores(showers: torch.Tensor, shares: ConditionalMarginals) -> None:
    few = showers[:20]
    first, again, other = (encode(shares, batch) for batch in (few, few.clone(), showers[20:40]))
    torch.testing.assert_close(first, again, equal_nan=True)
    several = (count_hits(few) > 1)[:, :, None] & (few > 0)
    assert torch.isfinite(first[several]).all()
    assert other.shape == first.shape


@pytest.mark.parametrize("n_phi", [1, 2, 3, 50])
def test_any_number_of_phi_cells(n_phi: int) -> None:
    rng = np.random.default_rng(0)
    energy = np.where(rng.random((40, 2, n_phi, 3)) < 0.5, rng.exponential(5, (40, 2, n_phi, 3)) + 0.1, 0)
    showers = torch.from_numpy(energy.astype(np.float32))
    hits, rings = count_hits(showers), showers.sum(2)
    table = fit(showers, 0.1)
    latent = place_cells(encode(table, showers, 0.1), surroundings(showers), generator())
    again = share_out(table, latent, hits, rings, 0.1)
    assert ((again > 0) != (showers > 0)).sum() <= 0.02 * (showers > 0).sum()
    torch.testing.assert_close(again.sum(2), rings, rtol=1e-5, atol=0)
